//! One host: the core's node, driven as the shell drives it. The only file that knows the core's interface.
//!
//! What the node wants comes out of [`Host::drain`], translated into the words of the simulation. A host has a clock of
//! its own: like Linux's monotonic clock it stands still while the host is suspended, the wall clock does not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use hivevpn_core::{
    connection::{ConnectionId, Link},
    membership::UnixTime,
    node::{Node, Now, Reach, Start},
    output::{Output, RequestId},
    path::{
        Path,
        candidate::{Candidate, CandidateKind},
    },
};
use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

use crate::{
    clock::Moment,
    founding::{self, UNIX},
    swarm::{Address, ConnectionNumber, Way},
    underlay::HostId,
};

pub mod disk;
mod registry;

use disk::Disk;

/// The number of every request to join: it is answered before there is another.
pub const JOIN: u64 = 0;

/// Something that the node wants from the swarm.
#[derive(Debug, Clone)]
pub enum Order {
    /// Open a connection.
    Dial {
        /// To whom.
        peer: PeerId,
        /// Where.
        addresses: Vec<Address>,
        /// Whether another connection, or a dial under way, is no reason to refrain.
        even_if_connected: bool,
    },
    /// Close a connection.
    Close(ConnectionNumber),
    /// Whether the credential shown on a connection is good.
    Judge(ConnectionNumber, bool),
    /// Show this record to whoever connects.
    Introduce(Vec<u8>),
    /// Ask a connected member.
    Sync(PeerId, Vec<u8>),
    /// Answer a request.
    Respond(u64, Vec<u8>),
    /// Members that relay.
    Relays(Vec<PeerId>),
    /// Put a record into the DHT.
    Publish([u8; 32], Vec<u8>),
    /// Look a record up in the DHT.
    Lookup([u8; 32]),
    /// Ask a connected member about the registry.
    Registry(PeerId, Vec<u8>),
    /// Put an entry of the registry into the DHT.
    PublishEntry([u8; 32], Vec<u8>),
    /// Look one up.
    LookupEntry([u8; 32]),
}

/// Where a sealed datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Out of the UDP socket.
    Udp(SocketAddrV4),
    /// Into the carrier stream of a connection.
    Carrier(ConnectionNumber),
}

/// Everything that a node had to say at one moment.
#[derive(Debug, Default)]
pub struct Drained {
    /// To be carried out, in order.
    pub orders: Vec<Order>,
    /// To be sent.
    pub datagrams: Vec<(Exit, Vec<u8>)>,
    /// Peers that are reached another way now, or no way that answers.
    pub moved: Vec<(PeerId, Option<Path>)>,
    /// For the applications of this host.
    pub packets: Vec<Vec<u8>>,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerPath {
    /// The path that packets take now, once it is proven.
    pub path: Path,
    /// "direct", "stream" or "relay".
    pub kind: &'static str,
}

impl PeerPath {
    /// Whether packets take another way. Another connection to the same host is none.
    pub fn differs_from(&self, other: &Self) -> bool {
        let is_stream = |path: &Path| matches!(path, Path::Carrier(_));
        let both_streams = is_stream(&self.path) && is_stream(&other.path);
        self.kind != other.kind || (self.path != other.path && !both_streams)
    }
}

/// The clocks of one host.
#[derive(Debug, Clone, Copy)]
pub struct HostClock {
    /// When the world began.
    pub epoch: Instant,
    /// How long the host has slept.
    pub suspended_for: Duration,
    /// Seconds by which its wall clock is ahead.
    pub ahead: i64,
}

impl HostClock {
    /// Both, as a node is told them.
    pub fn at(&self, now: Moment) -> Now {
        let unix = UnixTime(UNIX.0 + now.as_secs());
        Now {
            instant: self.epoch + now.saturating_sub(self.suspended_for),
            unix: UnixTime(unix.0.saturating_add_signed(self.ahead)),
        }
    }
}

/// One host.
pub struct Host {
    node: Node,
    clock: HostClock,
    disk: Disk,
    told_drops: String,
}

impl Host {
    /// Starts a node.
    pub fn start(start: Start, clock: HostClock, now: Moment) -> Self {
        let disk = Disk::of(&start);
        let node = Node::new(start, clock.at(now));
        Self {
            node: node.expect("the founder has just signed its certificate"),
            clock,
            disk,
            told_drops: String::new(),
        }
    }

    /// Starts anew with what the disk has; what the node had to say is lost.
    pub fn restart(&mut self, host: HostId, world: u64, now: Moment) {
        let start = founding::again(host, world, &self.disk);
        self.disk.starts += 1;
        let node = Node::new(start, self.now(now));
        self.node = node.expect("the certificate on the disk has not run out");
    }

    /// What the disk has of the registry is lost.
    pub fn lose_entries(&mut self) {
        self.disk.entries.clear();
    }

    // ---- time --------------------------------------------------------------------------------------------

    /// The host slept for so long.
    pub fn slept(&mut self, span: Duration) {
        self.clock.suspended_for += span;
    }

    /// The host's own monotonic clock.
    pub fn local(&self, now: Moment) -> Moment {
        now.saturating_sub(self.clock.suspended_for)
    }

    fn now(&self, now: Moment) -> Now {
        self.clock.at(now)
    }

    /// When the node wants to be woken.
    pub fn next_wake(&self) -> Moment {
        self.node
            .poll_timeout()
            .saturating_duration_since(self.clock.epoch)
            + self.clock.suspended_for
    }

    /// Wakes the node.
    pub fn wake(&mut self, now: Moment) {
        let now = self.now(now);
        if now.instant >= self.node.poll_timeout() {
            self.node.handle_timeout(now);
        }
    }

    // ---- packets and datagrams ---------------------------------------------------------------------------

    /// An application sends.
    pub fn packet(&mut self, packet: &[u8], now: Moment) {
        let now = self.now(now).instant;
        self.node.handle_overlay_packet(packet, now);
    }

    /// A WireGuard datagram arrives on the UDP socket.
    pub fn datagram(&mut self, from: SocketAddrV4, datagram: &[u8], now: Moment) {
        let now = self.now(now).instant;
        self.node
            .handle_datagram(Path::Direct(from.into()), datagram, now);
    }

    /// A WireGuard datagram arrives on a carrier stream.
    pub fn frame(&mut self, on: ConnectionNumber, datagram: &[u8], now: Moment) {
        let now = self.now(now).instant;
        self.node
            .handle_datagram(Path::Carrier(ConnectionId(on)), datagram, now);
    }

    // ---- the swarm's events ------------------------------------------------------------------------------

    /// A connection came up.
    pub fn opened(&mut self, connection: ConnectionNumber, peer: PeerId, way: Way, now: Moment) {
        let now = self.now(now);
        self.node
            .handle_connection_opened(ConnectionId(connection), peer, link(way), now);
    }

    /// The other end shows its record.
    pub fn credential(
        &mut self,
        connection: ConnectionNumber,
        peer: PeerId,
        record: &[u8],
        now: Moment,
    ) {
        let now = self.now(now);
        self.node
            .handle_credential(ConnectionId(connection), peer, record, now);
    }

    /// Both ends are members.
    pub fn authenticated(&mut self, connection: ConnectionNumber, now: Moment) {
        let now = self.now(now);
        self.node
            .handle_authenticated(ConnectionId(connection), now);
    }

    /// The carrier stream is up.
    pub fn carrier_opened(&mut self, connection: ConnectionNumber, now: Moment) {
        let now = self.now(now);
        self.node
            .handle_carrier_opened(ConnectionId(connection), now);
    }

    /// The other end has moved.
    pub fn moved(&mut self, connection: ConnectionNumber, way: Way, now: Moment) {
        let now = self.now(now);
        self.node
            .handle_connection_moved(ConnectionId(connection), link(way), now);
    }

    /// A connection is gone.
    pub fn closed(&mut self, connection: ConnectionNumber, now: Moment) {
        let now = self.now(now);
        self.node
            .handle_connection_closed(ConnectionId(connection), now);
    }

    /// Nobody answered at any address.
    pub fn dial_failed(&mut self, peer: &PeerId, now: Moment) {
        let now = self.now(now);
        self.node.handle_dial_failed(peer, now);
    }

    /// mDNS found somebody.
    pub fn discovered(&mut self, peer: PeerId, address: SocketAddrV4, now: Moment) {
        let now = self.now(now);
        self.node
            .handle_discovered(peer, listening_at(address), now);
    }

    /// A member asks.
    pub fn sync_request(&mut self, request: u64, peer: PeerId, body: &[u8], now: Moment) {
        let now = self.now(now);
        self.node
            .handle_sync_request(RequestId(request), peer, body, now);
    }

    /// A member answers.
    pub fn sync_answer(&mut self, peer: PeerId, body: &[u8], now: Moment) {
        let now = self.now(now);
        self.node.handle_sync_answer(peer, body, now);
    }

    /// A question was lost.
    pub fn sync_failed(&mut self, peer: PeerId, now: Moment) {
        let now = self.now(now);
        self.node.handle_sync_failed(peer, now);
    }

    /// The DHT found a record.
    pub fn found(&mut self, record: &[u8], now: Moment) {
        let now = self.now(now);
        self.node.handle_found_record(record, now);
    }

    /// Somebody asks to join.
    pub fn join_request(&mut self, joiner: PeerId, body: &[u8], now: Moment) {
        let now = self.now(now);
        self.node
            .handle_join_request(RequestId(JOIN), joiner, body, now);
    }

    /// Where we are reached: at our own address, where others see us, through relays.
    pub fn reached_at(
        &mut self,
        own: SocketAddrV4,
        observed: &[SocketAddrV4],
        relays: &[(SocketAddrV4, PeerId)],
        is_public: bool,
        now: Moment,
    ) {
        let mut addresses = listening_at(own);
        for (relay, peer) in relays {
            let through = quic_at(*relay)
                .with(Protocol::P2p(*peer))
                .with(Protocol::P2pCircuit);
            addresses.push(through);
        }
        for endpoint in observed {
            let address = quic_at(*endpoint);
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let kinds = std::iter::once((CandidateKind::Host, &own))
            .chain(observed.iter().map(|seen| (CandidateKind::Reflexive, seen)));
        let mut candidates: Vec<Candidate> = Vec::new();
        for (kind, endpoint) in kinds {
            let endpoint = SocketAddr::V4(*endpoint);
            if candidates.iter().all(|known| known.endpoint != endpoint) {
                candidates.push(Candidate { kind, endpoint });
            }
        }
        let reach = Reach {
            addresses,
            candidates,
            relays: is_public,
            is_seen: is_public || !observed.is_empty(),
        };
        let now = self.now(now);
        self.node.handle_reach(reach, now);
    }

    /// The operating system says that addresses or routes changed, or the shell saw that the host had slept.
    pub fn network_changed(&mut self, now: Moment) {
        let now = self.now(now);
        self.node.handle_network_change(now);
    }

    // ---- what comes out ----------------------------------------------------------------------------------

    /// Takes out everything that the node has to say.
    pub fn drain(&mut self, now: Moment) -> Drained {
        // Only looking makes the core dial anew whom no path answers any more.
        let instant = self.now(now).instant;
        let mut drained = Drained::default();
        while let Some(moved) = self.node.poll_moved(instant) {
            let peer = moved.member.peer_id;
            drained.moved.push((peer, moved.path.map(|view| view.path)));
        }
        while let Some(output) = self.node.poll_output() {
            self.disk.keep(&output);
            drained.orders.extend(order(output));
        }
        for (path, datagram) in self.node.outbox().datagrams() {
            drained.datagrams.extend(exit(path, datagram));
        }
        self.node.outbox().clear();
        let inbox = self.node.inbox();
        drained.packets = inbox.iter().map(<[u8]>::to_vec).collect();
        inbox.clear();
        drained
    }

    /// The founder's node, to make invites with.
    pub fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Both clocks, as the node is told them.
    pub fn clocks(&self, now: Moment) -> Now {
        self.now(now)
    }

    // ---- looking -----------------------------------------------------------------------------------------

    /// Who it is.
    pub fn peer_id(&self) -> PeerId {
        self.node.peer_id()
    }

    /// Its overlay address.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.node.ipv4()
    }

    /// How many members it knows, itself included.
    pub fn members(&self) -> usize {
        self.node.members().len()
    }

    /// How each peer is reached, by its identity, as far as a proven path leads there.
    pub fn paths(&self) -> Vec<(PeerId, Option<PeerPath>)> {
        let peers = self.node.peers().into_iter();
        let path = |peer: hivevpn_core::node::PeerStatus| {
            let path = peer.path.map(|view| PeerPath {
                path: view.path,
                kind: view.kind.name(),
            });
            (peer.member.peer_id, path)
        };
        peers.map(path).collect()
    }

    /// How many packets and datagrams the core has dropped.
    pub fn drops(&self) -> u64 {
        self.node.drops().iter().map(|(_, count)| count).sum()
    }

    /// The same by reason, for people, if it has changed since the last call.
    pub fn new_drops(&mut self) -> Option<String> {
        let counts = self.node.drops().iter();
        let texts: Vec<_> = counts
            .map(|(why, count)| format!("{why} {count}"))
            .collect();
        let text = texts.join(", ");
        (text != self.told_drops).then(|| {
            self.told_drops.clone_from(&text);
            text
        })
    }
}

fn link(way: Way) -> Link {
    match way {
        Way::Quic(endpoint) => Link::Quic(endpoint.into()),
        Way::Tcp(endpoint) => Link::Tcp(endpoint.into()),
        Way::Circuit(relay) => Link::Relayed { relay },
    }
}

fn exit(path: Path, datagram: &[u8]) -> Option<(Exit, Vec<u8>)> {
    let to = match path {
        Path::Direct(SocketAddr::V4(to))
        | Path::Relayed {
            via: SocketAddr::V4(to),
            ..
        } => Exit::Udp(to),
        // No host of this world has an IPv6 socket.
        Path::Direct(SocketAddr::V6(_))
        | Path::Relayed {
            via: SocketAddr::V6(_),
            ..
        } => return None,
        Path::Carrier(ConnectionId(connection)) => Exit::Carrier(connection),
    };
    Some((to, datagram.to_vec()))
}

fn order(output: Output) -> Option<Order> {
    Some(match output {
        Output::Dial {
            peer,
            addresses,
            even_if_connected,
        } => Order::Dial {
            peer,
            addresses: addresses.iter().filter_map(address).collect(),
            even_if_connected,
        },
        Output::Close(ConnectionId(connection)) => Order::Close(connection),
        Output::Admit(ConnectionId(connection)) => Order::Judge(connection, true),
        Output::Refuse {
            connection: ConnectionId(connection),
            ..
        } => Order::Judge(connection, false),
        Output::Introduce(record) => Order::Introduce(record),
        Output::Sync { peer, body } => Order::Sync(peer, body),
        Output::Respond { request, body } => Order::Respond(request.0, body),
        // The disk never fails here.
        Output::Redeem {
            request, accepted, ..
        } => Order::Respond(request.0, accepted),
        Output::Relays(relays) => Order::Relays(relays.into_iter().map(|(peer, _)| peer).collect()),
        Output::Publish { key, record } => Order::Publish(key, record),
        Output::Lookup { key } => Order::Lookup(key),
        Output::Registry { peer, body } => Order::Registry(peer, body),
        Output::PublishEntry { slot, sealed } => Order::PublishEntry(slot, sealed),
        Output::LookupEntry { slot } => Order::LookupEntry(slot),
        Output::SaveRecord { .. }
        | Output::ForgetRecord(_)
        | Output::SaveNotice { .. }
        | Output::ForgetNotice(_)
        | Output::AskRenewal { .. }
        | Output::Standing(_)
        | Output::PolicyChanged(_)
        | Output::Departed(_)
        | Output::SaveDescriptorSeq(_)
        | Output::SaveTimeFloor(_)
        | Output::SaveCredential(_)
        | Output::SetIpv4(_)
        | Output::SaveEntry { .. }
        | Output::ForgetEntry { .. } => return None,
    })
}

/// Reads the addresses that this world can have.
fn address(address: &Multiaddr) -> Option<Address> {
    let (mut ip, mut port, mut is_quic, mut relay) = (None, None, false, None);
    for part in address.iter() {
        if let Protocol::Ip4(host) = part {
            ip = Some(host);
        } else if let Protocol::Udp(number) | Protocol::Tcp(number) = part {
            port = Some(number);
        } else if part == Protocol::QuicV1 {
            is_quic = true;
        } else if let Protocol::P2p(peer) = part {
            relay.get_or_insert(peer);
        } else if part == Protocol::P2pCircuit {
            return Some(Address::Circuit(relay?));
        }
    }
    let endpoint = SocketAddrV4::new(ip?, port?);
    Some(if is_quic {
        Address::Quic(endpoint)
    } else {
        Address::Tcp(endpoint)
    })
}

fn quic_at(endpoint: SocketAddrV4) -> Multiaddr {
    Multiaddr::from(IpAddr::from(*endpoint.ip()))
        .with(Protocol::Udp(endpoint.port()))
        .with(Protocol::QuicV1)
}

fn listening_at(endpoint: SocketAddrV4) -> Vec<Multiaddr> {
    let tcp = Multiaddr::from(IpAddr::from(*endpoint.ip())).with(Protocol::Tcp(endpoint.port()));
    vec![quic_at(endpoint), tcp]
}
