//! The data path: one honest node, one member with a program of its own, and strangers.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use hivevpn_core::{
    connection::ConnectionId,
    path::{Path, PathKind},
    peer::PeerKeys,
    relay::{Channel, Terms},
    session::{Identity, Session, sealed_length},
    tunnel_key::Keyring,
    tunnels::{OverlayAddresses, Tunnels},
};
use libp2p_identity::PeerId;

use crate::Acts;

const MTU: u16 = 1420;
/// The longest inner packet that a session seals.
const LONGEST: usize = 60_000;

fn endpoint(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7777).into()
}

fn keys(number: u8) -> PeerKeys {
    PeerKeys {
        id: peer(number),
        key: Identity::new([number; 32]).public(),
        ipv4: Some(Ipv4Addr::new(10, 77, 0, number)),
        ipv6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
    }
}

fn peer(number: u8) -> PeerId {
    let keys = libp2p_identity::Keypair::ed25519_from_bytes([number; 32]);
    keys.expect("any 32 bytes are a key").public().to_peer_id()
}

/// The honest node is number 1, the member with a program of its own number 2, and number 3 is away.
struct World {
    honest: Tunnels,
    session: Session,
    now: Instant,
    /// What the honest node sent to the member last.
    last: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let us = OverlayAddresses {
            ipv4: keys(1).ipv4,
            ipv6: keys(1).ipv6,
        };
        let keyring = |number| {
            let identity = Identity::new([number; 32]);
            Keyring::new(identity, [5; 32], [6; 32].into(), [7; 32].into())
        };
        let mut honest = Tunnels::new(us, keyring(1), MTU, 1, now);
        honest.upsert(keys(2));
        honest.upsert(keys(3));
        honest.set_relaying(Some(Terms::default()), now);
        honest.set_relays(&[peer(2), peer(3)]);
        let direct = |number| Path::Direct(endpoint(number));
        honest.open_path(&peer(2), direct(2), PathKind::Direct, now);
        honest.open_path(&peer(3), direct(3), PathKind::Direct, now);
        let carrier = Path::Carrier(ConnectionId(1));
        honest.open_path(&peer(2), carrier, PathKind::Stream, now);
        // The greeting, in which signals travel and keys are exchanged.
        let member = keyring(2);
        let psk = member.greeting_psk(&keys(1).key);
        let mut world = Self {
            honest,
            session: Session::new(member.identity(), keys(1).key, &psk, 7),
            now,
            last: Vec::new(),
        };
        world.settle();
        assert!(world.session.can_seal(), "the handshake is complete");
        world
    }

    /// The member answers what its session answers, and only that.
    fn settle(&mut self) {
        for _ in 0..8 {
            let outbox: Vec<_> = self
                .honest
                .outbox()
                .datagrams()
                .filter(|(to, _)| *to == Path::Direct(endpoint(2)))
                .map(|(_, datagram)| datagram.to_vec())
                .collect();
            self.honest.outbox().clear();
            self.honest.inbox().clear();
            if outbox.is_empty() {
                return;
            }
            for datagram in outbox {
                let mut output = vec![0; datagram.len().max(2048)];
                let mut replies = Vec::new();
                let _ = self.session.open(None, &datagram, &mut output, |reply| {
                    replies.push(reply.to_vec())
                });
                self.last = datagram;
                for reply in replies {
                    let from = Path::Direct(endpoint(2));
                    self.honest.handle_datagram(from, &reply, self.now);
                }
            }
        }
    }

    fn hear(&mut self, from: Path, datagram: &[u8]) {
        self.honest.handle_datagram(from, datagram, self.now);
        while self.honest.poll_moved().is_some() {}
        while self.honest.poll_ping().is_some() {}
        self.settle();
    }

    /// The member seals whatever it likes.
    fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let packet = &packet[..packet.len().min(LONGEST)];
        let mut output = vec![0; sealed_length(packet.len())];
        let mut scratch = Vec::new();
        let sealed = self
            .session
            .seal(packet, LONGEST, &mut scratch, &mut output);
        output.truncate(sealed.ok()?);
        Some(output)
    }

    fn pass(&mut self, steps: u8) {
        for _ in 0..steps % 16 {
            self.now += Duration::from_millis(250);
            self.honest.handle_timeout(self.now);
            self.settle();
        }
    }
}

fn path(number: u8) -> Path {
    let via = endpoint(number >> 3);
    match number % 8 {
        0 => Path::Direct(endpoint(2)),
        1 => Path::Direct(endpoint(3)),
        2 => Path::Direct(endpoint(66)),
        3 => Path::Carrier(ConnectionId(1)),
        4 => Path::Carrier(ConnectionId(2)),
        5 => Path::Direct((keys(2).ipv6, 7777).into()),
        6 | 7 => Path::Relayed {
            via,
            channel: Channel(number.into()),
        },
        _ => unreachable!("a remainder of eight"),
    }
}

/// Datagrams from anybody, by any path: made up, or bent from what a session has said, or wrapped for a relay.
pub fn datagrams(bytes: &[u8]) {
    let mut world = World::new();
    for (kind, body) in Acts(bytes).iter() {
        let [from, body @ ..] = body else { continue };
        let from = path(*from);
        match kind % 5 {
            0 => world.hear(from, body),
            1 => {
                let sealed = world.seal(&[0x45; 40]).unwrap_or_default();
                world.hear(from, &bent(sealed, body));
            }
            2 => {
                let last = world.last.clone();
                world.hear(from, &bent(last, body));
            }
            3 => {
                let [a, b, c, d, inner @ ..] = body else {
                    continue;
                };
                let channel = Channel(u32::from_be_bytes([*a, *b, *c, *d]));
                world.hear(from, &[&channel.header()[..], inner].concat());
            }
            4 => world.pass(body.len() as u8),
            _ => unreachable!("a remainder of five"),
        }
    }
}

/// Changes a datagram: pairs of place and value, then its length.
fn bent(mut datagram: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    let (pairs, rest) = changes.as_chunks::<2>();
    for [place, value] in pairs {
        if let Some(byte) = datagram.get_mut(usize::from(*place)) {
            *byte ^= value;
        }
    }
    if let [length] = rest {
        datagram.resize(usize::from(*length) * 8, 0);
    }
    datagram
}

/// IP packets, out of our interface and out of a member's session.
pub fn packets(bytes: &[u8]) {
    let mut world = World::new();
    for (kind, body) in Acts(bytes).iter() {
        match kind % 4 {
            0 => outward(&mut world, body),
            1 => inward(&mut world, body),
            2 => {
                let to = [2, 3, 4][body.len() % 3];
                outward(&mut world, &ipv4(1, to, body));
                outward(&mut world, &ipv6(1, to, body));
            }
            3 => {
                inward(&mut world, &ipv4(2, 1, body));
                inward(&mut world, &ipv6(2, 1, body));
            }
            _ => unreachable!("a remainder of four"),
        }
    }
}

fn outward(world: &mut World, packet: &[u8]) {
    let now = world.now;
    let _ = world.honest.handle_overlay_packet(packet, now);
    world.settle();
}

fn inward(world: &mut World, packet: &[u8]) {
    if let Some(sealed) = world.seal(packet) {
        world.hear(Path::Direct(endpoint(2)), &sealed);
    }
}

/// An IPv4 packet between members whose protocol and payload are `body`.
fn ipv4(from: u8, to: u8, body: &[u8]) -> Vec<u8> {
    let (protocol, payload) = body.split_first().unwrap_or((&17, &[]));
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, *protocol, 0, 0];
    packet.extend(keys(from).ipv4.expect("it has one").octets());
    packet.extend(keys(to).ipv4.expect("it has one").octets());
    packet.extend(payload);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet
}

/// The same by IPv6.
fn ipv6(from: u8, to: u8, body: &[u8]) -> Vec<u8> {
    let (protocol, payload) = body.split_first().unwrap_or((&17, &[]));
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, high, low, *protocol, 64];
    packet.extend(keys(from).ipv6.octets());
    packet.extend(keys(to).ipv6.octets());
    packet.extend(payload);
    packet
}

/// What a member's core says inside its session: the bodies of signals, and time.
pub fn signals(bytes: &[u8]) {
    let mut world = World::new();
    let ask = hivevpn_core::signal::Signal::Ask(7).packet(0);
    // Header and magic, without the kind and what follows.
    let head = &ask[..ask.len() - 9];
    for (kind, body) in Acts(bytes).iter() {
        if kind % 16 == 15 {
            world.pass(body.len() as u8);
            continue;
        }
        let mut packet = [head, &[kind % 16], body].concat();
        let length = packet.len() as u16;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        inward(&mut world, &packet);
    }
}

pub(crate) fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let act = |kind: u8, body: &[u8]| {
        let length = (body.len() as u16).to_be_bytes();
        [&[kind][..], &length, body].concat()
    };
    let mut seeds = vec![
        (
            "datagrams",
            act(0, &[&[2, 1, 0, 0, 0][..], &[7; 144]].concat()),
        ),
        (
            "datagrams",
            act(0, &[&[0, 4, 0, 0, 0][..], &[7; 44]].concat()),
        ),
        ("datagrams", act(1, &[0, 3, 1])),
        ("datagrams", act(1, &[6, 20, 1, 9])),
        ("datagrams", [act(2, &[0]), act(4, &[0; 9])].concat()),
        ("datagrams", act(3, &[1, 0, 0, 0, 7, 4, 0, 0, 0, 1])),
        (
            "packets",
            act(2, &[6, 0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0x60, 2]),
        ),
        (
            "packets",
            act(3, &[&[1, 8, 0, 0, 0][..], &[0; 60]].concat()),
        ),
        ("packets", act(2, &[&[17][..], &[1; 1500]].concat())),
        ("packets", act(1, &[0x45; 20])),
    ];
    for kind in 0..6 {
        seeds.push(("signals", act(kind, &[0; 20])));
        seeds.push(("signals", [act(kind, &[1; 26]), act(15, &[0; 3])].concat()));
    }
    seeds
}
