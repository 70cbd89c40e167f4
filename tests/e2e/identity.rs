//! Addresses belong to keys. They stay with a node wherever it moves, and nobody else can use them.

use std::time::Duration;

use crate::deadline::until;
use crate::lab::Lab;
use crate::node::{Network, Node};

pub mod impostor;

use impostor::Impostor;

/// What must not change.
fn identity(node: &Node) -> [String; 3] {
    ["peer_id", "ipv4", "ipv6"].map(|field| node.node_field(field))
}

#[test]
fn nodes_keep_their_addresses_when_both_restart_on_other_ports() {
    let mut net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", Duration::from_secs(10));
    let before = ["a", "b"].map(|name| identity(net.node(name)));
    for name in ["a", "b"] {
        net.take(name).interrupt();
    }
    for (name, port) in [("a", 8801), ("b", 8802)] {
        let host = net.lab().host(name).clone();
        net.put(host.up(&[host.configure(&format!("[underlay]\nport = {port}\n"))]));
        let listening = net.node(name).status()["node"]["listen"].to_string();
        assert!(listening.contains(&port.to_string()), "{listening}");
    }
    assert_eq!(["a", "b"].map(|name| identity(net.node(name))), before);
}

#[test]
fn a_node_that_restarts_on_another_port_is_found_again() {
    let mut net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", Duration::from_secs(10));
    net.take("b").interrupt();
    let host = net.lab().host("b").clone();
    net.put(host.up(&[host.configure("[underlay]\nport = 8802\n")]));
    net.wait_ping("a", "b", Duration::from_secs(10));
    net.wait_ping("b", "a", Duration::from_secs(10));
}

#[test]
fn an_asked_for_address_is_given() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&["--address", "10.77.0.4"]);
    assert_eq!(a.ipv4().to_string(), "10.77.0.4");
    let toml = lab
        .host("b")
        .configure("[node]\naddress = \"10.77.0.5\"\nname = \"gpu\"\n");
    let b = lab.host("b").up(&[toml, "--join", &a.invite()]);
    assert_eq!(b.ipv4().to_string(), "10.77.0.5");
    a.wait("online", "gpu", Duration::from_secs(10));
    assert!(a.host().pings(b.ipv4()));
}

#[test]
fn an_address_that_is_taken_is_not_given_again() {
    let lab = Lab::new().public("a").public("b").build();
    let a = lab.host("a").up(&["--address", "10.77.0.4"]);
    let outcome = lab
        .host("b")
        .hivevpn(&["up", "--join", &a.invite(), "--address", "10.77.0.4"]);
    let why = outcome.failed_with(crate::node::exit::FAILED);
    assert!(why.contains("address is another member's"), "{why}");
}

/// A node does not even try: its own core drops what a local program sends under another address.
#[test]
fn a_program_cannot_send_under_an_address_that_is_not_its_nodes() {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait_ping("a", "b", Duration::from_secs(10));
    let (a, b) = (net.node("a"), net.node("b"));
    let dropped = || a.status()["drops"]["foreign_source"].as_u64().unwrap_or(0);
    let before = dropped();
    a.host().sh("ip addr add 10.77.200.200/32 dev hive0").ok();
    let sent = a.host().sh(&format!(
        "ping -n -c3 -i0.2 -W1 -I 10.77.200.200 {}",
        b.ipv4()
    ));
    assert!(!sent.succeeded(), "{sent}");
    until(Duration::from_secs(5), "a counts the packets", || {
        dropped() >= before + 3
    });
}

/// A hostile member: C leaves its node and speaks WireGuard to B with its own, valid keys, but sends
/// packets that claim to come from A. B must open them (they are authentic), see that their source is
/// not C's, drop and count them; A must not hear an answer.
#[test]
fn a_member_cannot_send_under_the_address_of_another() {
    let names = ["a", "b", "c"];
    let mut net = Network::start(
        Lab::new().public("a").public("b").public("c").build(),
        names,
    );
    net.wait_ping("c", "b", Duration::from_secs(10));
    net.wait_ping("a", "b", Duration::from_secs(10));
    let own = net.node("c").addresses();
    net.take("c").kill9();
    let (a, b) = (net.node("a"), net.node("b"));
    let dropped = || b.status()["drops"]["forged_source"].as_u64().unwrap_or(0);
    let before = dropped();

    let mut impostor = Impostor::connect(net.lab().host("c"), b.host());
    assert!(
        impostor.ping(own[0], b.ipv4().into()),
        "under its own address C is answered"
    );
    assert_eq!(dropped(), before);

    let heard = a.host().capture(impostor::MARKER);
    for (theirs, target) in a.addresses().into_iter().zip(b.addresses()) {
        assert!(
            !impostor.ping(theirs, target),
            "an answer to {theirs} came to C"
        );
    }
    until(
        Duration::from_secs(5),
        "b counts the forged packets",
        || dropped() >= before + 2,
    );
    assert_eq!(
        heard.stop().matching,
        0,
        "an answer went to the owner of the address"
    );
    assert!(a.host().pings(b.ipv4()), "the owner still uses its address");
}
