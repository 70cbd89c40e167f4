//! Addresses change, cables are pulled, routers forget, firewalls drop in silence, machines sleep; traffic goes on.
//!
//! Echoes every 100 ms tell how long a path was gone. A TCP stream tells that no program notices; it may rest for longer than
//! its path, because it does not ask all the time.

use std::net::IpAddr;
use std::time::Duration;

use crate::deadline::{passes, until};
use crate::lab::{Lab, Nat};
use crate::node::{Network, Node};
use crate::traffic::{LongStream, Watch, rests_at_most};

/// As long as traffic may rest.
const REST: Duration = Duration::from_secs(5);
/// Within this time of the start everything has its best path.
const SETTLED: Duration = Duration::from_secs(15);
/// Within this time a better path that has come back is found.
const FOUND_AGAIN: Duration = Duration::from_secs(75);

/// Echoes from one node to another.
fn echoes(from: &Node, to: &Node) -> Watch {
    Watch::of_echoes(from.host(), to.host(), to.ipv4().into())
}

/// A stream in full flow from one node to another.
fn stream(from: &Node, to: &Node) -> Watch {
    Watch::of_stream(from.host(), to.host(), to.ipv4().into())
}

/// Waits until `node` reaches `peer` at this underlay address.
fn reaches_at(node: &Node, peer: &str, address: IpAddr, within: Duration) {
    let what = format!("{peer} is reached at {address}");
    until(within, &what, || {
        let shown = node.peer(peer).expect("the peer is known");
        let endpoint = shown["endpoint"].as_str().unwrap_or_default();
        endpoint.starts_with(&address.to_string())
    });
}

/// The path that `node` shows to `peer`.
fn path(node: &Node, peer: &str) -> String {
    let shown = node.peer(peer).expect("the peer is known");
    shown["path"].as_str().expect("it is a text").to_owned()
}

#[test]
fn a_stream_flows_on_when_an_end_gets_another_address() {
    let lab = Lab::new()
        .public("r")
        .public("a")
        .behind(Nat::PortRestricted, "b")
        .build();
    let net = Network::start(lab, ["r", "a", "b"]);
    net.wait("direct", ["a", "b"], SETTLED);
    let (a, b) = (net.node("a"), net.node("b"));
    let watches = [stream(a, b), stream(b, a)];
    let new = "203.0.113.77";
    rests_at_most(REST, &watches.each_ref(), "another address", || {
        a.host()
            .set_address(&format!("{new}/24"), Some("203.0.113.1"));
    });
    reaches_at(b, "a", new.parse().unwrap(), REST);
    let listens = a.status()["node"]["listen"].to_string();
    assert!(listens.contains(new), "{listens}");
    net.wait("direct", ["a", "b"], SETTLED);
}

/// The firewall drops the datagrams between the two and tells nobody; all else passes.
#[test]
fn traffic_goes_on_when_the_direct_path_dies_silently_and_returns_with_it() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .build();
    let net = Network::start(lab, ["r", "a", "b"]);
    net.wait("direct", ["a", "b"], SETTLED);
    let (a, b) = (net.node("a"), net.node("b"));
    let mut program = LongStream::open(a.host(), b.host(), b.ipv4().into());
    let watches = [echoes(a, b), echoes(b, a)];
    let [router_a, router_b] = ["a", "b"].map(|name| net.lab().router(name));

    rests_at_most(REST, &watches.each_ref(), "a silent death", || {
        router_a.block_udp_with(Some(router_b));
    });
    for (node, peer) in [(a, "b"), (b, "a")] {
        assert_ne!(path(node, peer), "direct", "{:#}", node.status());
    }
    program.echoes();

    rests_at_most(REST, &watches.each_ref(), "the way back", || {
        router_a.block_udp_with(None);
    });
    net.wait("direct", ["a", "b"], FOUND_AGAIN);
    program.echoes();
}

/// The cable goes into another switch, behind another router: another address, and nothing that was mapped before.
#[test]
fn traffic_goes_on_behind_another_router() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .behind(Nat::Symmetric, "c")
        .behind(Nat::FullCone, "d")
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    net.wait("direct", ["a", "b"], SETTLED);
    net.wait_ping("a", "c", SETTLED);
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    let watches = [echoes(a, b), echoes(b, a), echoes(a, c), echoes(c, a)];
    rests_at_most(REST, &watches.each_ref(), "another uplink", || {
        net.lab().move_beside("d", "a");
    });
    reaches_at(b, "a", net.lab().router("d").wan(), SETTLED);
    net.wait("direct", ["a", "b"], SETTLED);
}

/// The router comes back with an empty memory: symmetric ones give every flow another port.
#[test]
fn traffic_goes_on_when_a_router_was_restarted() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::Symmetric, "b")
        .behind(Nat::FullCone, "c")
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    net.wait("direct", ["a", "c"], SETTLED);
    net.wait("direct", ["b", "c"], SETTLED);
    net.wait_ping("a", "b", SETTLED);
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    let watches = [echoes(a, c), echoes(c, b), echoes(b, c), echoes(a, b)];
    let at_once = Duration::ZERO;
    for (name, outage) in [
        ("a", at_once),
        ("b", at_once),
        ("b", Duration::from_secs(3)),
    ] {
        let router = net.lab().router(name);
        let what = format!("the restart of {name}'s router, which took {outage:?}");
        rests_at_most(REST, &watches.each_ref(), &what, || {
            router.cable().set_carrier(false);
            passes(outage);
            router.flush_conntrack();
            router.cable().set_carrier(true);
        });
    }
}

/// One peer is reached directly, the other by the relay.
fn traffic_goes_on_after_sleep(sleep: Duration) {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .behind(Nat::Symmetric, "c")
        .build();
    let net = Network::start(lab, ["r", "a", "b", "c"]);
    net.wait("direct", ["a", "b"], SETTLED);
    net.wait_ping("a", "c", SETTLED);
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    let watches = [echoes(a, b), echoes(b, a), echoes(a, c), echoes(c, a)];
    rests_at_most(REST, &watches.each_ref(), "a sleep", || {
        a.freeze();
        passes(sleep);
        a.thaw();
    });
    net.wait("direct", ["a", "b"], SETTLED);
}

#[test]
fn traffic_goes_on_after_a_short_sleep() {
    traffic_goes_on_after_sleep(Duration::from_secs(40));
}

/// Longer than sessions, mappings and connections live.
#[test]
#[ignore = "takes eleven minutes: cargo test --test e2e -- --ignored long_sleep"]
fn traffic_goes_on_after_a_long_sleep() {
    traffic_goes_on_after_sleep(Duration::from_secs(600));
}
