//! R2: any public member relays, and no relay is the only one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::deadline::{eventually, until};
use crate::lab::{Lab, Nat};
use crate::node::{Network, Node};
use crate::traffic::{Watch, rests_at_most, transfer_while};

/// As long as traffic may rest when its relay dies.
const REST: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(15);

const RELAYS: [&str; 3] = ["r1", "r2", "r3"];

/// Three relays, and two nodes that cannot do without.
fn relayed() -> Network {
    let lab = RELAYS
        .iter()
        .fold(Lab::new(), |lab, relay| lab.public(relay))
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let net = Network::start(lab, ["r1", "r2", "r3", "a", "b"]);
    net.wait("relay", ["a", "b"], SETTLED);
    net
}

/// The relays through which a node says that it is reached.
fn reservations(node: &Node) -> BTreeSet<String> {
    let status = node.status();
    let addresses = status["node"]["listen"].as_array().expect("a list");
    let circuits = addresses.iter().filter_map(|address| {
        let (relay, _) = address.as_str()?.split_once("/p2p-circuit")?;
        Some(relay.rsplit('/').next()?.to_owned())
    });
    circuits.collect()
}

/// Waits until both ends are reached through at least two relays each.
fn have_two_reservations(net: &Network) {
    for name in ["a", "b"] {
        let what = format!("{name} has two reservations");
        until(SETTLED, &what, || reservations(net.node(name)).len() >= 2);
    }
}

/// The relay that carries what a sends to b.
fn relay_in_use(net: &Network) -> &'static str {
    let used = eventually(SETTLED, "a names its relay to b", || {
        let shown = net.node("a").peer("b")?;
        shown["relay"].as_str().map(str::to_owned)
    });
    let found = RELAYS.into_iter().find(|relay| *relay == used);
    found.unwrap_or_else(|| panic!("{used} is none of {RELAYS:?}"))
}

#[test]
fn a_transfer_survives_its_relay_and_the_next() {
    let mut net = relayed();
    have_two_reservations(&net);
    for bytes in [60_000_000, 60_000_000] {
        let used = relay_in_use(&net);
        let relay = net.take(used);
        let (a, b) = (net.node("a"), net.node("b"));
        let began = Instant::now();
        transfer_while(
            a.host(),
            b.host(),
            b.ipv4().into(),
            bytes,
            REST,
            move || relay.kill9(),
        );
        println!("without {used}: {:?}", began.elapsed());
        assert_ne!(relay_in_use(&net), used);
    }
}

#[test]
fn traffic_goes_on_and_the_reservation_is_replaced_when_a_relay_dies() {
    let mut net = relayed();
    have_two_reservations(&net);
    let used = relay_in_use(&net);
    let relay = net.take(used);
    let id = relay.node_field("peer_id");
    let (a, b) = (net.node("a"), net.node("b"));
    let watch = |from: &Node, to: &Node| Watch::of_echoes(from.host(), to.host(), to.ipv4().into());
    let watches = [watch(a, b), watch(b, a)];
    rests_at_most(REST, &watches.each_ref(), "the relay's death", || {
        relay.kill9();
    });
    for node in [a, b] {
        let what = format!(
            "{} has two reservations and none with {used}",
            node.host().name()
        );
        until(Duration::from_secs(30), &what, || {
            let held = reservations(node);
            held.len() >= 2 && !held.contains(&id)
        });
    }
}
