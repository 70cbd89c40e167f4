//! `hivevpn netcheck`: what it finds out about the laboratory's routers is what they do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deadline::eventually;
use crate::lab::{Lab, Nat};
use crate::node::{Network, Node, exit};

/// How long the members may take to connect and to tell what they see.
const MEETING: Duration = Duration::from_secs(30);

/// A node behind each kind of router: its name, mapping, whether its port is kept, filtering.
const ROUTERS: [(&str, Nat, &str, bool, &str); 7] = [
    ("open", Nat::Open, "none", true, "port-independent"),
    (
        "fire",
        Nat::Firewall,
        "none",
        true,
        "address-and-port-dependent",
    ),
    (
        "cone",
        Nat::FullCone,
        "endpoint-independent",
        true,
        "port-independent",
    ),
    (
        "address",
        Nat::AddressRestricted,
        "endpoint-independent",
        true,
        "port-independent",
    ),
    (
        "home",
        Nat::PortRestricted,
        "endpoint-independent",
        true,
        "address-and-port-dependent",
    ),
    (
        "remap",
        Nat::Remapping,
        "endpoint-independent",
        false,
        "address-and-port-dependent",
    ),
    (
        "sym",
        Nat::Symmetric,
        "address-or-port-dependent",
        false,
        "address-and-port-dependent",
    ),
];

/// The report, once both public members tell what they see.
fn netcheck(node: &Node) -> Value {
    eventually(MEETING, "both public members see the node", || {
        let report = node.json(&["netcheck", "--json"]);
        let seen_as = report["ipv4"]["seen_as"].as_array()?;
        let by = |name: &str| {
            let mut all = seen_as
                .iter()
                .flat_map(|seen| seen["by"].as_array().unwrap());
            all.any(|by| by == name)
        };
        (by("r") && by("s")).then_some(report)
    })
}

fn peer<'a>(report: &'a Value, name: &str) -> &'a Value {
    let mut peers = report["peers"].as_array().unwrap().iter();
    peers.find(|peer| peer["name"] == name).unwrap()
}

#[test]
fn mapping_and_filtering_are_what_the_router_does() {
    let begin = Lab::new().public("r").public("s");
    let lab = ROUTERS
        .iter()
        .fold(begin, |lab, (name, nat, ..)| lab.behind(*nat, name))
        .build();
    let names: Vec<_> = ["r", "s"]
        .into_iter()
        .chain(ROUTERS.map(|(name, ..)| name))
        .collect();
    let net = Network::configured(lab, &names, |_| String::new());
    for (name, _, mapping, port_preserved, filtering) in ROUTERS {
        let node = net.node(name);
        for public in ["r", "s"] {
            node.wait("direct", public, MEETING);
        }
        let report = netcheck(node);
        let ipv4 = &report["ipv4"];
        let found = json!([ipv4["mapping"], ipv4["port_preserved"], ipv4["filtering"]]);
        let expected = json!([mapping, port_preserved, filtering]);
        assert_eq!(found, expected, "{name}: {report:#}");
        assert_eq!(report["udp"]["works"], true, "{report:#}");
        assert_eq!(ipv4["addresses"], json!([node.host().address()]));
        assert!(report["ipv6"].is_null() && report["port_mapping"].is_null());
        for public in ["r", "s"] {
            assert_eq!(peer(&report, public)["predicted"], "direct");
        }
    }
    let relays = &netcheck(net.node("home"))["relays"];
    let reserved = relays.as_array().unwrap().iter();
    let reserved = reserved.filter(|relay| relay["reserved"] == true && relay["rtt_ms"].is_f64());
    assert!(reserved.count() >= 1, "{relays:#}");

    // For people.
    let shown = net.node("sym").ask(&["netcheck"]);
    for words in [
        "works: ",
        "seen as",
        "symmetric NAT",
        "only who was spoken to",
        "EXPECTED",
    ] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

#[test]
fn two_symmetric_routers_are_expected_to_need_a_relay() {
    let lab = Lab::new()
        .public("r")
        .public("s")
        .behind(Nat::Symmetric, "a")
        .behind(Nat::Symmetric, "b")
        .build();
    let net = Network::start(lab, ["r", "s", "a", "b"]);
    net.wait("relay", ["a", "b"], MEETING);
    let report = netcheck(net.node("a"));
    assert_eq!(peer(&report, "b")["predicted"], "relay", "{report:#}");
}

#[test]
fn without_udp_nothing_is_seen_and_streams_are_expected() {
    let lab = Lab::new().public("r").behind(Nat::NoUdp, "a").build();
    let net = Network::start(lab, ["r", "a"]);
    net.wait("stream", ["a", "r"], MEETING);
    let report = net.node("a").json(&["netcheck", "--json"]);
    assert_eq!(report["udp"]["works"], false, "{report:#}");
    assert_eq!(report["ipv4"]["mapping"], "unknown");
    assert_eq!(report["ipv4"]["filtering"], "unknown");
    assert_eq!(peer(&report, "r")["predicted"], "stream");
}

#[test]
fn on_an_ipv6_underlay_a_firewall_is_told_from_an_open_router() {
    let lab = Lab::new()
        .ipv6_only()
        .public("r")
        .public("s")
        .behind(Nat::Firewall, "a")
        .behind(Nat::Open, "b")
        .build();
    let net = Network::start(lab, ["r", "s", "a", "b"]);
    for (name, filtering) in [
        ("a", "address-and-port-dependent"),
        ("b", "port-independent"),
    ] {
        let node = net.node(name);
        node.wait("direct", "r", MEETING);
        let report = eventually(MEETING, "a member sees the node over IPv6", || {
            let report = node.json(&["netcheck", "--json"]);
            let seen_as = report["ipv6"]["seen_as"].as_array()?;
            (!seen_as.is_empty()).then_some(report)
        });
        let ipv6 = &report["ipv6"];
        assert_eq!(ipv6["mapping"], "none", "{report:#}");
        assert_eq!(ipv6["filtering"], filtering, "{report:#}");
    }
}

#[test]
fn it_needs_a_daemon() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    host.hivevpn(&["netcheck"]).failed_with(exit::NO_DAEMON);
    let node = host.up(&[]);
    let report = node.json(&["netcheck", "--json"]);
    assert!(report["udp"]["works"].is_null(), "{report:#}");
    assert_eq!(report["peers"], json!([]));
}
