//! Which session a datagram is for.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use super::Tunnels;
use crate::{
    connection::ConnectionId,
    datagram::WireGuardDatagram,
    drop_reason::DropReason,
    path::Path,
    peer::{PeerIndex, Sealing, sessions::Slot},
    session::MIN_BUFFER,
};

/// The handshake limiter counts per second, and insists on a whole one by a clock that we do not see.
const LIMITER_PERIOD: Duration = Duration::from_millis(1100);

impl Tunnels {
    /// Which peer a datagram claims to be for, by what it says and by the carrier it came by.
    pub(super) fn addressee(
        &mut self,
        from: Path,
        datagram: &[u8],
        now: Instant,
    ) -> Result<(PeerIndex, Slot), DropReason> {
        let kind = WireGuardDatagram::parse(datagram).ok_or(DropReason::Malformed)?;
        if !matches!(kind, WireGuardDatagram::TransportData { .. }) {
            let reset = now + LIMITER_PERIOD;
            self.next_limiter_reset.get_or_insert(reset);
        }
        let (index, slot) = match kind {
            WireGuardDatagram::Initiation => {
                let Sealing {
                    keyring, outbox, ..
                } = &mut self.sealing;
                let identity = keyring.identity();
                let (key, session) =
                    identity.initiator(source_address(from), datagram, |cookie| {
                        outbox.push(from, cookie)
                    })?;
                let index = self
                    .peers
                    .index_of_key(&key)
                    .ok_or(DropReason::UnknownPeer)?;
                let peer = self.peers.get(index).ok_or(DropReason::UnknownPeer)?;
                (index, peer.sessions().slot_of(session))
            }
            WireGuardDatagram::Response { receiver }
            | WireGuardDatagram::CookieReply { receiver }
            | WireGuardDatagram::TransportData { receiver } => {
                let (index, slot) = PeerIndex::of_receiver(receiver);
                (index, Some(slot))
            }
        };
        // A carrier or a channel ends at one peer: it has nothing to say for another.
        let is_its = match from {
            Path::Direct(_) => true,
            Path::Carrier(connection) => self.carriers.get(&connection) == Some(&index),
            Path::Relayed { .. } => {
                let peer = self.peers.get(index);
                peer.is_some_and(|peer| peer.paths().knows(from))
            }
        };
        if !is_its {
            return Err(DropReason::Unauthentic);
        }
        let Some(slot) = slot else {
            self.miss_session(index, from, datagram, now);
            return Err(DropReason::UnknownSession);
        };
        Ok((index, slot))
    }

    /// A peer wants to renew the keys of a session that we have not, because we were restarted for example: it learns so by
    /// being greeted.
    fn miss_session(&mut self, index: PeerIndex, from: Path, initiation: &[u8], now: Instant) {
        let buffer = self.inbox.slot(MIN_BUFFER);
        let peer = self.peers.get(index);
        let is_missed = peer.is_some_and(|peer| {
            let address = source_address(from);
            peer.misses_session(initiation, address, &self.sealing, buffer)
        });
        if is_missed {
            self.hear_from(index, from, now);
            if let Some(peer) = self.peers.get_mut(index) {
                peer.greet(false, &mut self.sealing, now);
            }
            self.rouse(index, now);
        }
    }
}

/// The address that cookies are bound to. A carrier has none, and gets one out of the discard prefix (RFC 6666), so
/// that its peer can answer a cookie like any other when strangers flood us with handshakes.
pub(super) fn source_address(path: Path) -> Option<IpAddr> {
    match path {
        Path::Direct(endpoint) => Some(endpoint.ip()),
        Path::Carrier(ConnectionId(number)) => Some(discard(0, number)),
        Path::Relayed { channel, .. } => Some(discard(1, channel.0.into())),
    }
}

fn discard(kind: u16, number: u64) -> IpAddr {
    Ipv6Addr::from_bits((0x100 << 112) | (u128::from(kind) << 64) | u128::from(number)).into()
}
