//! See `hivevpn_fuzz::objects`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::objects(bytes));
