//! Members that know only one member find all others, and need that one no longer; they see who is there, and
//! what each is called.

use std::time::Duration;

use crate::deadline::until;
use crate::lab::{Lab, Nat};
use crate::node::{Network, Node};

/// B and C sit on subnets of their own, so that no multicast can introduce them.
#[test]
fn two_nodes_that_know_only_a_third_find_each_other_and_stay_together_without_it() {
    let lab = Lab::new()
        .public("a")
        .behind(Nat::Open, "b")
        .behind(Nat::Open, "c")
        .build();
    let mut net = Network::start(lab, ["a", "b", "c"]);
    net.wait_ping("b", "c", Duration::from_secs(10));
    net.wait_ping("c", "b", Duration::from_secs(10));

    net.take("a").interrupt();
    assert!(
        net.node("b").host().pings(net.node("c").ipv4()),
        "without a the tunnel stays"
    );

    net.take("b").interrupt();
    let b = net.lab().host("b").up(&[]);
    net.put(b);
    net.wait_ping("b", "c", Duration::from_secs(10));
    net.wait_ping("c", "b", Duration::from_secs(10));
}

/// Whether a node sees another of this name, and sees it online.
fn sees(node: &Node, peer: &str) -> bool {
    node.peer(peer).is_some_and(|peer| peer["online"] == true)
}

#[test]
fn everybody_sees_who_comes_who_goes_and_who_changes_its_name() {
    let names = ["r", "s", "a", "b", "c", "d"];
    let lab = Lab::new()
        .public("r")
        .public("s")
        .behind(Nat::PortRestricted, "a")
        .behind(Nat::PortRestricted, "b")
        .behind(Nat::Symmetric, "c")
        .behind(Nat::Firewall, "d")
        .build();
    let mut net = Network::configured(lab, &names, |_| String::new());
    for observer in names.map(|name| net.node(name)) {
        for peer in names.iter().filter(|name| **name != observer.host().name()) {
            observer.wait("online", peer, Duration::from_secs(10));
        }
    }

    net.take("b").kill9();
    let others = names.into_iter().filter(|name| *name != "b");
    until(Duration::from_secs(30), "b is shown offline", || {
        others.clone().all(|name| !sees(net.node(name), "b"))
    });

    let host = net.lab().host("b");
    let renamed = host.up(&[host.configure("[node]\nname = \"bernd\"\n")]);
    until(Duration::from_secs(10), "b is shown as bernd", || {
        others.clone().all(|name| sees(net.node(name), "bernd"))
    });
    for observer in others.map(|name| net.node(name)) {
        assert!(observer.peer("b").is_none(), "{:#}", observer.status());
    }
    renamed.interrupt();
}
