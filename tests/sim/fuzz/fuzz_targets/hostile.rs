//! Hostile bytes in the middle of a network that works: see `hivevpn_sim::hostile`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let broken = hivevpn_sim::hostile::live_through(bytes);
    assert!(broken.is_empty(), "{broken:?}");
});
