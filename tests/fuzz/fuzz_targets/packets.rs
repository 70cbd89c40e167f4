//! See `hivevpn_fuzz::packets`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::packets(bytes));
