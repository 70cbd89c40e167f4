//! See `hivevpn_fuzz::invites`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::invites(bytes));
