//! libFuzzer's entry; see [`tap53_fuzz::message`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: tap53_fuzz::seeds::write(
        &[tap53_fuzz::seeds::messages(), tap53_fuzz::seeds::hostile()].concat()
    )
    .expect("the seeds can be written"),
    |bytes: &[u8]| tap53_fuzz::message(bytes)
);
