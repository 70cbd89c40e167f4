//! See `hivevpn_fuzz::registry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::registry(bytes));
