//! See `hivevpn_fuzz::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::control(bytes));
