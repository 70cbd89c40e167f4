//! Datagrams passed on: by us for members, by members for us.

use std::{
    net::{Ipv6Addr, SocketAddr},
    time::Instant,
};

use libp2p_identity::PeerId;

use super::Tunnels;
use crate::{
    drop_reason::DropReason,
    path::{Path, PathKind},
    peer::PeerIndex,
    relay::{Channel, Switchboard, Terms},
    signal::Signal,
};

/// Channels that a peer is reached by at once: one may fail.
const WANTED: usize = 2;

impl Tunnels {
    // ---- the relay's half --------------------------------------------------------------------------------

    /// Passes datagrams on from now on, on these terms, or no longer.
    pub fn set_relaying(&mut self, terms: Option<Terms>, now: Instant) {
        match (&mut self.switchboard, terms) {
            (Some(switchboard), Some(terms)) => switchboard.set_terms(terms),
            (_, terms) => self.switchboard = terms.map(|terms| Switchboard::new(terms, now)),
        }
    }

    /// Bytes passed on between members so far.
    pub fn passed_on(&self) -> u64 {
        self.switchboard.as_ref().map_or(0, Switchboard::passed)
    }

    /// A peer wants a channel to another member.
    pub(super) fn handle_open(
        &mut self,
        index: PeerIndex,
        from: Path,
        member: Ipv6Addr,
        now: Instant,
    ) {
        match self.channel_between(index, member, now) {
            Some((channel, other)) => {
                self.signal(index, from, &Signal::Opened { member, channel });
                if let Some(caller) = self.peers.get(index).map(|peer| peer.keys().ipv6) {
                    let member = caller;
                    self.tell(other, &Signal::Opened { member, channel });
                }
            }
            None => self.signal(index, from, &Signal::Closed(member)),
        }
    }

    /// The channel between a peer and a member, if both are reached directly and the owner allows it.
    fn channel_between(
        &mut self,
        index: PeerIndex,
        member: Ipv6Addr,
        now: Instant,
    ) -> Option<(Channel, PeerIndex)> {
        let other = self.allowed_ips.owner(member.into())?;
        let (one, two) = (self.peers.get(index)?, self.peers.get(other)?);
        let switchboard = self.switchboard.as_mut()?;
        let is_reachable = one.paths().direct_endpoint().is_some()
            && two.paths().direct_endpoint().is_some()
            && index != other;
        if !is_reachable || !switchboard.terms().allow(&one.keys().id, &two.keys().id) {
            return None;
        }
        let rng = &mut self.rng;
        let channel = switchboard.open(index, other, now, || rng.u32(..))?;
        Some((channel, other))
    }

    /// A datagram with a channel before it: for us if the channel is one of ours, else to be passed on.
    pub(super) fn receive_relayed(
        &mut self,
        from: SocketAddr,
        channel: Channel,
        inner: &[u8],
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let path = Path::Relayed { via: from, channel };
        let is_ours = self
            .lines
            .with(channel)
            .filter_map(|(peer, _)| self.peers.get(peer))
            .any(|peer| peer.paths().knows(path));
        if is_ours {
            return self.receive_datagram(path, inner, now);
        }
        self.pass_on(from, channel, datagram, now)
    }

    /// Passes a datagram from one end of its channel to the other, if it came from where that end is known to be.
    fn pass_on(
        &mut self,
        from: SocketAddr,
        channel: Channel,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(), DropReason> {
        let switchboard = self
            .switchboard
            .as_mut()
            .ok_or(DropReason::UnknownChannel)?;
        let [one, two] = switchboard
            .members(channel)
            .ok_or(DropReason::UnknownChannel)?;
        let peers = &self.peers;
        let is_at = |index| {
            let peer = peers.get(index);
            peer.is_some_and(|peer| peer.paths().has_heard(Path::Direct(from)))
        };
        let to = if is_at(one) {
            two
        } else if is_at(two) {
            one
        } else {
            return Err(DropReason::Unauthentic);
        };
        let endpoint = peers
            .get(to)
            .and_then(|peer| peer.paths().direct_endpoint())
            .ok_or(DropReason::UnknownChannel)?;
        if !switchboard.pass(channel, datagram.len(), now) {
            return Err(DropReason::RelayLimit);
        }
        self.sealing.outbox.push(Path::Direct(endpoint), datagram);
        Ok(())
    }

    // ---- the customers' half -----------------------------------------------------------------------------

    /// The members that offer to relay.
    pub fn set_relays(&mut self, relays: &[PeerId]) {
        self.relays = relays
            .iter()
            .filter_map(|relay| self.peers.index_of(relay))
            .collect();
    }

    /// Sees to it that a peer whom packets flow to, by no safe direct path, is reached through relays as well.
    pub(super) fn look_for_relays(&mut self, index: PeerIndex, now: Instant) {
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        let paths = peer.paths();
        self.lines
            .retain(index, |channel| paths.has_channel(channel));
        if paths.is_settled(now) {
            return self.hang_up(index, now);
        }
        if !paths.wants_relay(now) {
            return;
        }
        let member = peer.keys().ipv6;
        let is_in_doubt = paths.is_in_doubt();
        let lines: Vec<_> = self.lines.of(index).collect();
        if is_in_doubt {
            for (relay, _) in &lines {
                self.ask_whether_alive(*relay, now);
            }
        }
        let missing = WANTED.saturating_sub(lines.len());
        if missing == 0 {
            return;
        }
        let mut relays: Vec<_> = self
            .relays
            .iter()
            .filter(|relay| **relay != index && !lines.iter().any(|(used, _)| used == *relay))
            .filter_map(|relay| {
                let peer = self.peers.get(*relay)?;
                peer.paths().direct_endpoint()?;
                peer.can_signal().then_some(())?;
                Some((peer.paths().view()?.rtt, *relay))
            })
            .collect();
        relays.sort_unstable();
        let mut asked = 0;
        for (_, relay) in relays {
            if asked < missing && self.lines.ask(index, relay, now) {
                asked += 1;
                self.tell(relay, &Signal::Open(member));
            }
        }
    }

    /// A relay that is silent may know us by an endpoint that we do not have any more: an authentic datagram mends it.
    fn ask_whether_alive(&mut self, relay: PeerIndex, now: Instant) {
        if let Some(peer) = self.peers.get_mut(relay) {
            peer.paths_mut().doubt_all();
        }
        self.rouse(relay, now);
    }

    fn hang_up(&mut self, index: PeerIndex, now: Instant) {
        for (relay, channel) in self.lines.hang_up(index) {
            self.close_channel(index, relay, channel, now);
        }
    }

    fn close_channel(
        &mut self,
        index: PeerIndex,
        relay: PeerIndex,
        channel: Channel,
        now: Instant,
    ) {
        tracing::trace!(?relay, ?channel, "a channel is closed");
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().close_channel(channel, now);
        }
    }

    /// A relay has opened a channel: we asked for it, or the member at its other end did.
    pub(super) fn handle_opened(
        &mut self,
        relay: PeerIndex,
        member: Ipv6Addr,
        channel: Channel,
        now: Instant,
    ) {
        let Some(index) = self.allowed_ips.owner(member.into()) else {
            return;
        };
        if index == relay || !self.relays.contains(&relay) {
            return;
        }
        let via = self
            .peers
            .get(relay)
            .and_then(|relay| Some((relay.keys().id, relay.paths().direct_endpoint()?)));
        let (Some((id, via)), Some(peer)) = (via, self.peers.get_mut(index)) else {
            return;
        };
        self.lines.opened(index, relay, channel);
        peer.paths_mut()
            .open(Path::Relayed { via, channel }, PathKind::Relay(id), now);
        if !peer.can_carry() {
            peer.initiate(&mut self.sealing, now);
        }
        self.tick_peer(index, now);
    }

    /// A relay does not serve us, or not any more.
    pub(super) fn handle_closed(&mut self, relay: PeerIndex, member: Ipv6Addr, now: Instant) {
        let Some(index) = self.allowed_ips.owner(member.into()) else {
            return;
        };
        if let Some(channel) = self.lines.closed(index, relay, now) {
            self.close_channel(index, relay, channel, now);
            self.tick_peer(index, now);
        }
    }
}
