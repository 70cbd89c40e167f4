//! A network that nothing spares. Nodes are killed, relays too, addresses flap, routers restart, firewalls change
//! their mind, machines sleep; whenever there is quiet, everybody reaches everybody again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::deadline::{Limit, passes};
use crate::lab::{Host, Lab, Nat};
use crate::node::{Network, Node};
use crate::traffic::mesh;

/// How long it lasts, in minutes.
const MINUTES: &str = "HIVEVPN_SOAK_MINUTES";
/// What to repeat: the number that an earlier run has printed.
const SEED: &str = "HIVEVPN_SOAK_SEED";

/// How long troubles last until there is quiet.
const STORM: Duration = Duration::from_secs(20);
/// Within this time of quiet all pairs are reachable.
const SETTLED: Duration = Duration::from_secs(30);
/// Rounds after which a node's memory has seen everything once.
const WARM_UP: usize = 4;

const RELAYS: [&str; 2] = ["r", "s"];
const OTHERS: [(&str, Nat); 6] = [
    ("a", Nat::PortRestricted),
    ("b", Nat::Remapping),
    ("c", Nat::Symmetric),
    ("d", Nat::Symmetric),
    ("e", Nat::FullCone),
    ("f", Nat::NoUdp),
];
/// They are not killed, so that their memory can be watched.
const STEADY: [&str; 2] = ["a", "c"];

/// What can happen to a node, or to the router in front of it.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Killed,
    Asleep,
    Unplugged,
    OtherAddress,
    RouterWithoutUdp,
    RouterRestarted,
}

const TROUBLES: [Trouble; 6] = [
    Trouble::Killed,
    Trouble::Asleep,
    Trouble::Unplugged,
    Trouble::OtherAddress,
    Trouble::RouterWithoutUdp,
    Trouble::RouterRestarted,
];

/// The network, and what is wrong with it.
struct World {
    net: Network,
    names: Vec<&'static str>,
    homes: BTreeMap<&'static str, IpAddr>,
    dead: BTreeSet<&'static str>,
}

impl World {
    fn new() -> Self {
        let lab = RELAYS.iter().fold(Lab::new(), |lab, name| lab.public(name));
        let lab = OTHERS
            .iter()
            .fold(lab, |lab, (name, nat)| lab.behind(*nat, name))
            .build();
        let others = OTHERS.iter().map(|(name, _)| *name);
        let names: Vec<_> = RELAYS.into_iter().chain(others).collect();
        let homes = names
            .iter()
            .map(|name| (*name, lab.host(name).address()))
            .collect();
        Self {
            net: Network::configured(lab, &names, |_| String::new()),
            names,
            homes,
            dead: BTreeSet::new(),
        }
    }

    fn happens(&mut self, trouble: Trouble, name: &'static str) {
        let (lab, is_dead) = (self.net.lab(), self.dead.contains(name));
        let has_router = !RELAYS.contains(&name);
        match trouble {
            Trouble::Killed if !is_dead && !STEADY.contains(&name) => {
                self.net.take(name).kill9();
                self.dead.insert(name);
            }
            Trouble::Asleep if !is_dead => self.net.node(name).freeze(),
            Trouble::Unplugged => lab.host(name).cable().set_carrier(false),
            Trouble::OtherAddress => {
                moves(
                    lab.host(name),
                    with_last(self.homes[name], |last| last + 50),
                );
            }
            Trouble::RouterWithoutUdp if has_router => lab.router(name).block_udp(true),
            Trouble::RouterRestarted if has_router => lab.router(name).flush_conntrack(),
            Trouble::Killed
            | Trouble::Asleep
            | Trouble::RouterWithoutUdp
            | Trouble::RouterRestarted => {} // not to this one
        }
    }

    /// Everything is as it was; those that died start again.
    fn calm(&mut self) {
        let lab = self.net.lab();
        for (name, home) in &self.homes {
            moves(lab.host(name), *home);
            lab.host(name).cable().set_carrier(true);
            if !RELAYS.contains(name) {
                lab.router(name).block_udp(false);
            }
        }
        for name in self.names.iter().filter(|name| !self.dead.contains(*name)) {
            self.net.node(name).thaw();
        }
        for name in std::mem::take(&mut self.dead) {
            let node = self.net.lab().host(name).up(&[]);
            self.net.put(node);
        }
    }

    /// Asserts that everybody reaches everybody in time, and that nobody has fallen.
    fn settles(&self) {
        let (began, limit) = (Instant::now(), Limit::new(SETTLED));
        let nodes: Vec<_> = self
            .nodes()
            .map(|node| (node.host().clone(), node.ipv4()))
            .collect();
        let answers = mesh(&nodes, limit);
        let pairs = self
            .names
            .iter()
            .flat_map(|a| self.names.iter().map(move |b| (*a, *b)));
        let silent: Vec<_> = pairs
            .filter(|pair| pair.0 != pair.1 && !answers.contains_key(pair))
            .collect();
        assert!(
            silent.is_empty(),
            "after {:?} of quiet the second has not answered the first: {silent:?}\n{}",
            limit.granted(),
            self.nodes()
                .map(|node| format!("{:#}\n", node.status()))
                .collect::<String>()
        );
        for node in self.nodes() {
            node.has_not_panicked();
        }
        println!("all reach all after {:?}", began.elapsed());
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.names.iter().map(|name| self.net.node(name))
    }
}

/// Gives a host this address. All networks here have 24 bits and their gateway at 1.
fn moves(host: &Host, address: IpAddr) {
    if host.address() != address {
        let gateway = with_last(address, |_| 1);
        host.set_address(&format!("{address}/24"), Some(&gateway.to_string()));
    }
}

/// An address in the same network.
fn with_last(address: IpAddr, change: impl FnOnce(u8) -> u8) -> IpAddr {
    let IpAddr::V4(address) = address else {
        panic!("the underlay is IPv4")
    };
    let [a, b, c, last] = address.octets();
    IpAddr::from([a, b, c, change(last)])
}

/// Asserts that no memory grows for ever: the most that a node took in the second half is what it took in the first.
fn is_flat(name: &str, memory: &[u64]) {
    let measured = memory.get(WARM_UP..).unwrap_or_default();
    let (first, second) = measured.split_at(measured.len() / 2);
    let (Some(before), Some(after)) = (first.iter().max(), second.iter().max()) else {
        println!("{name}: too few rounds to say whether its memory grows: {memory:?} KiB");
        return;
    };
    println!("{name}: {before} KiB, then {after} KiB");
    assert!(
        *after <= before + before / 10 + 1024,
        "the memory of {name} grows: {memory:?} KiB"
    );
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|error| panic!("{variable}={value}: {error}")),
    )
}

#[test]
#[ignore = "takes half an hour: HIVEVPN_SOAK_MINUTES=30 cargo test --test e2e -- --ignored --nocapture soak"]
fn everybody_reaches_everybody_after_every_storm() {
    let lasts = Duration::from_secs(60 * number(MINUTES).unwrap_or(30));
    let seed = number(SEED).unwrap_or_else(rand::random);
    println!("{SEED}={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new();
    world.settles();

    let began = Instant::now();
    let mut memory: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    while began.elapsed() < lasts {
        let storm = Instant::now();
        while storm.elapsed() < STORM {
            let name = *world.names.choose(&mut random).expect("there are some");
            let trouble = *TROUBLES.choose(&mut random).expect("there are some");
            println!("{:?} {name}: {trouble:?}", began.elapsed());
            world.happens(trouble, name);
            passes(Duration::from_millis(random.random_range(100..4000)));
        }
        world.calm();
        world.settles();
        for name in STEADY {
            let taken = world.net.node(name).memory();
            memory.entry(name).or_default().push(taken);
        }
    }
    for (name, memory) in &memory {
        is_flat(name, memory);
    }
}
