//! A line each with the status, `Retry-After` and the correlation id; and the body.
#![no_main]

use postrider::provider::hubspot::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let (status, retry_after, correlation_id, body) = (next(), next(), next(), next());
    let told = std::str::from_utf8(status).ok().and_then(|status| status.parse().ok());
    // What is no number is one all the same: of its first two bytes.
    let status = told.unwrap_or_else(|| {
        let [a, b] = [0, 1].map(|at| status.get(at).copied().unwrap_or_default());
        u16::from_be_bytes([a % 4, b])
    });
    hostile::answer(status, retry_after, correlation_id, body);
});
