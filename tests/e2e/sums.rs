//! What goes in comes out: random bytes, equal by SHA-256 at both ends, on every kind of path in both directions, with
//! and without the kernel's offloads. (The short tests leave out the gigabytes that [`reach`](crate::reach) and
//! [`paths`](crate::paths) send anyway.)

use std::time::Duration;

use crate::lab::{Lab, Nat};
use crate::node::Network;
use crate::traffic::transfer;

const MEGABYTE: usize = 1_000_000;
const GIGABYTE: usize = 1 << 30;

/// A kind of path between a and b.
#[derive(Clone, Copy)]
enum Kind {
    Direct,
    Stream,
    Relay,
}

impl Kind {
    /// The name that the status shows.
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Stream => "stream",
            Self::Relay => "relay",
        }
    }

    /// Where a and b have no better path, and who is there. The first founds the network.
    fn lab(self) -> (Lab, &'static [&'static str]) {
        match self {
            Self::Direct => {
                let lab = Lab::new().public("a").public("b");
                (lab.build(), &["a", "b"])
            }
            Self::Stream => {
                let lab = Lab::new().behind(Nat::NoUdp, "a").public("b");
                (lab.build(), &["b", "a"])
            }
            Self::Relay => {
                let lab = Lab::new().public("r");
                let lab = lab.behind(Nat::Symmetric, "a").behind(Nat::Symmetric, "b");
                (lab.build(), &["r", "a", "b"])
            }
        }
    }
}

/// Sends so many bytes each way, over IPv4 one way and over IPv6 the other.
fn sums_are_equal(kind: Kind, offload: bool, bytes: usize) {
    let toml = format!("[interface]\noffload = {offload}\n");
    let (lab, names) = kind.lab();
    let net = Network::configured(lab, names, |_| toml.clone());
    net.wait(kind.name(), ["a", "b"], Duration::from_secs(30));
    let (a, b) = (net.node("a"), net.node("b"));
    transfer(a.host(), b.host(), b.ipv4().into(), bytes);
    transfer(b.host(), a.host(), a.ipv6().into(), bytes);
    for (from, to) in [(a, "b"), (b, "a")] {
        let shown = from.peer(to).unwrap();
        assert_eq!(shown["path"], kind.name(), "{shown:#}");
    }
}

#[test]
fn a_direct_path_changes_nothing_without_offloads() {
    sums_are_equal(Kind::Direct, false, 200 * MEGABYTE);
}

#[test]
fn a_stream_changes_nothing() {
    sums_are_equal(Kind::Stream, true, 200 * MEGABYTE);
}

#[test]
fn a_stream_changes_nothing_without_offloads() {
    sums_are_equal(Kind::Stream, false, 200 * MEGABYTE);
}

#[test]
fn a_relay_changes_nothing() {
    sums_are_equal(Kind::Relay, true, 100 * MEGABYTE);
}

#[test]
fn a_relay_changes_nothing_without_offloads() {
    sums_are_equal(Kind::Relay, false, 100 * MEGABYTE);
}

#[test]
#[ignore = "takes minutes: cargo test --test e2e -- --ignored gigabytes"]
fn gigabytes_arrive_on_every_path_with_and_without_offloads() {
    for kind in [Kind::Direct, Kind::Stream, Kind::Relay] {
        for offload in [true, false] {
            let began = std::time::Instant::now();
            sums_are_equal(kind, offload, GIGABYTE);
            println!(
                "{}, offload = {offload}: {:?}",
                kind.name(),
                began.elapsed()
            );
        }
    }
}
