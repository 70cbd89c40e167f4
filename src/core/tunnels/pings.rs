//! Pings that people send: an ask by the path in use, and the one who waits for its answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::Tunnels;
use crate::{path::PathView, peer::PeerIndex, signal::Signal};

/// Pings that may be under way at once.
const MAX_PINGS: usize = 256;

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

struct Ping {
    token: u64,
    peer: PeerIndex,
    sent: Option<(Instant, PathView)>,
}

/// Those under way, by the number of the ask, and those that were answered.
#[derive(Default)]
pub(super) struct Pings {
    open: BTreeMap<u64, Ping>,
    answered: Vec<PingAnswer>,
}

impl Pings {
    /// The peer is no more.
    pub fn forget(&mut self, peer: PeerIndex) {
        self.open.retain(|_, ping| ping.peer != peer);
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes the answer with this number, if it is for one of these.
    pub fn take_answer(&mut self, number: u64, peer: PeerId, now: Instant) -> bool {
        let Some(ping) = self.open.remove(&number) else {
            return false;
        };
        if let Some((sent, path)) = ping.sent {
            self.answered.push(PingAnswer {
                token: ping.token,
                peer,
                path,
                round_trip: now.saturating_duration_since(sent),
            });
        }
        true
    }
}

impl Tunnels {
    /// Asks `id` for a sign of life by the path in use; [`poll_ping`](Self::poll_ping) tells when it came.
    /// Returns whether the peer is known.
    pub fn ping(&mut self, id: &PeerId, token: u64, now: Instant) -> bool {
        let Some(index) = self.peers.index_of(id) else {
            return false;
        };
        while self.pings.open.len() >= MAX_PINGS {
            self.pings.open.pop_first();
        }
        let ping = Ping {
            token,
            peer: index,
            sent: None,
        };
        self.pings.open.insert(self.rng.u64(..), ping);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.paths_mut().active(now);
            if !peer.can_carry() {
                peer.initiate(&mut self.sealing, now);
            }
        }
        self.tick_peer(index, now);
        true
    }

    /// The next answered ping.
    pub fn poll_ping(&mut self) -> Option<PingAnswer> {
        self.pings.answered.pop()
    }

    /// Sends those that waited for a session.
    pub(super) fn send_pings(&mut self, index: PeerIndex, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let Some(path) = peer.paths().view().filter(|_| peer.can_signal()) else {
            return;
        };
        for (number, ping) in &mut self.pings.open {
            if ping.peer == index && ping.sent.is_none() {
                ping.sent = Some((now, path));
                peer.signal(&Signal::Ask(*number), path.path, &mut self.sealing);
            }
        }
    }
}
