#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laneway_fuzz::health::check_health(bytes));
