//! What is measured: the walks of packets and datagrams, their single steps, and a node that has nothing to do.
//!
//! `time.rs` measures how long each case takes, `instructions.rs` runs one under valgrind.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use hivevpn_core::{
    allowed_ips::AllowedIps,
    batch::DatagramBatch,
    datagram::WireGuardDatagram,
    ip_packet::IpPacket,
    path::{Path, PathKind},
    peer::PeerKeys,
    policy::{Action, Mode, Policy, Rule, Selector, Service},
    session::{Identity, MIN_BUFFER, Session, sealed_length},
    tunnel_key::Keyring,
    tunnels::{OverlayAddresses, Tunnels},
};
use libp2p_identity::Keypair;
use zeroize::Zeroizing;

use crowd::{Crowd, packet};

#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../tests/many_peers/crowd.rs"]
mod crowd;

/// Packets that one run of a case handles.
pub const BATCH: usize = 64;

const MTU: u16 = 1420;
const FULL: u16 = MTU;
const SMALL: u16 = 64;
const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Something to measure, prepared before each run.
pub trait Case {
    /// Not measured.
    fn prepare(&mut self) {}
    /// Measured.
    fn run(&mut self);
}

/// A case by name.
pub struct Entry {
    /// What people call it.
    pub name: &'static str,
    /// What one run handles so many of.
    pub per_run: usize,
    /// Sets it up.
    pub case: fn() -> Box<dyn Case>,
}

/// All cases.
pub const CASES: &[Entry] = &[
    Entry {
        name: "seal-1420",
        per_run: BATCH,
        case: || Box::new(Seal::new(FULL)),
    },
    Entry {
        name: "seal-64",
        per_run: BATCH,
        case: || Box::new(Seal::new(SMALL)),
    },
    Entry {
        name: "open-1420",
        per_run: BATCH,
        case: || Box::new(Open::new()),
    },
    Entry {
        name: "parse-packet",
        per_run: BATCH,
        case: || Box::new(ParsePacket(packet(A, B, FULL))),
    },
    Entry {
        name: "parse-datagram",
        per_run: BATCH,
        case: || Box::new(ParseDatagram::new()),
    },
    Entry {
        name: "owner-among-1000",
        per_run: BATCH,
        case: || Box::new(Owner::new()),
    },
    Entry {
        name: "send-1420",
        per_run: BATCH,
        case: || Box::new(Send::new(FULL)),
    },
    Entry {
        name: "send-1420-closed",
        per_run: BATCH,
        case: || Box::new(Send::under(closed(), FULL)),
    },
    Entry {
        name: "send-64",
        per_run: BATCH,
        case: || Box::new(Send::new(SMALL)),
    },
    Entry {
        name: "accept-1420",
        per_run: BATCH,
        case: || Box::new(Accept::new()),
    },
    Entry {
        name: "accept-1420-closed",
        per_run: BATCH,
        case: || Box::new(Accept::under(closed())),
    },
    Entry {
        name: "idle-second-among-1000",
        per_run: 1,
        case: || Box::new(IdleSecond::new()),
    },
];

// ---- single steps --------------------------------------------------------------------------------------------

/// Two sessions with each other, keys established.
fn sessions() -> (Session, Session) {
    let (us, them) = (Identity::new([1; 32]), Identity::new([2; 32]));
    let mut a = Session::new(&us, them.public(), &Zeroizing::new([3; 32]), 1);
    let mut b = Session::new(&them, us.public(), &Zeroizing::new([3; 32]), 2);
    let mut flying = Vec::new();
    a.initiate(false, &mut [0; MIN_BUFFER], |d| flying.push(d.to_vec()));
    for at in 0..3 {
        let (opener, datagram) = (
            if at % 2 == 0 { &mut b } else { &mut a },
            flying[at].clone(),
        );
        let opened = opener.open(None, &datagram, &mut [0; MIN_BUFFER], |reply| {
            flying.push(reply.to_vec());
        });
        opened.expect("a handshake without loss");
    }
    (a, b)
}

fn seal(session: &mut Session, packet: &[u8], output: &mut [u8]) -> usize {
    session
        .seal(packet, MTU.into(), &mut Vec::new(), output)
        .expect("keys are established")
}

struct Seal {
    session: Session,
    packet: Vec<u8>,
    output: Vec<u8>,
}

impl Seal {
    fn new(length: u16) -> Self {
        Self {
            session: sessions().0,
            packet: packet(A, B, length),
            output: vec![0; sealed_length(length.into())],
        }
    }
}

impl Case for Seal {
    fn run(&mut self) {
        for _ in 0..BATCH {
            black_box(seal(&mut self.session, &self.packet, &mut self.output));
        }
    }
}

struct Open {
    sealer: Session,
    opener: Session,
    packet: Vec<u8>,
    datagrams: Vec<Vec<u8>>,
    output: Vec<u8>,
}

impl Open {
    fn new() -> Self {
        let (sealer, opener) = sessions();
        Self {
            sealer,
            opener,
            packet: packet(A, B, FULL),
            datagrams: vec![vec![0; sealed_length(FULL.into())]; BATCH],
            output: vec![0; sealed_length(FULL.into())],
        }
    }
}

impl Case for Open {
    fn prepare(&mut self) {
        for datagram in &mut self.datagrams {
            datagram.resize(sealed_length(FULL.into()), 0);
            let length = seal(&mut self.sealer, &self.packet, datagram);
            datagram.truncate(length);
        }
    }

    fn run(&mut self) {
        for datagram in &self.datagrams {
            let opened = self.opener.open(None, datagram, &mut self.output, |_| ());
            black_box(opened.expect("sealed for us"));
        }
    }
}

struct ParsePacket(Vec<u8>);

impl Case for ParsePacket {
    fn run(&mut self) {
        for _ in 0..BATCH {
            let packet = IpPacket::parse(black_box(&self.0)).expect("a packet");
            black_box((packet.source(), packet.destination()));
        }
    }
}

struct ParseDatagram(Vec<u8>);

impl ParseDatagram {
    fn new() -> Self {
        let mut datagram = vec![0; sealed_length(FULL.into())];
        let length = seal(&mut sessions().0, &packet(A, B, FULL), &mut datagram);
        datagram.truncate(length);
        Self(datagram)
    }
}

impl Case for ParseDatagram {
    fn run(&mut self) {
        for _ in 0..BATCH {
            black_box(WireGuardDatagram::parse(black_box(&self.0)));
        }
    }
}

struct Owner {
    table: AllowedIps<u32>,
    asked: Vec<IpAddr>,
}

impl Owner {
    fn new() -> Self {
        let address = |number: u32| Ipv4Addr::from(0x0a4d_0000 + number);
        let mut table = AllowedIps::default();
        for number in 0..1000_u32 {
            let ipv6 = Ipv6Addr::from(0xfd77 << 112 | u128::from(number.wrapping_mul(0x9e37_79b9)));
            table.insert(IpAddr::from(address(number)).into(), number);
            table.insert(IpAddr::from(ipv6).into(), number);
        }
        let asked = (0..BATCH as u32)
            .map(|at| address(at * 15).into())
            .collect();
        Self { table, asked }
    }
}

impl Case for Owner {
    fn run(&mut self) {
        for address in &self.asked {
            black_box(self.table.owner(*address));
        }
    }
}

// ---- whole walks ---------------------------------------------------------------------------------------------

struct Host {
    tunnels: Tunnels,
    keys: PeerKeys,
    path: Path,
}

fn keyring(identity: Identity, number: u8) -> Keyring {
    let (secret, seed) = (Zeroizing::new([77; 32]), Zeroizing::new([number; 32]));
    Keyring::new(identity, [7; 32], secret, seed)
}

impl Host {
    fn new(number: u8, ipv4: Ipv4Addr, now: Instant) -> Self {
        let identity = Identity::new([number; 32]);
        let keypair = Keypair::ed25519_from_bytes([number; 32]).expect("any 32 bytes will do");
        let keys = PeerKeys {
            id: keypair.public().to_peer_id(),
            key: identity.public(),
            ipv4: Some(ipv4),
            ipv6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()),
        };
        let us = OverlayAddresses {
            ipv4: keys.ipv4,
            ipv6: keys.ipv6,
        };
        Self {
            tunnels: Tunnels::new(us, keyring(identity, number), MTU, number.into(), now),
            keys,
            path: Path::Direct(([192, 0, 2, number], 7777).into()),
        }
    }
}

fn carry(from: &mut Host, to: &mut Host, now: Instant) {
    for (_, datagram) in from.tunnels.outbox().datagrams() {
        to.tunnels.handle_datagram(from.path, datagram, now);
    }
    from.tunnels.outbox().clear();
}

/// Two nodes with a session and a proven path.
fn hosts() -> (Host, Host, Instant) {
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    let now = Instant::now();
    let (mut a, mut b) = (Host::new(1, A, now), Host::new(2, B, now));
    a.tunnels.upsert(b.keys);
    b.tunnels.upsert(a.keys);
    a.tunnels
        .open_path(&b.keys.id, b.path, PathKind::Direct, now);
    while !(a.tunnels.outbox().is_empty() && b.tunnels.outbox().is_empty()) {
        carry(&mut a, &mut b, now);
        carry(&mut b, &mut a, now);
    }
    (a, b, now)
}

/// One flow may pass, so each packet must be found to belong to it.
fn closed() -> Policy {
    let rule = Rule {
        action: Action::Allow,
        from: [Selector::Everyone].into(),
        to: [Selector::Everyone].into(),
        ports: ["tcp", "udp"]
            .map(|word| word.parse::<Service>().expect("a service"))
            .into(),
        note: None,
    };
    Policy::new(Mode::Closed, [rule], []).expect("a policy")
}

struct Send {
    host: Host,
    packet: Vec<u8>,
    now: Instant,
}

impl Send {
    fn new(length: u16) -> Self {
        Self::under(Policy::default(), length)
    }

    fn under(policy: Policy, length: u16) -> Self {
        let (mut host, _, now) = hosts();
        host.tunnels.set_policy(policy);
        Self {
            host,
            packet: packet(A, B, length),
            now,
        }
    }
}

impl Case for Send {
    fn run(&mut self) {
        let tunnels = &mut self.host.tunnels;
        for _ in 0..BATCH {
            tunnels.handle_overlay_packet(&self.packet, self.now);
        }
        assert!(!tunnels.outbox().is_empty());
        tunnels.outbox().clear();
    }
}

struct Accept {
    sender: Host,
    receiver: Host,
    packet: Vec<u8>,
    datagrams: DatagramBatch,
    now: Instant,
}

impl Accept {
    fn new() -> Self {
        Self::under(Policy::default())
    }

    fn under(policy: Policy) -> Self {
        let (sender, mut receiver, now) = hosts();
        receiver.tunnels.set_policy(policy);
        Self {
            sender,
            receiver,
            packet: packet(A, B, FULL),
            datagrams: DatagramBatch::default(),
            now,
        }
    }
}

impl Case for Accept {
    fn prepare(&mut self) {
        let tunnels = &mut self.sender.tunnels;
        for _ in 0..BATCH {
            tunnels.handle_overlay_packet(&self.packet, self.now);
        }
        std::mem::swap(&mut self.datagrams, tunnels.outbox());
        tunnels.outbox().clear();
    }

    fn run(&mut self) {
        let tunnels = &mut self.receiver.tunnels;
        for (_, datagram) in self.datagrams.datagrams() {
            tunnels.handle_datagram(self.sender.path, datagram, self.now);
        }
        assert_eq!(tunnels.inbox().len(), BATCH);
        tunnels.inbox().clear();
    }
}

// ---- a node with nothing to do -------------------------------------------------------------------------------

/// A thousand members; as many of them have a session as the handshake limiter lets in at once.
struct IdleSecond(Crowd);

impl IdleSecond {
    fn new() -> Self {
        let mut crowd = Crowd::new(1000);
        for number in 0..300 {
            crowd.connect(number);
        }
        crowd.pass(Duration::from_secs(120));
        Self(crowd)
    }
}

impl Case for IdleSecond {
    fn prepare(&mut self) {
        self.0.settle();
    }

    fn run(&mut self) {
        self.0.wake_for(Duration::from_secs(1));
    }
}
