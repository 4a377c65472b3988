//! A byte that says what the columns are, the rank, and the columns with 0xFE between them.
#![no_main]

use postrider::queue::sqlite::hostile::{Column, row};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let [kinds, rank, columns @ ..] = data else {
        return;
    };
    let mut columns = columns.splitn(3, |byte| *byte == 0xFE);
    let mut column = |shift: u8| {
        let bytes = columns.next().unwrap_or_default();
        match (kinds >> shift) & 3 {
            0 => Column::Text(bytes),
            1 => Column::Bytes(bytes),
            2 => Column::Number(bytes.len() as i64),
            _ => Column::Null,
        }
    };
    row(column(0), column(2), column(4), i64::from(*rank) - 1);
});
