//! Any public member relays, and no relay is the only one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab, Nat};
use crate::node::{Network, Node};
use crate::traffic::{Watch, rests_at_most, transfer_while};

/// As long as traffic may rest when its relay dies.
const REST: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(15);
/// A connection notices that the other end vanished: over QUIC within half a minute, over TCP within one and a half.
const REPLACED: Duration = Duration::from_secs(120);

/// Two lives of a reservation that lasts for a minute.
const LIVES: Duration = Duration::from_secs(120);

/// What is sent while a relay dies.
const BULK: usize = 60_000_000;

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

/// The relay that carries what `node` sends to `peer` at this moment.
fn relay_in_use(node: &Host, peer: &str) -> &'static str {
    let used = eventually(SETTLED, "the relay in use has a name", || {
        let status: Value = serde_json::from_str(&node.hivevpn(&["status", "--json"]).ok()).ok()?;
        let shown = status["peers"]
            .as_array()?
            .iter()
            .find(|shown| shown["name"] == peer)?;
        shown["relay"].as_str().map(str::to_owned)
    });
    let found = RELAYS.into_iter().find(|relay| *relay == used);
    found.unwrap_or_else(|| panic!("{used} is none of {RELAYS:?}"))
}

#[test]
fn a_transfer_survives_its_relay_and_the_next() {
    let mut net = relayed();
    have_two_reservations(&net);
    let relays: BTreeMap<&str, Node> = RELAYS.map(|name| (name, net.take(name))).into();
    let relays = Arc::new(Mutex::new(relays));
    let (a, b) = (net.node("a").host(), net.node("b"));
    for _ in 0..2 {
        let (relays, sender) = (Arc::clone(&relays), a.clone());
        transfer_while(a, b.host(), b.ipv4().into(), BULK, REST, move || {
            let used = relay_in_use(&sender, "b");
            let relay = relays.lock().unwrap().remove(used);
            relay.expect("a dead relay carries nothing").kill9();
        });
    }
}

/// Nobody is told: the relay's cable is pulled.
#[test]
fn traffic_goes_on_and_the_reservation_is_replaced_when_a_relay_vanishes() {
    let net = relayed();
    have_two_reservations(&net);
    let (a, b) = (net.node("a"), net.node("b"));
    let watch = |from: &Node, to: &Node| Watch::of_echoes(from.host(), to.host(), to.ipv4().into());
    let watches = [watch(a, b), watch(b, a)];
    let ids = RELAYS.map(|name| (name, net.node(name).node_field("peer_id")));
    let mut lost = String::new();
    rests_at_most(REST, &watches.each_ref(), "the loss of the relay", || {
        let used = relay_in_use(a.host(), "b");
        net.node(used).host().cable().set_carrier(false);
        lost.clone_from(&BTreeMap::from(ids)[used]);
    });
    for node in [a, b] {
        let name = node.host().name();
        until(REPLACED, &format!("{name} has two other relays"), || {
            let held = reservations(node);
            held.len() >= 2 && !held.contains(&lost)
        });
    }
}

/// TCP alone would repeat what it has sent for a quarter of an hour.
#[test]
fn without_udp_too_it_is_noticed_that_a_relay_vanished() {
    let lab = RELAYS
        .into_iter()
        .fold(Lab::new(), |lab, relay| lab.public(relay))
        .behind(Nat::NoUdp, "a")
        .build();
    let net = Network::configured(lab, &["r1", "r2", "r3", "a"], |_| String::new());
    let a = net.node("a");
    until(SETTLED, "a has two relays", || reservations(a).len() >= 2);
    let held = reservations(a);
    let id = |name: &&str| net.node(name).node_field("peer_id");
    let lost = RELAYS.into_iter().find(|name| held.contains(&id(name)));
    let lost = lost.expect("they are the relays of this network");
    net.node(lost).host().cable().set_carrier(false);
    until(REPLACED, "a has two other relays", || {
        let held = reservations(a);
        held.len() >= 2 && !held.contains(&id(&lost))
    });
}

/// A relay's reservations last for a minute; after two, they still lead to who made them.
#[test]
fn a_reservation_is_renewed_before_it_ends() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let toml = |name: &str| match name {
        "r" => "[underlay]\nrelay_reservation = \"60s\"\n".to_owned(),
        _ => String::new(),
    };
    let mut net = Network::configured(lab, &["r", "a"], toml);
    let has_reservation = |net: &Network| !reservations(net.node("a")).is_empty();
    until(SETTLED, "a has a reservation", || has_reservation(&net));
    let since = Instant::now();
    until(LIVES * 2, "two lives pass", || since.elapsed() >= LIVES);
    assert!(has_reservation(&net));
    let b = net.lab().host("b").up(&["--join", &net.node("r").invite()]);
    net.put(b);
    net.wait("relay", ["a", "b"], SETTLED);
}
