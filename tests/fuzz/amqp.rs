//! The payload of a content header, from its flags on.
#![no_main]

use postrider::queue::amqp::hostile;

/// Class, weight and body size.
const HEAD: [u8; 12] = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    hostile::content_header(&[&HEAD, data].concat());
});
