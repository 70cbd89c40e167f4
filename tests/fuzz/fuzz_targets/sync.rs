//! See `hivevpn_fuzz::sync`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::sync(bytes));
