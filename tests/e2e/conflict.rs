//! An address that two nodes were given while the network was in two halves.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::deadline::until;
use crate::lab::Lab;
use crate::node::{Network, Node};

const SOON: Duration = Duration::from_secs(15);
/// Nodes that lost each other look for each other every so often.
const LATER: Duration = Duration::from_secs(60);
const ADDRESS: &str = "10.77.5.5";
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const HALVES: [[&str; 2]; 2] = [["a", "c"], ["b", "d"]];

/// Cuts the two halves off each other, or joins them again.
fn partition(lab: &Lab, verb: &str) {
    let [one, other] = HALVES;
    for (here, there) in [(one, other), (other, one)] {
        for host in here {
            for away in there {
                let address = lab.host(away).address();
                let line = format!("ip route {verb} blackhole {address}/32");
                lab.host(host).sh(&line).ok();
            }
        }
    }
}

/// Who has the address, as a node sees it.
fn holder(seen_by: &Node) -> String {
    let whois = seen_by.json(&["whois", ADDRESS, "--json"]);
    whois["name"].as_str().unwrap().to_owned()
}

#[test]
fn an_address_given_twice_is_one_nodes_everywhere_and_ipv6_never_stops() {
    let mut lab = Lab::new();
    for name in NAMES {
        lab = lab.public(name);
    }
    let mut net = Network::start(lab.build(), ["a", "b"]);
    net.wait_ping("a", "b", SOON);
    let powers = ["--power", "admit", "--power", "invite"];
    net.node("a")
        .ask(&[&["delegate", "add", "b"], &powers[..]].concat());
    until(SOON, "b may invite", || {
        let delegates = net.node("b").json(&["delegate", "list", "--json"]);
        delegates.as_array().unwrap().len() == 2
    });

    partition(net.lab(), "add");
    for [host, guest] in HALVES {
        let invite = net.node(host).ask(&["invite", "--address", ADDRESS]);
        let node = net.lab().host(guest).up(&["--join", invite.trim()]);
        assert_eq!(node.ipv4().to_string(), ADDRESS);
        net.put(node);
        net.wait_ping(host, guest, SOON);
    }
    // Each half has its own holder, and nothing is wrong with either.
    assert_eq!(holder(net.node("a")), "c");
    assert_eq!(holder(net.node("b")), "d");
    let c = net.node("c").ipv6().to_string();
    let watch = ["ping", "-6", "-n", "-q", "-i", "0.2", "-w", "60", &c];
    let mut watch = net.lab().host("a").spawn(&watch);

    partition(net.lab(), "del");
    for name in NAMES {
        until(LATER, &format!("{name} knows both"), || {
            let nodes = net.node(name).json(&["nodes", "--json"]);
            nodes.as_array().unwrap().len() == NAMES.len()
        });
    }
    let decided = holder(net.node("a"));
    for name in NAMES {
        until(LATER, &format!("{name} agrees"), || {
            holder(net.node(name)) == decided
        });
    }
    let (keeps, yields) = if decided == "c" {
        ("c", "d")
    } else {
        ("d", "c")
    };
    assert_eq!(net.node(keeps).ipv4().to_string(), ADDRESS);
    until(SOON, "the other gives the address up", || {
        net.node(yields).status()["node"]["ipv4"] != ADDRESS
    });
    for [from, to] in [["c", "d"], ["d", "c"], ["a", "d"], ["b", "c"]] {
        let ipv6 = net.node(to).ipv6();
        until(LATER, &format!("{from} reaches {to} by IPv6"), || {
            net.lab().host(from).pings(ipv6)
        });
    }
    watch.signal(Signal::SIGINT);
    let counted = watch.ends(SOON).stdout;
    assert!(counted.contains(" 0% packet loss"), "{counted}");
}
