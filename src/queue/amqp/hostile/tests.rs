use proptest::prelude::*;

use super::content_header;

fn short(bytes: &[u8]) -> Vec<u8> {
    let bytes = &bytes[..bytes.len().min(255)];
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

fn of(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind], payload].concat()
}

/// A value as it stands on the wire, its type before it.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(any::<u8>(), 0..20);
    let plain = prop_oneof![
        text.clone().prop_map(|text| of(b'S', &long(&text))),
        text.prop_map(|text| of(b'x', &long(&text))),
        any::<[u8; 8]>().prop_map(|it| of(b'l', &it)),
        any::<[u8; 8]>().prop_map(|it| of(b'L', &it)),
        any::<[u8; 2]>().prop_map(|it| of(b'U', &it)),
        any::<[u8; 5]>().prop_map(|it| of(b'D', &it)),
        Just(vec![b'V']),
        Just(vec![b't', 7]),
        any::<[u8; 4]>().prop_map(|it| it.to_vec()),
    ];
    plain.prop_recursive(24, 60, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|it| of(b'A', &long(&it.concat()))),
            any_table(inner).prop_map(|it| of(b'F', &it)),
        ]
    })
}

fn any_table(value: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        prop::sample::select(&["x-postrider-story", "x-death", "CC", "BCC", "trace"][..])
            .prop_map(|name| name.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    let entry = (name, value).prop_map(|(name, value)| [short(&name), value].concat());
    prop::collection::vec(entry, 0..5).prop_map(|entries| long(&entries.concat()))
}

/// A content header with all fourteen properties.
fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let text = || prop::collection::vec(any::<u8>(), 0..10).prop_map(|text| short(&text));
    let before = (text(), text(), any_table(any_value()), any::<[u8; 2]>());
    let ids = (text(), text(), text(), text(), any::<[u8; 8]>());
    let after = (text(), text(), text(), text());
    (before, ids, after).prop_map(|(before, ids, after)| {
        let mut payload = vec![0; 12];
        payload.extend([0xFF, 0xFC]);
        payload.extend([before.0, before.1, before.2, before.3.to_vec()].concat());
        payload.extend([ids.0, ids.1, ids.2, ids.3, ids.4.to_vec()].concat());
        payload.extend([after.0, after.1, after.2, after.3].concat());
        payload
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_header_is_read_and_goes_on(payload in any_header()) {
        content_header(&payload);
    }

    #[test]
    fn a_header_that_is_cut_or_changed_anywhere_harms_nobody(
        payload in any_header(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut payload = payload;
        let at = at.index(payload.len());
        payload[at] = byte;
        if cut {
            payload.truncate(at);
        }
        content_header(&payload);
    }

    #[test]
    fn no_bytes_are_too_strange(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        content_header(&payload);
    }
}

/// A frame of 128 KiB has room for 26,000 arrays, one of 16 MiB for three million.
#[test]
fn nothing_is_too_deep() {
    for depth in [16_u32, 17, 18, 1_000, 26_000, 3_000_000] {
        let mut headers = short(b"nested");
        for inner in (0..depth).rev() {
            headers.push(b'A');
            headers.extend((inner * 5).to_be_bytes());
        }
        let mut payload = vec![0; 12];
        payload.extend([0x20, 0]);
        payload.extend(long(&headers));
        content_header(&payload);
    }
}

#[test]
fn headers_of_a_whole_frame_leave_room_for_the_story() {
    for (count, bytes) in [
        (1, 130_000),
        (1, 48_000),
        (2_000, 15),
        (10_000, 0),
        (300, 300),
    ] {
        let mut headers = Vec::new();
        for number in 0..count {
            headers.extend(short(format!("h{number}").as_bytes()));
            headers.extend(of(b'S', &long(&vec![b'v'; bytes])));
        }
        let mut payload = vec![0; 12];
        payload.extend([0xFF, 0xFC]);
        let text = short(&[b'p'; 255]);
        payload.extend([text.clone(), text.clone(), long(&headers), vec![2, 5]].concat());
        payload.extend([text.repeat(4), vec![0; 8], text.repeat(4)].concat());
        content_header(&payload);
    }
}
