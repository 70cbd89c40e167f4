//! Awkward underlays: which way the datagrams go, and that programs never notice.

use std::time::Duration;

use crate::lab::{Lab, Nat};
use crate::node::{Network, Node};
use crate::reach::reaches;
use crate::traffic::{LongStream, MARKER, transfer};

const MEGABYTE: usize = 1_000_000;

/// Two nodes behind NAT and a public one that founded the network.
fn pair(a: Nat, b: Nat) -> Network {
    Network::start(
        Lab::new().public("r").behind(a, "a").behind(b, "b").build(),
        ["r", "a", "b"],
    )
}

/// Asserts that a node reaches a peer over this relay.
fn is_relayed_by(node: &Node, peer: &str, relay: &str) {
    let shown = node.peer(peer).expect("the peer is known");
    assert_eq!(
        (shown["path"].as_str(), shown["relay"].as_str()),
        (Some("relay"), Some(relay)),
        "{shown:#}"
    );
}

/// The relay carries WireGuard datagrams; a capture on it that finds the plaintext, which the
/// same capture finds in the clear (see the laboratory's own tests), would show that it can read along.
#[test]
fn symmetric_nats_keep_the_relay_which_sees_only_ciphertext() {
    let net = pair(Nat::Symmetric, Nat::Symmetric);
    net.wait("relay", ["a", "b"], Duration::from_secs(15));
    let (a, b, r) = (net.node("a"), net.node("b"), net.node("r"));
    assert!(a.host().pings(b.ipv4()));

    let (capture, before) = (r.host().capture(MARKER), r.host().bytes_through("eth0"));
    transfer(a.host(), b.host(), b.ipv4().into(), 100 * MEGABYTE);
    let carried = r.host().bytes_through("eth0") - before;
    let seen = capture.stop();

    is_relayed_by(a, "b", "r");
    is_relayed_by(b, "a", "r");
    assert!(
        carried > 200 * MEGABYTE as u64,
        "in and out again: {carried} bytes"
    );
    assert!(seen.packets > 1000 && seen.matching == 0, "{seen:?}");
}

#[test]
fn a_port_restricted_pair_starts_at_once_and_goes_direct_without_breaking_a_stream() {
    let net = pair(Nat::PortRestricted, Nat::PortRestricted);
    let (a, b, r) = (net.node("a"), net.node("b"), net.node("r"));
    net.wait_ping("a", "b", Duration::from_secs(2));
    let mut stream = LongStream::open(a.host(), b.host(), b.ipv4().into());
    stream.echoes();
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    stream.echoes();

    let shown = a.peer("b").unwrap();
    let endpoint = shown["endpoint"]
        .as_str()
        .expect("a direct path has an endpoint");
    assert!(
        endpoint.starts_with(&net.lab().router("b").wan().to_string()),
        "{shown:#}"
    );
    assert!(shown["relay"].is_null(), "{shown:#}");

    let before = r.host().bytes_through("eth0");
    transfer(a.host(), b.host(), b.ipv4().into(), 20 * MEGABYTE);
    let carried = r.host().bytes_through("eth0") - before;
    assert!(
        carried < MEGABYTE as u64,
        "the relay still carried {carried} bytes"
    );
    stream.echoes();
}

/// The same move made slow enough to be watched: the pair cannot punch until the firewall between
/// them opens, so the stream surely begins on the relay.
#[test]
fn a_stream_that_began_on_the_relay_survives_the_move_to_the_direct_path() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .build();
    lab.router("a").block_address(Some(lab.router("b").wan()));
    let net = Network::start(lab, ["r", "a", "b"]);
    net.wait("relay", ["a", "b"], Duration::from_secs(15));
    let (a, b) = (net.node("a"), net.node("b"));
    let mut stream = LongStream::open(a.host(), b.host(), b.ipv4().into());
    stream.echoes();
    is_relayed_by(a, "b", "r");

    net.lab().router("a").block_address(None);
    net.wait("direct", ["a", "b"], Duration::from_secs(75));
    stream.echoes();
}

#[test]
fn a_router_that_changes_ports_does_not_prevent_the_direct_path() {
    let net = pair(Nat::Remapping, Nat::PortRestricted);
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    assert!(net.node("a").host().pings(net.node("b").ipv4()));
}

#[test]
fn a_symmetric_and_a_full_cone_router_find_a_way() {
    let net = pair(Nat::Symmetric, Nat::FullCone);
    net.wait_ping("a", "b", Duration::from_secs(10));
    net.wait_ping("b", "a", Duration::from_secs(10));
}

/// Both kinds of packets and programs of every sort, with TCP alone.
#[test]
fn without_udp_streams_carry_everything() {
    let net = pair(Nat::NoUdp, Nat::NoUdp);
    net.wait_ping("a", "b", Duration::from_secs(10));
    let (a, b, r) = (net.node("a"), net.node("b"), net.node("r"));
    assert_eq!(
        a.peer("r").unwrap()["path"],
        "stream",
        "TCP goes straight to the public node"
    );
    reaches(a, r, r.ipv4().into(), 100 * MEGABYTE);
    for address in b.addresses() {
        reaches(a, b, address, 50 * MEGABYTE);
    }
}

#[test]
fn without_udp_a_gigabyte_arrives() {
    let net = Network::start(
        Lab::new().public("r").behind(Nat::NoUdp, "a").build(),
        ["r", "a"],
    );
    net.wait("stream", ["a", "r"], Duration::from_secs(15));
    let (a, r) = (net.node("a"), net.node("r"));
    transfer(a.host(), r.host(), r.ipv4().into(), 1 << 30);
}

#[test]
fn on_an_isolated_lan_nodes_find_each_other_by_multicast() {
    let mut net = Network::start(
        Lab::new().isolated("a").isolated("b").isolated("c").build(),
        ["a", "b", "c"],
    );
    net.wait_ping("b", "c", Duration::from_secs(10));
    // New addresses, which nobody can know from before: only multicast tells them.
    for (name, address) in [
        ("a", "192.168.7.101/24"),
        ("b", "192.168.7.102/24"),
        ("c", "192.168.7.103/24"),
    ] {
        net.take(name).interrupt();
        net.lab().host(name).set_address(address, None);
    }
    for name in ["b", "c"] {
        let node = net.lab().host(name).up(&[]);
        net.put(node);
    }
    net.wait_ping("b", "c", Duration::from_secs(10));
    net.wait("direct", ["b", "c"], Duration::from_secs(15));
    let (b, c) = (net.node("b"), net.node("c"));
    for address in c.addresses() {
        reaches(b, c, address, 100 * MEGABYTE);
    }
}

/// With no firewall, one and two between them.
#[test]
fn an_ipv6_only_underlay_carries_everything() {
    let lab = Lab::new()
        .ipv6_only()
        .public("r")
        .behind(Nat::Firewall, "a")
        .behind(Nat::Firewall, "b")
        .behind(Nat::Open, "c")
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    for [from, to] in [["r", "c"], ["c", "a"], ["a", "b"]] {
        net.wait("direct", [from, to], Duration::from_secs(15));
        let (from, to) = (net.node(from), net.node(to));
        for address in to.addresses() {
            reaches(from, to, address, 50 * MEGABYTE);
        }
    }
}
