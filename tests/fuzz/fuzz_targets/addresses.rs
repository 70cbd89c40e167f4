//! See `hivevpn_fuzz::addresses`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::addresses(bytes));
