//! See `hivevpn_fuzz::wires`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::wires(bytes));
