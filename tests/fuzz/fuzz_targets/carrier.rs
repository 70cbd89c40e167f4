//! See `hivevpn_fuzz::carrier`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::carrier(bytes));
