//! Every tunnel of this node and the walks of packets through them.
//!
//! **Outbound:** [`Tunnels::handle_overlay_packet`] → who owns the destination? → does its path carry that much? → its
//! session seals → its path chooses → [`outbox`](Tunnels::outbox).
//! **Inbound:** [`Tunnels::handle_datagram`] → which session? → it opens → the path was heard of → does the
//! sender own the source? → [`inbox`](Tunnels::inbox).
//!
//! A packet or datagram that goes no further is counted under its [`DropReason`] and never ends a batch.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::{
    allowed_ips::AllowedIps,
    batch::{DatagramBatch, PacketBatch},
    connection::ConnectionId,
    datagram::WireGuardDatagram,
    drop_reason::{DropReason, Drops},
    icmp,
    ip_packet::IpPacket,
    mss,
    path::{Path, PathKind, PathView, probe::Probe},
    peer::{Peer, PeerIndex, PeerKeys, Sealing},
    peers::Peers,
    schedule::Schedule,
    session::{Identity, MIN_BUFFER, Opened},
};

mod timers;
mod too_big;

/// Timers run at most this much late, and wake the node at most this often, however many peers there are.
const GRAIN: Duration = Duration::from_millis(250);
/// The handshake limiter counts per second, and insists on a whole one by a clock that we do not see.
const LIMITER_PERIOD: Duration = Duration::from_millis(1100);
/// First byte of transport data (whitepaper §5.4.6).
const TRANSPORT_DATA: u8 = 4;
/// Pings of people that may be under way at once.
const MAX_PINGS: usize = 256;

/// Our own overlay addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayAddresses {
    /// From our certificate, unless an older member holds it.
    pub ipv4: Option<Ipv4Addr>,
    /// Self-certifying.
    pub ipv6: Ipv6Addr,
}

impl OverlayAddresses {
    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4 == Some(address),
            IpAddr::V6(address) => self.ipv6 == address,
        }
    }
}

/// An answered ping of [`Tunnels::ping`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingAnswer {
    /// What the caller named it.
    pub token: u64,
    /// Who answered.
    pub peer: PeerId,
    /// By which path.
    pub path: PathView,
    /// There and back.
    pub round_trip: Duration,
}

struct UserPing {
    token: u64,
    peer: PeerIndex,
    sent: Option<(Instant, PathView)>,
}

/// All tunnels with what they share.
pub struct Tunnels {
    us: OverlayAddresses,
    identity: Identity,
    mtu: usize,
    peers: Peers,
    allowed_ips: AllowedIps<PeerIndex>,
    carriers: HashMap<ConnectionId, PeerIndex>,
    outbox: DatagramBatch,
    inbox: PacketBatch,
    scratch: Vec<u8>,
    /// A packet that could not stay as it came.
    rewritten: Vec<u8>,
    icmp_budget: icmp::Budget,
    drops: Drops,
    rng: fastrand::Rng,
    pings: BTreeMap<u64, UserPing>,
    answers: Vec<PingAnswer>,
    schedule: Schedule<PeerIndex>,
    /// Only while handshakes come in.
    next_limiter_reset: Option<Instant>,
}

impl Tunnels {
    /// No peers yet. `seed` feeds jitter and session indexes, nothing secret.
    pub fn new(
        us: OverlayAddresses,
        identity: Identity,
        mtu: u16,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            us,
            identity,
            mtu: mtu.into(),
            peers: Peers::new(mtu),
            allowed_ips: AllowedIps::default(),
            carriers: HashMap::new(),
            outbox: DatagramBatch::default(),
            inbox: PacketBatch::default(),
            scratch: Vec::new(),
            rewritten: Vec::new(),
            icmp_budget: icmp::Budget::new(now),
            drops: Drops::default(),
            rng: fastrand::Rng::with_seed(seed),
            pings: BTreeMap::new(),
            answers: Vec::new(),
            schedule: Schedule::new(now, GRAIN),
            next_limiter_reset: None,
        }
    }

    // ---- peers -------------------------------------------------------------------------------------------

    /// Adds a peer, or brings its addresses up to date. A new WireGuard key means a new tunnel; paths that
    /// connections vouch for must then be opened again.
    pub fn upsert(&mut self, keys: PeerKeys) {
        let known = self.peers.index_of(&keys.id);
        if let Some(index) = known
            && let Some(peer) = self.peers.get_mut(index)
        {
            if *peer.keys() == keys {
                return;
            }
            if peer.keys().key == keys.key && peer.keys().ipv6 == keys.ipv6 {
                peer.set_addresses(keys.ipv4);
                self.allowed_ips.remove_owner(index);
            } else {
                self.remove(&keys.id);
            }
        }
        let rng = &mut self.rng;
        let index = match self.peers.index_of(&keys.id) {
            Some(index) => Some(index),
            None => self.peers.add(keys, &self.identity, || rng.u32(..)),
        };
        let Some(index) = index else { return };
        self.allowed_ips
            .insert(IpAddr::from(keys.ipv6).into(), index);
        if let Some(ipv4) = keys.ipv4 {
            self.allowed_ips.insert(IpAddr::from(ipv4).into(), index);
        }
    }

    /// Forgets a peer: its live flows end with this call.
    pub fn remove(&mut self, id: &PeerId) {
        let Some(index) = self.peers.remove(id) else {
            return;
        };
        self.allowed_ips.remove_owner(index);
        self.schedule.set(index, None);
        self.carriers.retain(|_, owner| *owner != index);
        self.pings.retain(|_, ping| ping.peer != index);
    }

    /// The peer with this identity.
    pub fn peer(&self, id: &PeerId) -> Option<&Peer> {
        self.peers.get(self.peers.index_of(id)?)
    }

    /// Our addresses; they change when a conflict over the IPv4 address is resolved.
    pub fn set_addresses(&mut self, us: OverlayAddresses) {
        self.us = us;
    }

    // ---- paths -------------------------------------------------------------------------------------------

    /// Something outside vouches for a path to this peer. A first path starts the handshake, so that the
    /// first packet finds a session.
    pub fn open_path(&mut self, id: &PeerId, path: Path, kind: PathKind, now: Instant) {
        let Some(index) = self.peers.index_of(id) else {
            return;
        };
        if let Path::Carrier(connection) = path {
            self.carriers.insert(connection, index);
        }
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.paths_mut().open(path, kind, true);
        if !peer.session().can_seal() {
            peer.initiate(&mut self.outbox);
        }
        self.tick_peer(index, now);
    }

    /// Tries whether raw datagrams reach the peer at this endpoint. If it tries ours at the same time, our probes open
    /// the NATs for each other; if nothing comes back the path is forgotten.
    pub fn try_endpoint(&mut self, id: &PeerId, endpoint: SocketAddr, now: Instant) {
        let Some(index) = self.peers.index_of(id) else {
            return;
        };
        if self.is_overlay(endpoint.ip()) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            let path = Path::Direct(endpoint);
            peer.paths_mut().open(path, PathKind::Direct, false);
            if !peer.session().can_seal() {
                peer.initiate(&mut self.outbox);
            }
        }
        self.tick_peer(index, now);
    }

    /// Whether somebody's overlay address is at this endpoint: a tunnel must not run through itself.
    fn is_overlay(&self, ip: IpAddr) -> bool {
        self.us.contains(ip) || self.allowed_ips.owner(ip).is_some()
    }

    /// What vouched for the path is gone.
    pub fn close_path(&mut self, id: &PeerId, path: Path, now: Instant) {
        if let Path::Carrier(connection) = path {
            self.carriers.remove(&connection);
        }
        let Some(index) = self.peers.index_of(id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().close(path);
        }
        self.tick_peer(index, now);
    }

    /// Asks `id` for a sign of life by the path in use; [`poll_ping`](Self::poll_ping) tells when it came.
    /// Returns whether the peer is known.
    pub fn ping(&mut self, id: &PeerId, token: u64, now: Instant) -> bool {
        let Some(index) = self.peers.index_of(id) else {
            return false;
        };
        while self.pings.len() >= MAX_PINGS {
            self.pings.pop_first();
        }
        let number = self.rng.u64(..);
        self.pings.insert(
            number,
            UserPing {
                token,
                peer: index,
                sent: None,
            },
        );
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().active(now);
            if !peer.session().can_seal() {
                peer.initiate(&mut self.outbox);
            }
        }
        self.tick_peer(index, now);
        true
    }

    /// The next answered ping.
    pub fn poll_ping(&mut self) -> Option<PingAnswer> {
        self.answers.pop()
    }

    // ---- packets -----------------------------------------------------------------------------------------

    /// A packet from the overlay interface, on its way to the peer that owns its destination.
    ///
    /// Returns the owner when a path to it has yet to be found, so that the caller can look for one.
    pub fn handle_overlay_packet(&mut self, packet: &[u8], now: Instant) -> Option<PeerId> {
        match self.send_packet(packet, now) {
            Ok(wanted) => wanted,
            Err(reason) => {
                self.drops.count(reason);
                None
            }
        }
    }

    fn send_packet(&mut self, bytes: &[u8], now: Instant) -> Result<Option<PeerId>, DropReason> {
        let packet = IpPacket::parse(bytes).ok_or(DropReason::NotIp)?;
        if !self.us.contains(packet.source()) {
            return Err(DropReason::ForeignSource);
        }
        let destination = packet.destination();
        if destination.is_multicast() {
            return Err(DropReason::Multicast);
        }
        let index = self
            .allowed_ips
            .owner(destination)
            .ok_or(DropReason::NoOwner)?;
        let mut peer = self.peers.get_mut(index).ok_or(DropReason::NoOwner)?;
        if peer.is_stale(now) {
            self.tick_peer(index, now);
            peer = self.peers.get_mut(index).ok_or(DropReason::NoOwner)?;
        }
        let is_at_rest = peer.is_at_rest();
        let wanted = peer.paths().current().is_none().then_some(peer.keys().id);
        let mtu = peer.paths().mtu();
        let sent = if packet.bytes().len() > mtu.into() {
            self.send_too_big(index, &packet, mtu, now)
        } else {
            let packet = mss::clamped(packet.bytes(), mtu, &mut self.rewritten);
            let mut sealing = Sealing {
                outbox: &mut self.outbox,
                scratch: &mut self.scratch,
                mtu: self.mtu,
            };
            peer.send(packet, &mut sealing, now)
        };
        if is_at_rest {
            self.rouse(index, now);
        }
        if let Err(reason) = sent {
            self.drops.count(reason);
        }
        Ok(wanted)
    }

    /// A datagram from the underlay that came by `from`. The path is believed only after the session opened it.
    pub fn handle_datagram(&mut self, from: Path, datagram: &[u8], now: Instant) {
        if let Err(reason) = self.receive_datagram(from, datagram, now) {
            self.drops.count(reason);
        }
    }

    fn receive_datagram(
        &mut self,
        from: Path,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let index = self.addressee(from, datagram, now)?;
        let is_handshake = datagram.first() != Some(&TRANSPORT_DATA);
        let mut peer = self
            .peers
            .get_mut(index)
            .ok_or(DropReason::UnknownSession)?;
        if is_handshake || peer.is_stale(now) {
            // boringtun's "now" moves only when its timers run: without this, a tunnel that slept takes a fresh
            // handshake for an expired one. What its timers send goes by our own paths, never to this sender.
            self.tick_peer(index, now);
            peer = self
                .peers
                .get_mut(index)
                .ok_or(DropReason::UnknownSession)?;
        }
        let had_keys = peer.session().can_seal();
        let outbox = &mut self.outbox;
        let slot = self.inbox.slot(datagram.len().max(MIN_BUFFER));
        let opened = peer
            .session_mut()
            .open(source_address(from), datagram, slot, |reply| {
                outbox.push(from, reply)
            })?;
        let gained_keys = !had_keys && peer.session().can_seal();
        if !peer.paths().knows(from) {
            self.hear_from(index, from, now);
        }
        if gained_keys {
            self.tick_peer(index, now);
        } else if is_handshake {
            self.rouse(index, now);
        }
        match opened {
            Opened::Handshake | Opened::Keepalive => Ok(()),
            Opened::Packet(length) => self.accept_packet(index, from, length, now),
        }
    }

    /// An authentic datagram came by a path that is new to us.
    fn hear_from(&mut self, index: PeerIndex, from: Path, now: Instant) {
        if source_address(from).is_some_and(|ip| self.is_overlay(ip)) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().heard(from);
        }
        self.rouse(index, now);
    }

    /// Which peer a datagram claims to be for, by what it says and by the carrier it came by.
    fn addressee(
        &mut self,
        from: Path,
        datagram: &[u8],
        now: Instant,
    ) -> Result<PeerIndex, DropReason> {
        let kind = WireGuardDatagram::parse(datagram).ok_or(DropReason::Malformed)?;
        if !matches!(kind, WireGuardDatagram::TransportData { .. }) {
            let reset = now + LIMITER_PERIOD;
            self.next_limiter_reset.get_or_insert(reset);
        }
        let index = match kind {
            WireGuardDatagram::Initiation => {
                let outbox = &mut self.outbox;
                let key = self
                    .identity
                    .initiator(source_address(from), datagram, |cookie| {
                        outbox.push(from, cookie)
                    })?;
                self.peers
                    .index_of_key(&key)
                    .ok_or(DropReason::UnknownPeer)?
            }
            WireGuardDatagram::Response { receiver }
            | WireGuardDatagram::CookieReply { receiver }
            | WireGuardDatagram::TransportData { receiver } => PeerIndex::of_receiver(receiver),
        };
        match from {
            // A carrier ends at one authenticated peer: it has nothing to say for another.
            Path::Carrier(connection) if self.carriers.get(&connection) != Some(&index) => {
                Err(DropReason::Unauthentic)
            }
            Path::Carrier(_) | Path::Direct(_) => Ok(index),
        }
    }

    /// The packet that a session just opened into the inbox's slot.
    fn accept_packet(
        &mut self,
        index: PeerIndex,
        from: Path,
        length: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        let peer = self
            .peers
            .get_mut(index)
            .ok_or(DropReason::UnknownSession)?;
        let packet =
            IpPacket::parse(&self.inbox.slot(length)[..length]).ok_or(DropReason::InnerNotIp)?;
        if let Some(probe) = Probe::parse(&packet, peer.keys().ipv6, self.us.ipv6) {
            self.handle_probe(index, from, probe, now);
            return Ok(());
        }
        if self.allowed_ips.owner(packet.source()) != Some(index) {
            return Err(DropReason::ForgedSource);
        }
        if !self.us.contains(packet.destination()) {
            return Err(DropReason::NotForUs);
        }
        let length = packet.bytes().len();
        let is_at_rest = peer.is_at_rest();
        peer.received(length, now);
        mss::clamp(&mut self.inbox.slot(length)[..length], peer.paths().mtu());
        self.inbox.commit(length);
        if is_at_rest {
            self.rouse(index, now);
        }
        Ok(())
    }

    fn handle_probe(&mut self, index: PeerIndex, from: Path, probe: Probe, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        match probe {
            Probe::Ask(number) => {
                let mut sealing = Sealing {
                    outbox: &mut self.outbox,
                    scratch: &mut self.scratch,
                    mtu: self.mtu,
                };
                peer.probe(Probe::Answer(number), from, self.us.ipv6, &mut sealing);
            }
            Probe::Answer(number) => {
                if let Some(ping) = self.pings.remove(&number)
                    && let Some((sent, path)) = ping.sent
                {
                    self.answers.push(PingAnswer {
                        token: ping.token,
                        peer: peer.keys().id,
                        path,
                        round_trip: now.saturating_duration_since(sent),
                    });
                } else if let Some((path, round_trip)) = peer.paths_mut().pong(number, now) {
                    tracing::trace!(?path, ?round_trip, "path answered");
                    // The search for its MTU goes on at once.
                    self.tick_peer(index, now);
                }
            }
        }
    }

    // ---- time --------------------------------------------------------------------------------------------

    fn send_pings(&mut self, index: PeerIndex, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let Some(path) = peer.paths().view().filter(|_| peer.session().can_seal()) else {
            return;
        };
        for (number, ping) in &mut self.pings {
            if ping.peer == index && ping.sent.is_none() {
                ping.sent = Some((now, path));
                let mut sealing = Sealing {
                    outbox: &mut self.outbox,
                    scratch: &mut self.scratch,
                    mtu: self.mtu,
                };
                peer.probe(Probe::Ask(*number), path.path, self.us.ipv6, &mut sealing);
            }
        }
    }

    // ---- what comes out ----------------------------------------------------------------------------------

    /// Sealed datagrams that must leave now. The shell sends and clears them.
    pub fn outbox(&mut self) -> &mut DatagramBatch {
        &mut self.outbox
    }

    /// Opened packets for the overlay interface. The shell writes and clears them.
    pub fn inbox(&mut self) -> &mut PacketBatch {
        &mut self.inbox
    }

    /// One of several, by the same generator that jitters the timers.
    pub fn choose<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        self.rng.choice(from).copied()
    }

    /// Leaves at most `count` of them, by the same generator.
    pub fn choose_some<T>(&mut self, from: &mut Vec<T>, count: usize) {
        for at in 0..count.min(from.len()) {
            let other = self.rng.usize(at..from.len());
            from.swap(at, other);
        }
        from.truncate(count);
    }

    /// What went no further, and why.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }
}

/// The address that cookies are bound to. A carrier has none, and gets one out of the discard prefix (RFC 6666), so
/// that its peer can answer a cookie like any other when strangers flood us with handshakes.
fn source_address(path: Path) -> Option<IpAddr> {
    match path {
        Path::Direct(endpoint) => Some(endpoint.ip()),
        Path::Carrier(ConnectionId(number)) => {
            Some(Ipv6Addr::from_bits((0x100 << 112) | u128::from(number)).into())
        }
    }
}

#[cfg(test)]
mod tests;
