//! libFuzzer's entry; see [`tap53_fuzz::stream`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: tap53_fuzz::seeds::write(&tap53_fuzz::seeds::choices()).expect("the seeds can be written"),
    |bytes: &[u8]| tap53_fuzz::stream(bytes)
);
