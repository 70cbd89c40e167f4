//! Every kind of router with every other: within 15 s of start both ends reach each other, and directly wherever that is
//! possible at all. (The machine may take longer: [`Limit`].)
//!
//! All pairs are in one network, so that a full mesh of nodes is every cell of the matrix at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::deadline::Limit;
use crate::lab::{Lab, Nat};
use crate::node::Network;
use crate::traffic::mesh;

/// Within this time of the last start.
const SETTLED: Duration = Duration::from_secs(15);

/// The one public node, which founds the network and relays.
const RELAY: &str = "r";

/// Two behind each kind of router, for the pairs of a kind with itself.
const MATRIX: [(&str, Nat); 14] = [
    ("open1", Nat::Open),
    ("open2", Nat::Open),
    ("firewall1", Nat::Firewall),
    ("firewall2", Nat::Firewall),
    ("fullcone1", Nat::FullCone),
    ("fullcone2", Nat::FullCone),
    ("address1", Nat::AddressRestricted),
    ("address2", Nat::AddressRestricted),
    ("port1", Nat::PortRestricted),
    ("port2", Nat::PortRestricted),
    ("remapping1", Nat::Remapping),
    ("remapping2", Nat::Remapping),
    ("symmetric1", Nat::Symmetric),
    ("symmetric2", Nat::Symmetric),
];

/// What theory says of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Theory {
    /// UDP can pass between them.
    Direct,
    /// Only luck would open a direct path.
    Any,
    /// UDP cannot pass.
    NotDirect,
}

/// A symmetric router shows the peer a port that the peer has not heard of; that matters where ports are compared.
fn theory(a: Nat, b: Nat) -> Theory {
    let is_symmetric = |nat| nat == Nat::Symmetric;
    if carries_udp(a) && carries_udp(b) {
        if (is_symmetric(a) && compares_ports(b)) || (is_symmetric(b) && compares_ports(a)) {
            Theory::Any
        } else {
            Theory::Direct
        }
    } else {
        Theory::NotDirect
    }
}

fn carries_udp(nat: Nat) -> bool {
    match nat {
        Nat::NoUdp | Nat::WebOnly => false,
        Nat::PortRestricted
        | Nat::Symmetric
        | Nat::Remapping
        | Nat::FullCone
        | Nat::AddressRestricted
        | Nat::Firewall
        | Nat::Open => true,
    }
}

/// Whether only answers of the very port that was asked get in.
fn compares_ports(nat: Nat) -> bool {
    match nat {
        Nat::PortRestricted | Nat::Symmetric | Nat::Remapping | Nat::Firewall => true,
        Nat::NoUdp | Nat::WebOnly => true,
        Nat::FullCone | Nat::AddressRestricted | Nat::Open => false,
    }
}

/// Starts a node behind each router, and asserts that they settle in time.
fn settles(places: &[(&'static str, Nat)], relay_port: u16) {
    let lab = places
        .iter()
        .fold(Lab::new().public(RELAY), |lab, (name, nat)| {
            lab.behind(*nat, name)
        })
        .build();
    let names: Vec<&str> = places.iter().map(|(name, _)| *name).collect();
    let net = Network::configured(lab, &[&[RELAY], &names[..]].concat(), |name| {
        let port = if name == RELAY { relay_port } else { 7777 };
        format!("[underlay]\nport = {port}\n")
    });
    let (began, limit) = (Instant::now(), Limit::new(SETTLED));

    let nodes: Vec<_> = names
        .iter()
        .map(|name| (net.node(name).host().clone(), net.node(name).ipv4()))
        .collect();
    let answers = mesh(&nodes, limit);
    let mut shown = Paths::of(&net, &names);
    while !shown.wrong(places).is_empty() && !limit.is_over() {
        shown = Paths::of(&net, &names);
    }
    println!(
        "settled after {:?}\n{}",
        began.elapsed(),
        shown.table(places)
    );
    let silent: Vec<_> = places
        .iter()
        .flat_map(|(a, _)| places.iter().map(move |(b, _)| (*a, *b)))
        .filter(|pair| pair.0 != pair.1 && !answers.contains_key(pair))
        .collect();
    assert!(
        silent.is_empty(),
        "after {:?} the second has not answered the first: {silent:?}\n{}",
        limit.granted(),
        shown.table(places)
    );
    let wrong = shown.wrong(places);
    assert!(
        wrong.is_empty(),
        "after {:?}, not as theory has it: {wrong:#?}\n{}",
        began.elapsed(),
        shown.table(places)
    );
}

/// Whose path to whom is of which kind.
struct Paths(BTreeMap<(&'static str, String), String>);

impl Paths {
    fn of(net: &Network, names: &[&'static str]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let paths = names.iter().flat_map(|name| {
            let status = net.node(name).status();
            let peers = status["peers"].as_array().cloned().unwrap_or_default();
            peers
                .into_iter()
                .map(move |peer| ((*name, text(&peer["name"])), text(&peer["path"])))
        });
        Self(paths.collect())
    }

    fn between(&self, a: &'static str, b: &str) -> &str {
        self.0
            .get(&(a, b.to_owned()))
            .map_or("unknown", String::as_str)
    }

    /// What theory contradicts.
    fn wrong(&self, places: &[(&'static str, Nat)]) -> Vec<String> {
        let pairs = places
            .iter()
            .flat_map(|a| places.iter().map(move |b| (*a, *b)))
            .filter(|((a, _), (b, _))| a != b);
        let wrong = pairs.filter_map(|((a, nat_a), (b, nat_b))| {
            let (path, theory) = (self.between(a, b), theory(nat_a, nat_b));
            let is_right = match theory {
                Theory::Direct => path == "direct",
                Theory::Any => matches!(path, "direct" | "stream" | "relay"),
                Theory::NotDirect => matches!(path, "stream" | "relay"),
            };
            (!is_right).then(|| format!("{a} to {b}: {path} instead of {theory:?}"))
        });
        wrong.collect()
    }

    /// A line for each, a column for each peer.
    fn table(&self, places: &[(&'static str, Nat)]) -> String {
        let mut text = format!("{:12}", "");
        for (name, _) in places {
            text += &format!("{name:>11}");
        }
        for (a, _) in places {
            text += &format!("\n{a:12}");
            for (b, _) in places {
                let path = if a == b { "" } else { self.between(a, b) };
                text += &format!("{path:>11}");
            }
        }
        text
    }
}

/// What worked once may have been luck.
const ROUNDS: u32 = 2;

#[test]
fn every_kind_of_router_finds_a_way_to_every_other() {
    for _ in 0..ROUNDS {
        settles(&MATRIX, 7777);
    }
}

/// The relay is where such routers let everybody go.
#[test]
fn routers_without_udp_and_those_for_the_web_alone_find_a_way_to_all() {
    let without_udp = [
        ("noudp1", Nat::NoUdp),
        ("noudp2", Nat::NoUdp),
        ("web1", Nat::WebOnly),
        ("web2", Nat::WebOnly),
    ];
    let one_of_each = MATRIX.iter().step_by(2).copied();
    let places: Vec<_> = without_udp.into_iter().chain(one_of_each).collect();
    for _ in 0..ROUNDS {
        settles(&places, 443);
    }
}
