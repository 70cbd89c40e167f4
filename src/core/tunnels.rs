//! Every tunnel of this node and the walks of packets through them.
//!
//! **Outbound:** [`Tunnels::handle_overlay_packet`] → who owns the destination? → would its policy let the packet in? →
//! does its path carry that much? → its session seals → its path chooses → [`outbox`](Tunnels::outbox).
//! **Inbound:** [`Tunnels::handle_datagram`] → which session? → it opens → the path was heard of → does the
//! sender own the source? → does the policy let it in? → [`inbox`](Tunnels::inbox).
//!
//! A packet or datagram that goes no further is counted under its [`DropReason`] and never ends a batch.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::{
    allowed_ips::AllowedIps,
    batch::{DatagramBatch, PacketBatch},
    connection::ConnectionId,
    datagram::{INITIATION, RESPONSE, TRANSPORT_DATA},
    drop_reason::{DropReason, Drops},
    icmp,
    ip_packet::IpPacket,
    mss,
    path::{Path, PathKind, candidate::Candidate},
    peer::{Peer, PeerIndex, PeerKeys, Sealing, sessions::Slot},
    peers::Peers,
    policy::{Filter, Guard, Subject},
    relay,
    schedule::Schedule,
    session::{Identity, MIN_BUFFER, Opened},
    signal::Signal,
    tunnel_key::Keyring,
};

mod addressee;
mod filtering;
mod observed;
mod pings;
mod relaying;
mod signals;
mod timers;
mod too_big;

use addressee::source_address;
use observed::Observed;
pub use pings::PingAnswer;
use pings::Pings;

/// Timers run at most this much late, and wake the node at most this often, however many peers there are.
const GRAIN: Duration = Duration::from_millis(250);
/// After a change of the network, peers that nothing flows to are looked at within this many milliseconds.
const SPREAD_MS: u64 = 2000;

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

/// All tunnels with what they share.
pub struct Tunnels {
    us: OverlayAddresses,
    peers: Peers,
    filter: Filter,
    allowed_ips: AllowedIps<PeerIndex>,
    carriers: HashMap<ConnectionId, PeerIndex>,
    sealing: Sealing,
    inbox: PacketBatch,
    /// A packet that could not stay as it came.
    rewritten: Vec<u8>,
    icmp_budget: icmp::Budget,
    drops: Drops,
    rng: fastrand::Rng,
    pings: Pings,
    /// Where we may be reached, as the shell knows it.
    own: Vec<Candidate>,
    /// The same with what peers see us as: what they are told.
    told: Vec<Candidate>,
    observed: Observed,
    /// Peers whose path changed.
    moved: Vec<PeerId>,
    /// The members that offer to relay.
    relays: Vec<PeerIndex>,
    lines: relay::Lines,
    switchboard: Option<relay::Switchboard>,
    schedule: Schedule<PeerIndex>,
    /// Only while handshakes come in.
    next_limiter_reset: Option<Instant>,
}

impl Tunnels {
    /// No peers yet. `seed` feeds jitter and session indexes, nothing secret.
    pub fn new(us: OverlayAddresses, keyring: Keyring, mtu: u16, seed: u64, now: Instant) -> Self {
        Self {
            us,
            peers: Peers::new(mtu),
            filter: Filter::default(),
            allowed_ips: AllowedIps::default(),
            carriers: HashMap::new(),
            sealing: Sealing {
                keyring,
                outbox: DatagramBatch::default(),
                scratch: Vec::new(),
                mtu: mtu.into(),
            },
            inbox: PacketBatch::default(),
            rewritten: Vec::new(),
            icmp_budget: icmp::Budget::new(now),
            drops: Drops::default(),
            rng: fastrand::Rng::with_seed(seed),
            pings: Pings::default(),
            own: Vec::new(),
            told: Vec::new(),
            observed: Observed::default(),
            moved: Vec::new(),
            relays: Vec::new(),
            lines: relay::Lines::default(),
            switchboard: None,
            schedule: Schedule::new(now, GRAIN),
            next_limiter_reset: None,
        }
    }

    // ---- peers -------------------------------------------------------------------------------------------

    /// Adds a peer, or brings its addresses up to date. A new WireGuard key means a new tunnel; paths that
    /// connections vouch for must then be opened again; the flows go on.
    pub fn upsert(&mut self, keys: PeerKeys) {
        let mut guard = None;
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
                guard = self.take_out(&keys.id);
            }
        }
        let rng = &mut self.rng;
        let index = match self.peers.index_of(&keys.id) {
            Some(index) => Some(index),
            None => {
                let guard = guard.unwrap_or_else(|| Guard::new(Subject::unknown(keys.id)));
                self.peers.add(keys, guard, || rng.u32(..))
            }
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
        if let Some(mut guard) = self.take_out(id) {
            guard.leave(&mut self.filter);
        }
    }

    fn take_out(&mut self, id: &PeerId) -> Option<Guard> {
        let (index, guard) = self.peers.remove(id)?;
        self.allowed_ips.remove_owner(index);
        self.schedule.set(index, None);
        self.carriers.retain(|_, owner| *owner != index);
        self.pings.forget(index);
        self.observed.forget(index);
        self.relays.retain(|relay| *relay != index);
        self.lines.remove(index);
        if let Some(switchboard) = &mut self.switchboard {
            switchboard.remove(index);
        }
        Some(guard)
    }

    /// Another key of ours, for the tunnels that are made from now on.
    pub fn set_identity(&mut self, identity: Identity) {
        self.sealing.keyring.set_identity(identity);
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
        peer.paths_mut().open(path, kind, now);
        if !peer.can_carry() {
            peer.initiate(&mut self.sealing, now);
        }
        self.tick_peer(index, now);
    }

    /// The peer may be reached there: an attempt follows as soon as there is a session.
    pub fn learn(&mut self, id: &PeerId, candidate: Candidate, now: Instant) {
        let Some(index) = self.peers.index_of(id) else {
            return;
        };
        if self.is_overlay(candidate.endpoint.ip()) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().learn(candidate, now);
        }
        self.rouse(index, now);
    }

    /// The peer is there, as a connection shows, or is wanted: its candidates are tried soon, unless a direct path is in
    /// use.
    pub fn look_for(&mut self, id: &PeerId, now: Instant) {
        let Some(index) = self.peers.index_of(id) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(index)
            && !peer.paths().is_direct()
        {
            peer.paths_mut().restart_attempts(now);
        }
        self.rouse(index, now);
    }

    /// A packet waits for a path to this peer: perhaps it is still where it was, or a relay reaches it.
    fn seek(&mut self, index: PeerIndex, now: Instant) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().seek(now);
        }
        self.look_for_relays(index, now);
        self.rouse(index, now);
    }

    /// The network below may have changed, or we slept: every path shows whether it still works, and every peer is
    /// called. Those that packets flow to come first; the others follow within a moment, so that a router is not stormed.
    pub fn suspect_all(&mut self, now: Instant) {
        for index in self.peers.indexes() {
            let Some(peer) = self.peers.get_mut(index) else {
                continue;
            };
            peer.paths_mut().suspect(now);
            if peer.paths().is_active(now) {
                // The peer may have given up our keys while we were away.
                peer.initiate(&mut self.sealing, now);
                self.tick_peer(index, now);
            } else {
                let pause = Duration::from_millis(self.rng.u64(..SPREAD_MS));
                self.schedule
                    .hasten(index, self.schedule.coarse(now + pause));
            }
        }
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
            peer.paths_mut().close(path, now);
        }
        self.tick_peer(index, now);
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
        if let Err(denial) = peer.guard_mut().release(&packet, &mut self.filter, now) {
            self.answer_refused(&packet, denial, now);
            return Err(denial.reason);
        }
        let is_at_rest = peer.is_at_rest();
        let wanted = peer.paths().current().is_none().then_some(peer.keys().id);
        let mtu = peer.paths().mtu();
        let sent = if packet.bytes().len() > mtu.into() {
            self.send_too_big(index, &packet, mtu, now)
        } else {
            let packet = mss::clamped(packet.bytes(), mtu, &mut self.rewritten);
            peer.send(packet, &mut self.sealing, now)
        };
        if wanted.is_some() {
            self.seek(index, now);
        } else if is_at_rest {
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
        if let (Path::Direct(endpoint), Some((channel, inner))) = (from, relay::split(datagram)) {
            return self.receive_relayed(endpoint, channel, inner, datagram, now);
        }
        let (index, session) = self.addressee(from, datagram, now)?;
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
        let is_initiation = datagram.first() == Some(&INITIATION);
        if is_initiation && !peer.may_answer(session, datagram, &self.sealing, now) {
            self.rouse(index, now);
            return Err(DropReason::Replayed);
        }
        let opening = peer
            .sessions()
            .get(session)
            .ok_or(DropReason::UnknownSession)?;
        let had_keys = opening.can_seal();
        // The copy of an initiation that came first may have come by a way that leads nowhere back.
        let also: Vec<_> = if !is_handshake {
            Vec::new()
        } else if had_keys && peer.paths().is_proven() {
            peer.paths().current().into_iter().collect()
        } else {
            peer.paths().all().collect()
        };
        let mut answers_handshake = false;
        let outbox = &mut self.sealing.outbox;
        let slot = self.inbox.slot(datagram.len().max(MIN_BUFFER));
        let opening = peer
            .sessions_mut()
            .get_mut(session)
            .ok_or(DropReason::UnknownSession)?;
        let opened = opening.open(source_address(from), datagram, slot, |reply| {
            outbox.push(from, reply);
            if reply.first() == Some(&RESPONSE) {
                answers_handshake = true;
                for path in also.iter().filter(|path| **path != from) {
                    outbox.push(*path, reply);
                }
            }
        })?;
        let gained_keys = !had_keys && opening.can_seal();
        if answers_handshake {
            peer.answered_handshake(session, datagram, now);
        }
        if !is_handshake {
            peer.sessions_mut().heard(session, now);
        }
        if !peer.paths().has_heard(from) {
            self.hear_from(index, from, now);
        }
        if gained_keys {
            self.tick_peer(index, now);
        } else if is_handshake {
            self.rouse(index, now);
        }
        match opened {
            Opened::Handshake | Opened::Keepalive => Ok(()),
            Opened::Packet(length) => self.accept_packet(index, session, from, length, now),
        }
    }

    /// An authentic datagram came by a path that is new to us.
    fn hear_from(&mut self, index: PeerIndex, from: Path, now: Instant) {
        if source_address(from).is_some_and(|ip| self.is_overlay(ip)) {
            return;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().heard(from, now);
        }
        self.rouse(index, now);
    }

    /// The packet that a session just opened into the inbox's slot.
    fn accept_packet(
        &mut self,
        index: PeerIndex,
        session: Slot,
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
        if let Some(signal) = Signal::parse(&packet) {
            let signal = signal.ok_or(DropReason::UnknownSignal)?;
            self.handle_signal(index, from, signal, now);
            return Ok(());
        }
        if session == Slot::GREETING {
            return Err(DropReason::Downgraded);
        }
        if self.allowed_ips.owner(packet.source()) != Some(index) {
            return Err(DropReason::ForgedSource);
        }
        if !self.us.contains(packet.destination()) {
            return Err(DropReason::NotForUs);
        }
        let length = packet.bytes().len();
        if let Err(denial) = peer.guard_mut().admit(&packet, &mut self.filter, now) {
            self.answer_denied(index, length, denial, now);
            return Err(denial.reason);
        }
        let is_at_rest = peer.is_at_rest();
        peer.received(length, now);
        mss::clamp(&mut self.inbox.slot(length)[..length], peer.paths().mtu());
        self.inbox.commit(length);
        if is_at_rest {
            self.rouse(index, now);
        }
        Ok(())
    }

    // ---- what comes out ----------------------------------------------------------------------------------

    /// Sealed datagrams that must leave now. The shell sends and clears them.
    pub fn outbox(&mut self) -> &mut DatagramBatch {
        &mut self.sealing.outbox
    }

    /// Bytes of the datagrams that carried signals to the peers there are.
    pub fn signal_bytes(&self) -> u64 {
        self.peers.iter().map(Peer::signal_bytes).sum()
    }

    /// The next peer that another path leads to now, or none.
    pub fn poll_moved(&mut self) -> Option<PeerId> {
        self.moved.pop()
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

#[cfg(test)]
mod tests;
