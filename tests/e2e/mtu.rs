//! Underlays of every width: whatever a link carries, whether routers say so or not, nothing stalls.

use std::net::IpAddr;
use std::time::Duration;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab, Nat};
use crate::node::{Network, Node};
use crate::traffic::{transfer, transfer_while, udp_echo};

/// Each with the width of its link, from what IPv4 must carry to jumbo frames.
const SPOKES: [(&str, u32); 10] = [
    ("w576", 576),
    ("w1000", 1000),
    ("w1280", 1280),
    ("w1360", 1360),
    ("w1400", 1400),
    ("w1420", 1420),
    ("w1480", 1480),
    ("w1500", 1500),
    ("w2000", 2000),
    ("w9000", 9000),
];

/// What a cable carries unless it is told otherwise.
const ETHERNET: u32 = 1500;
const JUMBO: u32 = 9000;
/// What the overlay interface carries unless it is told otherwise.
const INTERFACE: u32 = 1420;
/// IPv4, UDP and WireGuard around a packet.
const AROUND: u32 = 20 + 8 + 32;
/// IPv6 demands this of every link, so a path that carries less is none.
const LEAST: u32 = 1280;
/// The search for a path's width asks a dozen times at most, and waits two seconds for each answer that does not come.
const SEARCH: Duration = Duration::from_secs(45);
/// As long as a stream may rest when its way has become narrower.
const RECOVERY: Duration = Duration::from_secs(60);

const MEGABYTE: usize = 1_000_000;

/// A hub that everybody reaches, and a spoke behind a router of its own for each width.
fn wheel(spokes: &[(&'static str, u32)]) -> Lab {
    let begin = Lab::new().behind(Nat::Open, "hub");
    let lab = spokes.iter().fold(begin, |lab, (name, _)| {
        lab.behind(Nat::PortRestricted, name)
    });
    let lab = lab.build();
    for name in std::iter::once("hub").chain(spokes.iter().map(|(name, _)| *name)) {
        lab.host(name).cable().set_mtu(JUMBO);
        lab.router(name).cable().set_mtu(JUMBO);
    }
    lab
}

/// Starts a node everywhere and proves each spoke, all at the same time.
fn all_reach_the_hub(lab: Lab, spokes: &[(&'static str, u32)]) {
    let names: Vec<&str> = spokes.iter().map(|(name, _)| *name).collect();
    let net = Network::configured(lab, &[&["hub"], &names[..]].concat(), |_| String::new());
    for_each_spoke(spokes, |name, width| {
        reach_each_other(net.node(name), net.node("hub"), width);
    });
}

/// Lets all of them tell their stories at the same time.
fn for_each_spoke(spokes: &[(&'static str, u32)], story: impl Fn(&'static str, u32) + Send + Sync) {
    std::thread::scope(|scope| {
        for (name, width) in spokes {
            let story = &story;
            std::thread::Builder::new()
                .name((*name).to_owned())
                .spawn_scoped(scope, move || story(name, *width))
                .expect("a thread can be started");
        }
    });
}

/// Everything arrives between two nodes whose link carries `width` bytes, and what cannot is refused aloud.
fn reach_each_other(spoke: &Node, hub: &Node, width: u32) {
    let (path, widest) = if width >= LEAST + AROUND {
        ("direct", INTERFACE.min(width - AROUND))
    } else {
        ("stream", INTERFACE) // no room for datagrams: TCP or QUIC cut everything to measure
    };
    spoke.wait(path, hub.host().name(), Duration::from_secs(30));
    for [from, to] in [[spoke, hub], [hub, spoke]] {
        for address in to.addresses() {
            transfer(from.host(), to.host(), address, 3 * MEGABYTE);
            // One may be lost each way while the kernel there learns how long packets may be.
            let answered = udp_echo(from.host(), to.host(), address, 10, 4000);
            assert!(
                answered >= 8,
                "{answered} of 10 datagrams of 4000 bytes were answered by {address}"
            );
            is_answered_or_refused(from.host(), address, INTERFACE);
        }
    }
    for address in hub.addresses() {
        finds(spoke.host(), address, widest);
    }
    let shown = spoke.peer(hub.host().name()).unwrap();
    assert_eq!(shown["path"], path, "{shown:#}");
}

/// What becomes of a ping that must not be cut.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// The sender was told how long packets may be.
    Refused(u32),
    Silence,
}

fn ping(from: &Host, address: IpAddr, length: u32) -> Fate {
    let headers = if address.is_ipv4() { 20 + 8 } else { 40 + 8 };
    let outcome = from.sh(&format!(
        "ping -n -c1 -W1 -M do -s {} {address}",
        length - headers
    ));
    if outcome.succeeded() {
        return Fate::Answered;
    }
    // "message too long, mtu=1340", "Frag needed and DF set (mtu = 1340)", "Packet too big: mtu=1340"
    let said = outcome.stdout + &outcome.stderr;
    let mtu = said.split_once("mtu").map(|(_, rest)| {
        let digits = rest.trim_start_matches([' ', ':', '=']);
        let end = digits.find(|c: char| !c.is_ascii_digit());
        &digits[..end.unwrap_or(digits.len())]
    });
    mtu.map_or(Fate::Silence, |mtu| {
        Fate::Refused(mtu.parse().unwrap_or_else(|_| panic!("no MTU in {said}")))
    })
}

/// Once it is known how long packets may be, nothing vanishes any more: a ping of the interface's length is answered
/// or its sender is told what would be, which is then true.
fn is_answered_or_refused(from: &Host, address: IpAddr, length: u32) {
    let what = format!("a ping of {length} bytes to {address} is answered or refused");
    let fate = eventually(SEARCH, &what, || {
        Some(ping(from, address, length)).filter(|fate| *fate != Fate::Silence)
    });
    if let Fate::Refused(mtu) = fate {
        assert!((LEAST..length).contains(&mtu), "{mtu} bytes to {address}");
        assert_eq!(
            ping(from, address, mtu),
            Fate::Answered,
            "{mtu} to {address}"
        );
    }
}

/// Sooner or later packets may be as long as the path carries, but for a few bytes. Makes the whole host forget what it
/// was told of paths.
fn finds(from: &Host, address: IpAddr, widest: u32) {
    let nearly = if widest == INTERFACE {
        widest
    } else {
        widest - 8
    };
    let what = format!("pings of {nearly} bytes to {address} are answered");
    until(SEARCH, &what, || {
        // The kernel would remember for ten minutes what it was told before.
        from.sh("ip -4 route flush cache; ip -6 route flush cache")
            .ok();
        ping(from, address, nearly) == Fate::Answered
    });
    if widest < INTERFACE {
        let fate = ping(from, address, INTERFACE);
        assert!(
            matches!(fate, Fate::Refused(mtu) if mtu <= widest),
            "{fate:?}"
        );
    }
}

#[test]
fn links_of_any_width_at_the_node_carry_everything() {
    let lab = wheel(&SPOKES);
    for (name, width) in SPOKES {
        lab.host(name).cable().set_mtu(width);
    }
    all_reach_the_hub(lab, &SPOKES);
}

#[test]
fn links_of_any_width_in_the_middle_carry_everything() {
    let lab = wheel(&SPOKES);
    for (name, width) in SPOKES {
        lab.host(name).cable().set_mtu(width.max(ETHERNET));
        lab.router(name).narrow(lab.router("hub"), width);
    }
    all_reach_the_hub(lab, &SPOKES);
}

/// Below what QUIC needs, programs that use TCP on such an underlay stall as well, so there is nothing to stand on.
#[test]
fn links_of_any_width_behind_which_nobody_tells_carry_everything() {
    let spokes: Vec<_> = SPOKES
        .into_iter()
        .filter(|(_, width)| *width >= LEAST)
        .collect();
    let lab = wheel(&spokes);
    for (name, width) in &spokes {
        lab.host(name).cable().set_mtu(ETHERNET.max(*width));
        lab.router(name).narrow(lab.router("hub"), *width);
        lab.router(name).mute();
    }
    lab.router("hub").mute();
    all_reach_the_hub(lab, &spokes);
}

/// A backup route with a tunnel on it, say: announced by its router or not, up and down, and also one that is left with too
/// little for datagrams.
#[test]
fn a_way_that_gets_narrower_does_not_break_a_transfer() {
    let spokes = [
        ("up", 1400),
        ("down", 1400),
        ("mute-up", 1400),
        ("tiny-up", 1300),
        ("tiny-down", 1300),
    ];
    let lab = wheel(&spokes);
    lab.router("mute-up").mute();
    let names: Vec<&str> = spokes.iter().map(|(name, _)| *name).collect();
    let net = Network::configured(lab, &[&["hub"], &names[..]].concat(), |_| String::new());
    for_each_spoke(&spokes, |name, width| {
        let (hub, spoke) = (net.node("hub"), net.node(name));
        net.wait("direct", ["hub", name], Duration::from_secs(30));
        let routers = [name, "hub"].map(|name| net.lab().router(name).clone());
        let [from, to] = if name.ends_with("up") {
            [spoke, hub]
        } else {
            [hub, spoke]
        };
        let to_address = to.ipv4().into();
        transfer_while(
            from.host(),
            to.host(),
            to_address,
            20 * MEGABYTE,
            RECOVERY,
            move || {
                routers[0].narrow(&routers[1], width);
            },
        );
    });
}

#[test]
fn jumbo_frames_are_used_where_both_ends_want_them() {
    let names = ["a", "b", "c"];
    let lab = Lab::new().public("a").public("b").public("c").build();
    for name in names {
        lab.host(name).cable().set_mtu(JUMBO);
    }
    let net = Network::configured(lab, &names, |name| match name {
        "c" => String::new(),
        _ => "[interface]\nmtu = 8920\n".to_owned(),
    });
    let (a, b, c) = (net.node("a"), net.node("b"), net.node("c"));
    net.wait("direct", ["a", "b"], Duration::from_secs(15));
    net.wait("direct", ["a", "c"], Duration::from_secs(15));
    for [from, to] in [[a, b], [b, a], [a, c], [c, a]] {
        for address in to.addresses() {
            transfer(from.host(), to.host(), address, 30 * MEGABYTE);
            assert!(udp_echo(from.host(), to.host(), address, 10, 20_000) >= 8);
        }
    }
    for address in b.addresses() {
        finds_exactly(a.host(), address, 8920);
    }
    for address in c.addresses() {
        finds_exactly(a.host(), address, INTERFACE);
        is_answered_or_refused(a.host(), address, 8920);
    }
}

fn finds_exactly(from: &Host, address: IpAddr, length: u32) {
    let what = format!("pings of {length} bytes to {address} are answered");
    until(SEARCH, &what, || {
        ping(from, address, length) == Fate::Answered
    });
}
