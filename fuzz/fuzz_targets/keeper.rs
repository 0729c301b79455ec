#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laneway_fuzz::keeper::check_keeper(bytes));
