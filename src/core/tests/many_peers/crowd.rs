//! One node under test and any number of members around it, with a hand-driven clock and a wire that loses nothing.
//!
//! The members are bare [`Tunnels`] that know nobody but the node; their records are as genuine as any.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use hivevpn_core::{
    connection::{ConnectionId, Link},
    membership::{
        Applicant, Descriptor, Directory, Features, Founding, Issuer, MemberRecord, Name, Network,
        Signer, UnixTime, address, genesis, issuer::TIER_INVITED,
    },
    node::{Node, Now, Reach, Start},
    output::Output,
    path::Path,
    peer::PeerKeys,
    registry::Rules,
    session::Identity,
    tunnels::{OverlayAddresses, Tunnels},
};
use libp2p_identity::PeerId;
use zeroize::Zeroizing;

const UNIX: UnixTime = UnixTime(1_800_000_000);
const MTU: u16 = 1420;
/// How closely the members watch their own clocks.
const STEP: Duration = Duration::from_millis(250);

/// A member other than the node under test.
pub struct Member {
    pub id: PeerId,
    pub ipv4: Ipv4Addr,
    pub tunnels: Tunnels,
}

/// What an idle node did in a span of time.
#[derive(Debug, Default, Clone, Copy)]
pub struct Activity {
    /// How often `poll_timeout` had it woken.
    pub wakeups: usize,
    /// Datagrams that it sent.
    pub datagrams: usize,
    /// Members that it dialled.
    pub dials: usize,
}

/// The node, the members, and the wire between them.
pub struct Crowd {
    pub node: Node,
    pub members: Vec<Member>,
    start: Instant,
    elapsed: Duration,
    next_step: Duration,
}

/// What a crowd is made of, before the node is started.
pub struct Cast {
    pub start: Start,
    members: Vec<Member>,
    now: Now,
}

/// Not in the first byte, of which a WireGuard key ignores three bits.
fn seed(number: usize) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[8..16].copy_from_slice(&(number as u64).to_le_bytes());
    seed
}

fn name(text: &str) -> Name {
    Name::parse(text).expect("a valid name")
}

/// 10.77.0.1 is the node; the members follow.
fn ipv4(number: usize) -> Ipv4Addr {
    let [_, _, high, low] = (number as u32 + 256).to_be_bytes();
    [10, 77, high, low].into()
}

/// Where member `number` is on the underlay.
pub fn endpoint(number: usize) -> SocketAddr {
    let [_, _, high, low] = (number as u32).to_be_bytes();
    ([198, 18, high, low], 7777).into()
}

/// The same as a path.
pub fn path(number: usize) -> Path {
    Path::Direct(endpoint(number))
}

fn number_at(path: Path) -> Option<usize> {
    let Path::Direct(endpoint) = path else {
        return None;
    };
    let IpAddr::V4(ip) = endpoint.ip() else {
        return None;
    };
    let [_, _, high, low] = ip.octets();
    Some(usize::from(u16::from_be_bytes([high, low])))
}

fn node_path() -> Path {
    Path::Direct(([192, 0, 2, 1], 7777).into())
}

/// A UDP packet of `length` bytes between two overlay addresses.
pub fn packet(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Vec<u8> {
    let mut packet = vec![0xab; length.into()];
    packet[..20].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[9] = 17;
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.octets());
    packet
}

impl Cast {
    /// A network whose founder, the node under test, has admitted `count` members.
    pub fn new(count: usize) -> Self {
        let founder = Signer::from_seed(&seed(usize::MAX));
        let founding = Founding {
            name: name("home"),
            ipv4_prefix: genesis::DEFAULT_IPV4_PREFIX,
            certificate_lifetime: genesis::DEFAULT_CERTIFICATE_LIFETIME,
            founder_name: name("founder"),
            founder_ipv4: Some([10, 77, 0, 1].into()),
            policy_mode: None,
        };
        let authority = Signer::from_seed(&seed(usize::MAX - 1));
        let secret = zeroize::Zeroizing::new([77; 32]);
        let founded = Network::found(founding, &authority, &founder, [9; 16], secret, UNIX)
            .expect("a sound founding");
        let genesis = founded.network.genesis().clone();
        let issuer = Issuer::new(founder.clone(), founded.delegation, genesis.clone())
            .expect("the founder is a delegate");
        let mut directory = Directory::new(genesis.clone());
        let node_keys = PeerKeys {
            id: founder.peer_id(),
            key: Identity::new(seed(usize::MAX)).public(),
            ipv4: Some([10, 77, 0, 1].into()),
            ipv6: address::ipv6(&genesis.id(), &founder.key()),
        };
        #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
        let now = Now {
            instant: Instant::now(),
            unix: UNIX,
        };
        let (mut members, mut records) = (Vec::new(), Vec::new());
        for number in 0..count {
            let signer = Signer::from_seed(&seed(number));
            let called = name(&format!("m{number}"));
            let applicant = Applicant {
                key: signer.key(),
                name: called.clone(),
                groups: BTreeSet::new(),
                ipv4: Some(ipv4(number)),
                tier: TIER_INVITED,
            };
            let identity = Identity::new(seed(number));
            let endpoint = endpoint(number);
            let address = format!("/ip4/{}/udp/7777/quic-v1", endpoint.ip());
            let descriptor = Descriptor {
                network: genesis.id(),
                seq: 1,
                wireguard_key: identity.public().0,
                name: called,
                addresses: vec![address.parse().expect("a multiaddress")],
                features: Features::NONE,
            };
            let record = MemberRecord {
                credential: issuer
                    .admit(applicant, UNIX, &mut directory)
                    .expect("room for everybody"),
                descriptor: descriptor.seal(&signer),
            };
            records.push(record.encode());
            let us = OverlayAddresses {
                ipv4: Some(ipv4(number)),
                ipv6: address::ipv6(&genesis.id(), &signer.key()),
            };
            let random = zeroize::Zeroizing::new(seed(number));
            let keyring = founded.network.keyring(identity, random);
            let mut tunnels = Tunnels::new(us, keyring, MTU, number as u64, now.instant);
            tunnels.upsert(node_keys);
            members.push(Member {
                id: signer.peer_id(),
                ipv4: ipv4(number),
                tunnels,
            });
        }
        let start = Start {
            signer: founder,
            wireguard: Identity::new(seed(usize::MAX)),
            network: founded.network,
            credential: founded.credential,
            delegation: None,
            name: name("founder"),
            mtu: MTU,
            seed: 1,
            secret_seed: zeroize::Zeroizing::new(seed(usize::MAX)),
            descriptor_seq: 0,
            time_floor: UNIX,
            records,
            notices: Vec::new(),
            redemptions: Vec::new(),
            password: None,
            random: Zeroizing::new(seed(0)),
            relay_terms: hivevpn_core::relay::Terms::default(),
            bootstrap: Vec::new(),
            entries: Vec::new(),
            rules: Rules::new(),
            registry_client: false,
        };
        Self {
            start,
            members,
            now,
        }
    }

    /// Starts the node.
    pub fn begin(self) -> Crowd {
        let mut node = Node::new(self.start, self.now).expect("a good certificate");
        let reach = Reach {
            is_seen: true,
            ..Reach::default()
        };
        node.handle_reach(reach, self.now);
        Crowd {
            node,
            members: self.members,
            start: self.now.instant,
            elapsed: Duration::ZERO,
            next_step: Duration::ZERO,
        }
    }
}

impl Crowd {
    pub fn new(count: usize) -> Self {
        Cast::new(count).begin()
    }

    pub fn now(&self) -> Now {
        Now {
            instant: self.start + self.elapsed,
            unix: UNIX.plus(self.elapsed),
        }
    }

    /// The node gets a QUIC connection to member `number`: a path, by which it begins a handshake at once.
    pub fn connect(&mut self, number: usize) {
        let (now, id) = (self.now(), ConnectionId(number as u64));
        let peer = self.members[number].id;
        let link = Link::Quic(endpoint(number));
        self.node.handle_connection_opened(id, peer, link, now);
        self.node.handle_authenticated(id, now);
    }

    /// Carries datagrams until none is left; returns how many the node sent. Nobody can be dialled.
    pub fn settle(&mut self) -> Activity {
        let mut activity = Activity::default();
        loop {
            while let Some(output) = self.node.poll_output() {
                if let Output::Dial { peer, .. } = output {
                    activity.dials += 1;
                    let now = self.now();
                    self.node.handle_dial_failed(&peer, now);
                }
            }
            let sent = self.deliver();
            if sent == 0 {
                return activity;
            }
            activity.datagrams += sent;
        }
    }

    /// Takes every datagram of the node to its member, and the answers back.
    fn deliver(&mut self) -> usize {
        let now = self.now().instant;
        let outbox: Vec<_> = self
            .node
            .outbox()
            .datagrams()
            .map(|(to, datagram)| (to, datagram.to_vec()))
            .collect();
        self.node.outbox().clear();
        for (to, datagram) in &outbox {
            let member = number_at(*to).and_then(|number| self.members.get_mut(number));
            let member = member.expect("every path leads to a member");
            member.tunnels.handle_datagram(node_path(), datagram, now);
            for (_, answer) in member.tunnels.outbox().datagrams() {
                self.node.handle_datagram(*to, answer, now);
            }
            member.tunnels.outbox().clear();
        }
        outbox.len()
    }

    /// Lets `span` pass. The node is woken when it asked to be, and no more often.
    pub fn pass(&mut self, span: Duration) -> Activity {
        let end = self.elapsed + span;
        let mut activity = Activity::default();
        while self.elapsed < end {
            let due = self
                .node
                .poll_timeout()
                .saturating_duration_since(self.start);
            self.elapsed = due.min(self.next_step).clamp(self.elapsed, end);
            if due <= self.elapsed {
                activity.wakeups += 1;
                self.node.handle_timeout(self.now());
            }
            if self.next_step <= self.elapsed {
                self.next_step = self.elapsed + STEP;
                self.tick_members();
            }
            let settled = self.settle();
            activity.datagrams += settled.datagrams;
            activity.dials += settled.dials;
        }
        activity
    }

    /// Lets `span` pass for the node alone, which is woken when it asked to be. What it sends is not delivered.
    pub fn wake_for(&mut self, span: Duration) {
        let end = self.elapsed + span;
        loop {
            let due = self
                .node
                .poll_timeout()
                .saturating_duration_since(self.start);
            if due > end {
                break;
            }
            self.elapsed = due.max(self.elapsed);
            self.node.handle_timeout(self.now());
        }
        self.elapsed = end;
    }

    fn tick_members(&mut self) {
        let now = self.now().instant;
        for (number, member) in self.members.iter_mut().enumerate() {
            member.tunnels.handle_timeout(now);
            for (_, datagram) in member.tunnels.outbox().datagrams() {
                self.node.handle_datagram(path(number), datagram, now);
            }
            member.tunnels.outbox().clear();
        }
    }
}
