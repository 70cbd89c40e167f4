//! A member that keeps others' entries and is hostile. Its certificate is good, its answers are not: forged, stale,
//! oversize, from another place, late, or none. Whoever reads gets what the owner has written last, or nothing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use hivevpn_core::registry::sync::{Records, RegistryMessage};
use libp2p::PeerId;
use serde_json::Value;

mod lies;
mod protocols;
mod storer;
mod wire;

use lies::{Forger, Lie};
use storer::{Answer, NEVER, Order, Storer};

use crate::deadline::{eventually, until};
use crate::lab::Lab;
use crate::node::{Network, Node};

/// Far more than anything takes here, whatever else the machine does.
const SOON: Duration = Duration::from_secs(60);
/// The shortest lifetime that there is.
const MINUTE: Duration = Duration::from_secs(60);

/// What lies in wait.
const BERLIN: &str = "weather/berlin";
const PARIS: &str = "weather/paris";
const RUMOUR: &str = "rumour";
const SHOP: &str = "svc/shop";

/// Three honest members, who are `founder`, `writer` and `reader`, and the storer in the place of a fourth.
struct World {
    net: Network,
    storer: Storer,
    forger: Forger,
    writer: PeerId,
}

impl World {
    fn new() -> Self {
        const NAMES: [&str; 4] = ["founder", "writer", "reader", "storer"];
        let lab = NAMES.iter().fold(Lab::new(), |lab, name| lab.public(name));
        let mut net = Network::start(lab.build(), NAMES);
        for name in &NAMES[..3] {
            net.wait("online", [name, "storer"], SOON);
        }
        net.take("storer").interrupt();
        let storer = Storer::start(net.lab().host("storer"));
        let world = Self {
            forger: Forger::new(&storer.papers),
            writer: peer_id(net.node("writer")),
            net,
            storer,
        };
        for name in &NAMES[..3] {
            world.storer_serves(world.node(name));
        }
        world
    }

    fn node(&self, name: &str) -> &Node {
        self.net.node(name)
    }

    fn stop(&mut self, name: &str) {
        self.net.take(name).interrupt();
    }

    fn start(&mut self, name: &str) {
        let node = self.net.lab().host(name).up(&[]);
        self.net.put(node);
    }

    /// Waits until a node lets the storer in, and will ask it.
    fn storer_serves(&self, node: &Node) {
        let id = peer_id(node).to_string();
        let what = format!("{} lets the storer in", node.host().name());
        until(SOON, &what, || {
            let routes = node.json(&["dht", "routes", "--json"]).to_string();
            routes.contains(&self.storer.id()) && self.storer.heard().admitted_by.contains(&id)
        });
    }

    fn put(&self, key: &str, value: &str) {
        self.node("writer").ask(&["dht", "put", key, value]);
    }

    fn slot(&self, key: &str) -> [u8; 32] {
        self.forger.slot(&self.writer, key)
    }

    /// What the writer has put under a key, other than `before`, as it was left with the storer.
    fn left(&self, key: &str, before: &[u8]) -> Vec<u8> {
        let slot = self.slot(key);
        eventually(SOON, &format!("{key} is left with the storer"), || {
            let mut put = self.storer.heard().put.into_iter();
            let left = put.find(|(place, sealed, _)| *place == slot && sealed != before);
            left.map(|(_, sealed, _)| sealed)
        })
    }

    /// How often the storer was asked for a place.
    fn asked_for(&self, slot: [u8; 32]) -> usize {
        let heard = self.storer.heard().asked_for.into_iter();
        heard.filter(|asked| *asked == slot).count()
    }
}

fn peer_id(node: &Node) -> PeerId {
    node.node_field("peer_id").parse().unwrap()
}

fn rejections(node: &Node, rule: &str) -> u64 {
    node.status()["rejections"][rule].as_u64().unwrap_or(0)
}

fn values(entries: &Value) -> Vec<String> {
    let entries = entries.as_array().unwrap().iter();
    entries
        .map(|entry| entry["value"]["text"].as_str().unwrap().to_owned())
        .collect()
}

/// What the writer has under a key, as a node knows it, or finds it in the DHT if that is too old.
fn read(node: &Node, key: &str) -> Vec<String> {
    values(&node.json(&["dht", "get", key, "--owner", "writer", "--json"]))
}

/// The same, after looking into the DHT.
fn search(node: &Node, key: &str) -> Vec<String> {
    let line = [
        "dht",
        "get",
        key,
        "--owner",
        "writer",
        "--network",
        "--json",
    ];
    values(&node.json(&line))
}

fn is_nowhere(node: &Node, key: &str) {
    assert!(read(node, key).is_empty());
    let walked = node.ask(&["dht", "walk", "--json"]);
    assert!(!walked.contains(key), "{walked}");
}

fn announced<'a>(sealed: impl IntoIterator<Item = &'a [u8]>) -> Order {
    let (records, _) = Records::pick(sealed);
    let body = RegistryMessage::Announce(records).encode();
    Order::Say { body }
}

#[test]
#[ignore = "the others start it, as a process of its own"]
fn the_hostile_storer_itself() {
    storer::run();
}

#[test]
fn who_can_ask_nobody_but_a_hostile_storer_reads_the_truth_or_nothing() {
    let mut world = World::new();
    world.stop("reader");
    let began = Instant::now();
    let writer = world.node("writer");
    writer.ask(&["dht", "put", RUMOUR, "for a minute", "--lifetime", "60s"]);
    world.put(BERLIN, "sun");
    world.put(PARIS, "fog");
    let [rumour, sun, fog] = [RUMOUR, BERLIN, PARIS].map(|key| world.left(key, &[]));
    until(SOON, "the founder has all", || {
        let founder = world.node("founder");
        [RUMOUR, BERLIN, PARIS]
            .iter()
            .all(|key| !read(founder, key).is_empty())
    });
    world.stop("founder");
    world.stop("writer");
    world.start("reader");
    let reader = world.node("reader");
    world.storer_serves(reader);

    let [berlin, paris] = [BERLIN, PARIS].map(|key| world.slot(key));
    let mut lies = world.forger.lies(&world.writer, BERLIN, &sun);
    lies.push(world.forger.own_word(BERLIN));
    lies.push(Lie {
        what: "what belongs elsewhere",
        sealed: fog.clone(),
        rule: "wrong-slot",
    });
    // `known`: what the reader has of the truth.
    let fools_nobody = |known: &[&str]| {
        for Lie { what, sealed, rule } in &lies {
            let before = rejections(reader, rule);
            world.storer.serve(berlin, sealed);
            until(SOON, &format!("{what}: it is refused"), || {
                assert_eq!(search(reader, BERLIN), known, "{what}");
                rejections(reader, rule) > before
            });
        }
        let misplaced = Answer {
            place: Some(paris.to_vec()),
            ..Answer::of(&fog)
        };
        let too_long = Answer::of(&vec![1; 40 << 10]);
        for answer in [
            misplaced,
            too_long,
            Answer::of(&[]),
            Answer::of(b"no entry"),
        ] {
            let before = world.asked_for(berlin);
            world.storer.serve_so(berlin, answer);
            until(SOON, "the storer is asked", || {
                assert_eq!(search(reader, BERLIN), known);
                world.asked_for(berlin) > before
            });
        }
    };
    fools_nobody(&[]);
    is_nowhere(reader, BERLIN);

    // Who waits for an answer that does not come gets none, and the node has time for others.
    let never = Answer {
        after: NEVER,
        ..Answer::of(&fog)
    };
    world.storer.serve_so(paris, never);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| search(reader, PARIS));
        reader.ask(&["dht", "put", "meanwhile", "busy"]);
        assert!(reader.ask(&["dht", "get", "meanwhile"]).contains("busy"));
        assert!(waiting.join().unwrap().is_empty());
    });
    assert!(world.asked_for(paris) > 0);

    // An answer that comes when nobody waits any more is of use to the next one.
    let late = Answer {
        after: Duration::from_secs(6),
        ..Answer::of(&sun)
    };
    world.storer.serve_so(berlin, late);
    until(SOON, "what comes late is read", || {
        let found = search(reader, BERLIN);
        assert!(found.is_empty() || found == ["sun"], "{found:?}");
        found == ["sun"]
    });
    fools_nobody(&["sun"]);

    // Served when its time is over.
    crate::deadline::passes((began + MINUTE + Duration::from_secs(2)) - Instant::now());
    let slot = world.slot(RUMOUR);
    world.storer.serve(slot, &rumour);
    until(SOON, "the storer is asked for the rumour", || {
        assert!(search(reader, RUMOUR).is_empty());
        world.asked_for(slot) > 0
    });
    is_nowhere(reader, RUMOUR);

    // When somebody honest is back, all that is true is read, whatever the storer says.
    world.start("founder");
    let reader = world.node("reader");
    until(SOON, "the fog is seen", || read(reader, PARIS) == ["fog"]);
    assert_eq!(search(reader, BERLIN), ["sun"]);
    assert_eq!(search(reader, PARIS), ["fog"]);
    reader.has_not_panicked();
}

/// The port at which a node believes the writer's service to be.
fn shop(node: &Node) -> Option<u64> {
    let services = node.json(&["services", "--json"]);
    let mut services = services.as_array().unwrap().iter();
    let shop = services.find(|service| service["name"] == "shop")?;
    assert_eq!(shop["node"], "writer", "{shop:#}");
    shop["port"].as_u64()
}

/// Where its name leads.
fn shop_by_name(node: &Node) -> String {
    let question = format!(
        "dig +short +tries=1 +time=5 @{} _shop._tcp.writer.home.hive.internal SRV",
        node.ipv4()
    );
    node.host().sh(&question).ok()
}

fn is_named(node: &Node) -> bool {
    node.ask(&["names", "--json"]).contains("shop.writer")
}

#[test]
fn what_a_hostile_member_announces_pushes_and_promises_is_read_by_nobody() {
    let mut world = World::new();
    let honest = ["founder", "writer", "reader"];
    let writer = world.node("writer");
    let _shop = writer
        .host()
        .here(|| TcpListener::bind(("127.0.0.1", 8000)).unwrap());
    let expose = |port: &str| {
        writer.ask(&[
            "expose", "8000", "--as", "shop", "--kind", "tcp", "--port", port,
        ]);
    };
    world.put(BERLIN, "rain");
    world.put(RUMOUR, "it is true");
    expose("8001");
    let stale = [BERLIN, RUMOUR, SHOP].map(|key| (key, world.left(key, &[])));
    world.put(BERLIN, "sun");
    writer.ask(&["dht", "delete", RUMOUR]);
    expose("8002");
    let truth = [
        world.left(BERLIN, &stale[0].1),
        world.left(SHOP, &stale[2].1),
    ];

    let is_as_it_should_be = |node: &Node, weather: &str| {
        read(node, BERLIN) == [weather]
            && read(node, RUMOUR).is_empty()
            && shop(node) == Some(8002)
            && shop_by_name(node).ends_with(" 8002 writer.home.hive.internal.")
            && is_named(node)
    };
    for name in honest {
        until(SOON, &format!("{name} knows all that is new"), || {
            is_as_it_should_be(world.node(name), "sun")
        });
    }
    let is_refused = |what: &str, order: &Order, rule: &str| {
        let count = |name: &str| rejections(world.node(name), rule);
        let before = honest.map(count);
        for (name, before) in std::iter::zip(honest, before) {
            until(SOON, &format!("{name} refuses it: {what}"), || {
                // Said again: a connection may have been replaced meanwhile.
                world.storer.order(order);
                count(name) > before
            });
        }
        let reader = world.node("reader");
        assert!(is_as_it_should_be(reader, "sun"), "{what}");
    };

    let lies_about = |key, truth| world.forger.lies(&world.writer, key, truth);
    let mut lies = lies_about(SHOP, &truth[1]);
    lies.extend(lies_about(BERLIN, &truth[0]));
    for Lie { what, sealed, rule } in &lies {
        is_refused(what, &announced([&sealed[..]]), rule);
    }
    for (key, sealed) in &stale {
        is_refused(key, &announced([&sealed[..]]), "outdated");
        let put = Order::Put {
            slot: world.slot(key).to_vec(),
            value: sealed.clone(),
        };
        is_refused(key, &put, "outdated");
    }
    let mut about_berlin = lies_about(BERLIN, &truth[0]);
    about_berlin.push(world.forger.own_word(BERLIN));
    for lie in about_berlin {
        let put = Order::Put {
            slot: world.slot(BERLIN).to_vec(),
            value: lie.sealed,
        };
        is_refused(lie.what, &put, lie.rule);
    }

    let all_are_as_they_should_be = || {
        for name in honest {
            assert!(is_as_it_should_be(world.node(name), "sun"), "{name}");
        }
    };
    all_are_as_they_should_be();

    // It promises the newest of everything, and what it brings is all of the above; then nothing, ever.
    let everything = lies.iter().map(|lie| &lie.sealed);
    let everything = everything.chain(stale.iter().map(|(_, sealed)| sealed));
    let (records, _) = Records::pick(everything.map(Vec::as_slice));
    let keys = [BERLIN, RUMOUR, SHOP, PARIS];
    let (have, versions) = world.forger.promises(&world.writer, &keys);
    let answer = |records| Order::Answer {
        versions: versions.clone(),
        records,
    };
    let records = RegistryMessage::Records(records, keys.len() as u32).encode();
    world.storer.order(&answer(Some(records)));
    let say = |body| Order::Say { body };
    is_refused("promised", &say(have.clone()), "not-by-owner");
    let summary = RegistryMessage::Summary([7; 32]).encode();
    is_refused("compared", &say(summary.clone()), "not-by-owner");
    is_refused("rubbish", &say(vec![0xff; 100]), "malformed");
    world.storer.order(&say(vec![0; 2 << 20]));
    all_are_as_they_should_be();

    world.storer.order(&answer(None));
    let promise = say(have);
    until(SOON, "all want what was promised", || {
        let waiting = world.storer.order(&promise).waiting;
        waiting.len() == honest.len()
    });
    world.storer.order(&say(summary));
    world.put(BERLIN, "snow");
    for name in honest {
        let node = world.node(name);
        until(SOON, "the newest is read", || {
            is_as_it_should_be(node, "snow")
        });
    }

    // What is over for its owner is over for all.
    writer.ask(&["unexpose", "shop"]);
    let is_over =
        |node: &Node| shop(node).is_none() && shop_by_name(node).is_empty() && !is_named(node);
    for name in honest {
        until(SOON, "the shop is closed", || is_over(world.node(name)));
    }
    let before = honest.map(|name| rejections(world.node(name), "outdated"));
    let closed = announced([&stale[2].1, &truth[1]].map(Vec::as_slice));
    for (name, before) in std::iter::zip(honest, before) {
        let node = world.node(name);
        until(SOON, "it is not opened again", || {
            world.storer.order(&closed);
            rejections(node, "outdated") >= before + 2
        });
        assert!(is_over(node), "{name}");
        node.has_not_panicked();
    }
    world.stop("writer");
}

#[test]
fn a_slot_that_is_found_stale_is_mended_by_whoever_knows_better() {
    let mut world = World::new();
    world.put(BERLIN, "rain");
    world.put(RUMOUR, "it is true");
    let [rain, rumour] = [BERLIN, RUMOUR].map(|key| world.left(key, &[]));
    // The one who will have nobody else to ask has heard of the first, and not of what comes then.
    for key in [BERLIN, RUMOUR] {
        until(SOON, "the founder reads it", || {
            !read(world.node("founder"), key).is_empty()
        });
        until(SOON, "the reader reads it", || {
            !read(world.node("reader"), key).is_empty()
        });
    }
    world.stop("founder");
    world.put(BERLIN, "sun");
    world.node("writer").ask(&["dht", "delete", RUMOUR]);
    let sun = world.left(BERLIN, &rain);
    let denied = world.left(RUMOUR, &rumour);
    let reader = world.node("reader");
    until(SOON, "the reader knows both", || {
        read(reader, BERLIN) == ["sun"] && read(reader, RUMOUR).is_empty()
    });

    let by_reader = peer_id(reader).to_string();
    for (key, stale, newest) in [(BERLIN, rain, sun), (RUMOUR, rumour, denied)] {
        let slot = world.slot(key);
        let known = read(reader, key);
        world.storer.serve(slot, &stale);
        let keep = Order::KeepHonestly {
            slot: slot.to_vec(),
        };
        let before = world.storer.order(&keep).put.len();
        until(SOON, &format!("the storer is told better of {key}"), || {
            assert_eq!(search(reader, key), known);
            let mended = (slot.to_vec(), newest.clone(), by_reader.clone());
            world.storer.heard().put[before..].contains(&mended)
        });
    }

    world.stop("writer");
    world.stop("reader");
    world.start("founder");
    let founder = world.node("founder");
    world.storer_serves(founder);
    until(SOON, "the founder reads what the reader has mended", || {
        search(founder, BERLIN) == ["sun"] && search(founder, RUMOUR).is_empty()
    });
}
