//! Who reserves with relays, and with whom.

use std::time::Duration;

use crate::deadline::until;
use crate::lab::{Host, Lab, Nat};
use crate::node::Network;

const SOON: Duration = Duration::from_secs(15);

/// From now on `host` sends nothing to `other`.
fn shuns(host: &Host, other: &Host) {
    let line = format!("ip route add blackhole {}", other.address());
    host.sh(&line).ok();
}

/// Whether a node says that it is reached through a relay.
fn has_reservation(network: &Network, name: &str) -> bool {
    let status = network.node(name).status();
    let listen = status["node"]["listen"].as_array().unwrap();
    listen
        .iter()
        .any(|address| address.as_str().unwrap().contains("/p2p-circuit"))
}

#[test]
fn a_relay_on_a_lan_that_leads_nowhere_needs_no_external_address() {
    let lab = Lab::new().isolated("r").isolated("a").isolated("b").build();
    shuns(lab.host("a"), lab.host("b"));
    shuns(lab.host("b"), lab.host("a"));
    let network = Network::configured(lab, &["r", "a", "b"], |name| {
        format!("[underlay]\nrelay = {}\n", name == "r")
    });
    network.wait("relay", ["a", "b"], SOON);
    assert!(network.node("a").host().pings(network.node("b").ipv4()));
}

/// Their addresses look public, and a firewall stands before each.
#[test]
fn nodes_that_only_believe_to_be_public_are_reached_through_a_relay() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::Firewall, "a")
        .behind(Nat::Firewall, "b")
        .build();
    let network = Network::configured(lab, &["r", "a", "b"], |name| {
        format!("[underlay]\nrelay = {}\n", name == "r")
    });
    network.wait("online", ["a", "b"], SOON);
    until(SOON, "both are reached through the relay", || {
        has_reservation(&network, "a") && has_reservation(&network, "b")
    });
    assert!(network.node("a").host().pings(network.node("b").ipv4()));
}

#[test]
fn a_relay_serves_whom_its_owner_names() {
    let lab = Lab::new()
        .public("r")
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let network = Network::configured(lab, &["r", "a", "b"], |name| match name {
        "r" => "[underlay]\nrelay_members = [\"a\"]\n".to_owned(),
        _ => String::new(),
    });
    until(SOON, "the guest is reached through the relay", || {
        has_reservation(&network, "a")
    });
    // Who is no guest may still call one.
    network.wait("relay", ["a", "b"], SOON);
    assert!(!has_reservation(&network, "b"));
}
