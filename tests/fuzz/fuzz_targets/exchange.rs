//! See `hivevpn_fuzz::exchange`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::exchange(bytes));
