//! What one peer takes does not take from the others. Delays here are those of real links, so that three times the idle
//! round trip means something.

use std::time::Duration;

use crate::deadline::until;
use crate::lab::{Lab, Link, Nat};
use crate::node::{Network, Node};
use crate::traffic::{Flood, pings};

/// Hundreds, so that the 99th percentile is not a single ping.
const PINGS: u16 = 200;
const GAP: Duration = Duration::from_millis(20);

/// Of each node's own link, one way: two nodes are two of them apart, and twice that with a relay between them.
const DELAY_MS: u64 = 5;

/// The link of whoever receives the bulk: everything on the way to it fills up.
fn narrow() -> Link {
    Link::delay(DELAY_MS).rate(20, Duration::from_millis(100))
}

fn percentile_99(mut round_trips: Vec<Duration>) -> Duration {
    round_trips.sort_unstable();
    round_trips[(round_trips.len() * 99).div_ceil(100) - 1]
}

/// Asserts that pings between other nodes take at most three times as long while `a` sends to `b` all it can.
fn is_left_in_peace(net: &Network, pairs: &[[&str; 2]]) {
    let measure = |[from, to]: [&str; 2]| {
        let (from, to): (&Node, &Node) = (net.node(from), net.node(to));
        percentile_99(pings(from.host(), to.ipv4().into(), PINGS, GAP))
    };
    let idle: Vec<Duration> = pairs.iter().map(|pair| measure(*pair)).collect();
    let (a, b) = (net.node("a"), net.node("b"));
    let flood = Flood::start(a.host(), b.host(), b.ipv4().into());
    // Slow start is over, queues are as full as they get.
    until(Duration::from_secs(30), "the flood flows", || {
        flood.sent() > 10_000_000
    });
    for (pair, idle) in pairs.iter().zip(idle) {
        let before = flood.sent();
        let loaded = measure(*pair);
        let flown = flood.sent() - before;
        assert!(flown > 1_000_000, "the flood ebbed: {flown} bytes");
        assert!(
            loaded <= 3 * idle,
            "{pair:?}: {idle:?} idle, {loaded:?} loaded"
        );
    }
}

#[test]
fn bulk_through_a_relay_leaves_its_other_peers_alone() {
    let lab = Lab::new()
        .public("r")
        .over(Link::delay(DELAY_MS))
        .behind(Nat::Symmetric, "a")
        .over(Link::delay(DELAY_MS))
        .behind(Nat::Symmetric, "b")
        .over(narrow())
        .behind(Nat::Symmetric, "c")
        .over(Link::delay(DELAY_MS))
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    for pair in [["a", "b"], ["a", "c"]] {
        net.wait("relay", pair, Duration::from_secs(30));
    }
    is_left_in_peace(&net, &[["a", "c"], ["a", "r"], ["c", "r"]]);
}

#[test]
fn bulk_on_a_direct_path_leaves_the_other_peers_of_the_sender_alone() {
    let lab = Lab::new()
        .public("a")
        .over(Link::delay(DELAY_MS))
        .public("b")
        .over(narrow())
        .public("c")
        .over(Link::delay(DELAY_MS))
        .build();
    let net = Network::start(lab, ["a", "b", "c"]);
    for pair in [["a", "b"], ["a", "c"]] {
        net.wait("direct", pair, Duration::from_secs(30));
    }
    is_left_in_peace(&net, &[["a", "c"]]);
}
