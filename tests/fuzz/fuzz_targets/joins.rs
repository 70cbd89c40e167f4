//! See `hivevpn_fuzz::joins`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::joins(bytes));
