//! See `hivevpn_fuzz::signed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::signed(bytes));
