//! The text of a file, and after a zero byte variables, a line each.
#![no_main]

use postrider::config::hostile;

/// No problem holds a control character.
const MARKER: &str = "\u{1}";

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (file, variables) = text.split_once('\0').unwrap_or((&text, ""));
    let variables: Vec<_> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("POSTRIDER_{name}"), value.to_owned()))
        .collect();
    hostile::settings(file, &variables, MARKER);
});
