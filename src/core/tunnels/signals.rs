//! What a peer's core says inside the session, and what we tell it in return.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::Tunnels;
use crate::{
    path::{
        Path,
        candidate::{Candidate, CandidateKind},
    },
    peer::{Peer, PeerIndex, Sealing},
    signal::{MAX_CANDIDATES, Signal},
};

impl Tunnels {
    pub(super) fn handle_signal(
        &mut self,
        index: PeerIndex,
        from: Path,
        signal: Signal,
        now: Instant,
    ) {
        match signal {
            Signal::Ask(number) => {
                let seen = match from {
                    Path::Direct(endpoint) => Some(endpoint),
                    Path::Relayed { .. } | Path::Carrier(_) => None,
                };
                self.signal(index, from, &Signal::Answer { number, seen });
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.paths_mut().asked(from, now);
                }
            }
            Signal::Answer { number, seen } => self.handle_answer(index, number, seen, now),
            Signal::Call {
                wants_answer,
                candidates,
            } => self.handle_call(index, wants_answer, &candidates, now),
            Signal::Open(member) => self.handle_open(index, from, member, now),
            Signal::Opened { member, channel } => self.handle_opened(index, member, channel, now),
            Signal::Closed(member) => self.handle_closed(index, member, now),
            Signal::Want(suite) => self.exchange_keys(index, now, |peer, sealing| {
                peer.handle_want(suite, sealing, now);
            }),
            Signal::Offer(part) => self.exchange_keys(index, now, |peer, sealing| {
                peer.handle_offer(&part, sealing, now);
            }),
            Signal::Accept(part) => self.exchange_keys(index, now, |peer, sealing| {
                peer.handle_accept(&part, sealing, now);
            }),
        }
    }

    fn exchange_keys(
        &mut self,
        index: PeerIndex,
        now: Instant,
        handle: impl FnOnce(&mut Peer, &mut Sealing),
    ) {
        if let Some(peer) = self.peers.get_mut(index) {
            handle(peer, &mut self.sealing);
        }
        self.rouse(index, now);
    }

    fn handle_answer(
        &mut self,
        index: PeerIndex,
        number: u64,
        seen: Option<SocketAddr>,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        if self.pings.take_answer(number, peer.keys().id, now) {
            return;
        }
        let Some((path, round_trip)) = peer.paths_mut().pong(number, now) else {
            return;
        };
        tracing::trace!(?path, ?round_trip, "path answered");
        if let (Path::Direct(_), Some(seen)) = (path, seen)
            && self.observed.note(index, seen, now)
        {
            self.refresh_candidates(now);
        }
        // The search for its MTU goes on at once.
        self.tick_peer(index, now);
    }

    /// The peer tries us, now: we try it, and tell it where we are unless it is that which answers us.
    fn handle_call(
        &mut self,
        index: PeerIndex,
        wants_answer: bool,
        candidates: &[Candidate],
        now: Instant,
    ) {
        let usable: Vec<_> = candidates
            .iter()
            .filter(|candidate| !self.is_overlay(candidate.endpoint.ip()))
            .copied()
            .collect();
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        if !peer.paths_mut().called(&usable, now) {
            return;
        }
        if wants_answer {
            peer.call(false, &self.told, &mut self.sealing);
        }
        self.tick_peer(index, now);
    }

    /// Sends a signal to a peer by a path of our choice.
    pub(super) fn signal(&mut self, index: PeerIndex, path: Path, signal: &Signal) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.signal(signal, path, &mut self.sealing);
        }
    }

    /// Sends a signal to a peer by the path in use.
    pub(super) fn tell(&mut self, index: PeerIndex, signal: &Signal) {
        let path = self
            .peers
            .get(index)
            .and_then(|peer| peer.paths().current());
        if let Some(path) = path {
            self.signal(index, path, signal);
        }
    }

    // ---- where we are ------------------------------------------------------------------------------------

    /// The endpoints of our own interfaces and of our router's mapping. News are a reason to try those peers again that
    /// no direct path leads to.
    pub fn set_candidates(&mut self, own: Vec<Candidate>, now: Instant) {
        if self.own != own {
            self.own = own;
            self.refresh_candidates(now);
        }
    }

    /// What each peer sees us as, and how long ago it did so last.
    pub fn observations(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (PeerId, SocketAddr, Duration)> {
        self.observed.iter().filter_map(move |(index, seen, at)| {
            let id = self.peers.get(index)?.keys().id;
            Some((id, seen, now.saturating_duration_since(at)))
        })
    }

    fn refresh_candidates(&mut self, now: Instant) {
        let own: Vec<_> = self.own.iter().map(|own| own.endpoint).collect();
        let reflexive = self.observed.worth_telling(&own, now);
        let reflexive = reflexive.iter().map(|endpoint| Candidate {
            kind: CandidateKind::Reflexive,
            endpoint: *endpoint,
        });
        let mut told: Vec<_> = reflexive.chain(self.own.iter().copied()).collect();
        told.truncate(MAX_CANDIDATES);
        if self.told == told {
            return;
        }
        self.told = told;
        for index in self.peers.indexes() {
            if let Some(peer) = self.peers.get_mut(index)
                && !peer.paths().is_direct()
                && peer.paths().current().is_some()
            {
                peer.paths_mut().restart_attempts(now);
                self.rouse(index, now);
            }
        }
    }
}
