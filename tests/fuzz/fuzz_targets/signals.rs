//! See `hivevpn_fuzz::signals`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::signals(bytes));
