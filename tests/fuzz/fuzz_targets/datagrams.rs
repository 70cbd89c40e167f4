//! See `hivevpn_fuzz::datagrams`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hivevpn_fuzz::datagrams(bytes));
