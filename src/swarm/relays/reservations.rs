//! Keeps reservations with relays while this node has no public address that is proven to be one.
//!
//! Nothing in libp2p does: a reservation is renewed while its relay lives, and when it is lost, it is lost.
//! So this is a small supervisor. It decides and does nothing itself:
//!
//! - in: which relays there are ([`offer`](Reservations::offer)), what the swarm saw (`on_*`), the time;
//! - out: the next [`Step`], asked for with [`next`](Reservations::next) after each input and once a second.
//!
//! Of all relays that are offered a node takes the quickest. Among those that are about as quick, or not yet connected,
//! it takes the ones that hash nearest to it: so a network's nodes spread over its relays, and each comes back to the
//! same ones. When a much quicker one turns up and stays, a third reservation is made before the slowest is given up.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, core::transport::ListenerId, swarm::ConnectionId};
use sha2::{Digest, Sha256};

use super::dial_order;
use crate::swarm::addresses;

/// Reservations to hold, each with another relay: one may fail without the node getting lost.
const WANTED: usize = 2;

/// The pause after a failure, doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long a relay may take from the dial until it has authenticated and identified us. Longer than the
/// timeouts of both.
const PATIENCE: Duration = Duration::from_secs(40);

/// How long a much quicker relay must have been there before it takes the place of another.
const PROBATION: Duration = Duration::from_secs(60);
/// Much quicker: half the round trip, and less by this at least.
const CLEAR_GAIN: Duration = Duration::from_millis(20);

/// Bounds between classes of round trips. What lies within one is about as quick.
const CLASSES: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(320),
];
/// The class of relays that are not connected: worth a try, unless a good one is known.
const UNKNOWN: usize = 2;

/// What is known of the way to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// How far the connection is.
    pub connection: Connection,
    /// The round trip on it.
    pub rtt: Option<Duration>,
}

/// How far the connection to a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// There is no direct one.
    None,
    /// There is one. It is not authenticated, or the relay has not told yet what it sees us as: DCUtR takes its
    /// candidates from that when a relayed connection opens, and does not ask again.
    Fresh,
    /// Ready to reserve on.
    Ready,
}

/// What the swarm is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Connect to the relay; tell [`Reservations::on_dialing`] the number of the dial.
    Dial {
        /// Which relay.
        relay: PeerId,
        /// Where it may be.
        addresses: Vec<Multiaddr>,
    },
    /// Listen on the circuit address; tell [`Reservations::on_listening`] the number of the listener.
    Reserve {
        /// Which relay.
        relay: PeerId,
        /// Its circuit address.
        circuit: Multiaddr,
    },
    /// Close this listener: there is a better relay.
    Release(ListenerId),
}

/// The supervisor.
pub struct Reservations {
    local: PeerId,
    relays: BTreeMap<PeerId, Relay>,
}

struct Relay {
    /// Empty once it is not offered any more.
    addresses: Vec<Multiaddr>,
    state: State,
    failures: u32,
    not_before: Option<Instant>,
    /// Since when it would be much quicker than one that we have.
    quicker_since: Option<Instant>,
}

enum State {
    Idle,
    /// Being connected to, authenticated, identified.
    Approaching {
        dial: Option<ConnectionId>,
        until: Instant,
    },
    /// Reserving, or reserved and being renewed by libp2p.
    Listening(ListenerId),
    Reserved(ListenerId),
}

impl Relay {
    fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether it may be turned to.
    fn is_free(&self, now: Instant) -> bool {
        let due = self.not_before.is_none_or(|not_before| not_before <= now);
        self.is_idle() && !self.addresses.is_empty() && due
    }

    fn fail(&mut self, now: Instant) {
        let pause = FIRST_PAUSE * 2_u32.pow(self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(now + pause.min(LONGEST_PAUSE));
        self.state = State::Idle;
    }
}

impl Reservations {
    /// Of node `local`, without any relay yet.
    pub fn new(local: PeerId) -> Self {
        Self {
            local,
            relays: BTreeMap::new(),
        }
    }

    /// Replaces the relays to choose from. Reservations with others stay until they are lost.
    pub fn offer(&mut self, relays: Vec<(PeerId, Vec<Multiaddr>)>) {
        for relay in self.relays.values_mut() {
            relay.addresses.clear();
        }
        for (peer, mut addresses) in relays {
            // A relay may have reservations of its own. They are no way to reserve with it.
            addresses.retain(|address| !addresses::is_circuit(address));
            if peer == self.local || addresses.is_empty() {
                continue;
            }
            let relay = self.relays.entry(peer).or_insert(Relay {
                addresses: Vec::new(),
                state: State::Idle,
                failures: 0,
                not_before: None,
                quicker_since: None,
            });
            relay.addresses = addresses;
        }
        self.forget();
    }

    /// What to do now, if anything. `way` tells what is known of the way to a relay. `wanted` is false while the node
    /// is reachable without: then nothing new is reserved.
    pub fn next(
        &mut self,
        now: Instant,
        wanted: bool,
        way: impl Fn(&PeerId) -> Way,
    ) -> Option<Step> {
        for relay in self.relays.values_mut() {
            if let State::Approaching { until, .. } = relay.state
                && until <= now
            {
                relay.fail(now);
            }
        }
        self.forget();
        self.reserve(&way)
            .or_else(|| self.release(&way))
            .or_else(|| {
                let busy = self.relays.values().filter(|relay| !relay.is_idle());
                let relay = match busy.count() {
                    _ if !wanted => None,
                    ..WANTED => self.best(now, &way),
                    WANTED => self.much_quicker(now, &way),
                    _ => None,
                };
                self.approach(relay?, now, &way)
            })
    }

    /// Reserves with a relay that has become ready.
    fn reserve(&self, way: &impl Fn(&PeerId) -> Way) -> Option<Step> {
        self.relays.iter().find_map(|(peer, relay)| {
            let approaching = matches!(relay.state, State::Approaching { .. });
            let ready = approaching && way(peer).connection == Connection::Ready;
            let known = relay.addresses.first().filter(|_| ready)?;
            Some(Step::Reserve {
                relay: *peer,
                circuit: addresses::circuit(known, *peer),
            })
        })
    }

    /// Gives up the slowest reservation when there are more than wanted.
    fn release(&mut self, way: &impl Fn(&PeerId) -> Way) -> Option<Step> {
        let local = self.local;
        let mut reserved: Vec<_> = self
            .relays
            .iter_mut()
            .filter_map(|(peer, relay)| match relay.state {
                State::Reserved(listener) => Some((peer, relay, listener)),
                State::Idle | State::Approaching { .. } | State::Listening(_) => None,
            })
            .collect();
        if reserved.len() <= WANTED {
            return None;
        }
        reserved.sort_by_key(|(peer, ..)| (way(peer).rtt, distance(local, **peer)));
        let (_, relay, listener) = reserved.pop()?;
        relay.state = State::Idle;
        relay.quicker_since = None;
        Some(Step::Release(listener))
    }

    /// The relay to turn to when one is missing.
    fn best(&self, now: Instant, way: &impl Fn(&PeerId) -> Way) -> Option<PeerId> {
        let free = self.relays.iter().filter(|(_, relay)| relay.is_free(now));
        let best = free.min_by_key(|(peer, relay)| {
            let class = class(way(peer).rtt);
            (relay.failures, class, distance(self.local, **peer))
        });
        best.map(|(peer, _)| *peer)
    }

    /// The quickest of the relays that have for long been much quicker than the slowest reservation.
    fn much_quicker(&mut self, now: Instant, way: &impl Fn(&PeerId) -> Way) -> Option<PeerId> {
        let is_reserved = |relay: &Relay| matches!(relay.state, State::Reserved(_));
        let reserved = self.relays.iter().filter(|(_, relay)| is_reserved(relay));
        // A reservation whose round trip is not known yet is not judged.
        let rtts: Option<Vec<_>> = reserved.map(|(peer, _)| way(peer).rtt).collect();
        let slowest = rtts
            .filter(|rtts| rtts.len() == WANTED)
            .and_then(|rtts| rtts.into_iter().max());
        let mut quickest = None;
        for (peer, relay) in &mut self.relays {
            let seen = way(peer);
            let rtt = seen
                .rtt
                .filter(|_| relay.is_free(now) && seen.connection == Connection::Ready);
            let (Some(rtt), Some(slowest)) = (rtt, slowest) else {
                relay.quicker_since = None;
                continue;
            };
            if rtt * 2 > slowest || rtt + CLEAR_GAIN > slowest {
                relay.quicker_since = None;
                continue;
            }
            let since = *relay.quicker_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= PROBATION
                && quickest.is_none_or(|(least, _)| rtt < least)
            {
                quickest = Some((rtt, *peer));
            }
        }
        quickest.map(|(_, peer)| peer)
    }

    /// Turns to another relay.
    fn approach(
        &mut self,
        peer: PeerId,
        now: Instant,
        way: &impl Fn(&PeerId) -> Way,
    ) -> Option<Step> {
        let relay = self.relays.get_mut(&peer)?;
        let until = now + PATIENCE;
        relay.state = State::Approaching { dial: None, until };
        match way(&peer).connection {
            Connection::None => Some(Step::Dial {
                relay: peer,
                addresses: dial_order(&relay.addresses, relay.failures),
            }),
            Connection::Fresh => None,
            Connection::Ready => Some(Step::Reserve {
                relay: peer,
                circuit: addresses::circuit(relay.addresses.first()?, peer),
            }),
        }
    }

    /// The relays that hold a reservation for us.
    pub fn held(&self) -> impl Iterator<Item = &PeerId> {
        let is_held = |relay: &Relay| matches!(relay.state, State::Reserved(_));
        let relays = self.relays.iter();
        relays.filter_map(move |(peer, relay)| is_held(relay).then_some(peer))
    }

    fn forget(&mut self) {
        self.relays
            .retain(|_, relay| !(relay.is_idle() && relay.addresses.is_empty()));
    }

    /// The dial of [`Step::Dial`] has begun.
    pub fn on_dialing(&mut self, relay: PeerId, started: ConnectionId) {
        if let Some(Relay {
            state: State::Approaching { dial, .. },
            ..
        }) = self.relays.get_mut(&relay)
        {
            *dial = Some(started);
        }
    }

    /// A dial failed; whether it was one of ours.
    pub fn on_dial_failed(&mut self, failed: ConnectionId, now: Instant) -> bool {
        let mut relays = self.relays.values_mut();
        let relay = relays.find(|relay| {
            matches!(relay.state, State::Approaching { dial: Some(dial), .. } if dial == failed)
        });
        if let Some(relay) = relay {
            relay.fail(now);
            return true;
        }
        false
    }

    /// A step could not even be begun.
    pub fn on_step_failed(&mut self, relay: PeerId, now: Instant) {
        if let Some(relay) = self.relays.get_mut(&relay) {
            relay.fail(now);
        }
    }

    /// The listener of [`Step::Reserve`] exists.
    pub fn on_listening(&mut self, relay: PeerId, listener: ListenerId) {
        if let Some(relay) = self.relays.get_mut(&relay) {
            relay.state = State::Listening(listener);
        }
    }

    /// The relay accepted or renewed the reservation.
    pub fn on_reserved(&mut self, relay: PeerId) {
        if let Some(relay) = self.relays.get_mut(&relay)
            && let State::Listening(listener) = relay.state
        {
            relay.state = State::Reserved(listener);
            relay.failures = 0;
        }
    }

    /// A listener closed: the reservation on it, if any, was refused or lost.
    pub fn on_listener_closed(&mut self, closed: ListenerId, now: Instant) {
        for relay in self.relays.values_mut() {
            match relay.state {
                State::Listening(listener) | State::Reserved(listener) if listener == closed => {
                    relay.fail(now);
                }
                State::Idle
                | State::Approaching { .. }
                | State::Listening(_)
                | State::Reserved(_) => {}
            }
        }
    }
}

/// Sorts round trips into few classes.
fn class(rtt: Option<Duration>) -> usize {
    rtt.map_or(UNKNOWN, |rtt| {
        CLASSES.partition_point(|bound| *bound <= rtt)
    })
}

/// Orders relays differently for each node.
fn distance(local: PeerId, relay: PeerId) -> [u8; 32] {
    let digest = Sha256::new().chain_update(local.to_bytes());
    digest.chain_update(relay.to_bytes()).finalize().into()
}

#[cfg(test)]
mod tests;
