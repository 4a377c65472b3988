//! A line with the `message_id`, and the body.
#![no_main]

use postrider::provider::hubspot::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (id, body) = data.split_at(end);
    let id = std::str::from_utf8(id).ok().filter(|id| !id.is_empty());
    hostile::request(body, id);
});
