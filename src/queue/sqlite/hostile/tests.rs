use proptest::prelude::*;

use super::{Column, row};

fn any_column() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        "\\PC{0,30}".prop_map(String::into_bytes),
        Just(br#"{"spent": 3, "priority": "low"}"#.to_vec()),
    ];
    (0_u8..4, bytes)
}

fn column((kind, bytes): &(u8, Vec<u8>)) -> Column<'_> {
    match kind {
        0 => Column::Null,
        1 => Column::Number(bytes.len().cast_signed() as i64 - 7),
        2 => Column::Text(bytes),
        _ => Column::Bytes(bytes),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_row_is_read(
        story in any_column(),
        id in any_column(),
        body in any_column(),
        rank in any::<i64>(),
    ) {
        row(column(&story), column(&id), column(&body), rank);
    }
}

#[test]
fn nothing_is_too_deep() {
    let nested = "[".repeat(100_000);
    let story = format!(r#"{{"attempts": {nested}"#);
    row(
        Column::Text(story.as_bytes()),
        Column::Null,
        Column::Bytes(b""),
        1,
    );
}
