//! A story's text, and what follows from it.
#![no_main]

use postrider::retry::hostile;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let seed = data.iter().fold(0_u64, |seed, byte| {
        seed.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    hostile::story(data, seed);
});
