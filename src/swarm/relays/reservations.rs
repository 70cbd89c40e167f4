//! Keeps reservations with relays while this node has no public address.
//!
//! Nothing in libp2p does: a reservation is renewed while its relay lives, and when it is lost, it is lost.
//! So this is a small supervisor. It decides and does nothing itself:
//!
//! - in: which relays there are ([`offer`](Reservations::offer)), what the swarm saw (`on_*`), the time;
//! - out: the next [`Step`], asked for with [`next`](Reservations::next) after each input and once a second.
//!
//! Of all relays that are offered a node takes the ones that hash nearest to it: so a network's nodes spread
//! over its relays, and each comes back to the same ones.

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
        for (peer, addresses) in relays {
            if peer == self.local || addresses.is_empty() {
                continue;
            }
            let relay = self.relays.entry(peer).or_insert(Relay {
                addresses: Vec::new(),
                state: State::Idle,
                failures: 0,
                not_before: None,
            });
            relay.addresses = addresses;
        }
        self.forget();
    }

    /// What to do now, if anything. `connection` tells how far the connection to a relay is. `wanted` is false
    /// while the node has a public address: then nothing new is reserved.
    pub fn next(
        &mut self,
        now: Instant,
        wanted: bool,
        connection: impl Fn(&PeerId) -> Connection,
    ) -> Option<Step> {
        for relay in self.relays.values_mut() {
            if let State::Approaching { until, .. } = relay.state
                && until <= now
            {
                relay.fail(now);
            }
        }
        self.forget();
        self.reserve(&connection).or_else(|| {
            let busy = self.relays.values().filter(|relay| !relay.is_idle());
            if wanted && busy.count() < WANTED {
                self.approach(now, &connection)
            } else {
                None
            }
        })
    }

    /// Reserves with a relay that has become ready.
    fn reserve(&self, connection: &impl Fn(&PeerId) -> Connection) -> Option<Step> {
        self.relays.iter().find_map(|(peer, relay)| {
            let approaching = matches!(relay.state, State::Approaching { .. });
            let ready = approaching && connection(peer) == Connection::Ready;
            let known = relay.addresses.first().filter(|_| ready)?;
            Some(Step::Reserve {
                relay: *peer,
                circuit: addresses::circuit(known, *peer),
            })
        })
    }

    /// Turns to another relay.
    fn approach(
        &mut self,
        now: Instant,
        connection: &impl Fn(&PeerId) -> Connection,
    ) -> Option<Step> {
        let local = self.local;
        let due = |relay: &Relay| relay.not_before.is_none_or(|not_before| not_before <= now);
        let (peer, relay) = self
            .relays
            .iter_mut()
            .filter(|(_, relay)| relay.is_idle() && !relay.addresses.is_empty() && due(relay))
            .min_by_key(|(peer, relay)| (relay.failures, distance(local, **peer)))?;
        let until = now + PATIENCE;
        relay.state = State::Approaching { dial: None, until };
        match connection(peer) {
            Connection::None => Some(Step::Dial {
                relay: *peer,
                addresses: dial_order(&relay.addresses, relay.failures),
            }),
            Connection::Fresh => None,
            Connection::Ready => Some(Step::Reserve {
                relay: *peer,
                circuit: addresses::circuit(relay.addresses.first()?, *peer),
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

/// Orders relays differently for each node.
fn distance(local: PeerId, relay: PeerId) -> [u8; 32] {
    let digest = Sha256::new().chain_update(local.to_bytes());
    digest.chain_update(relay.to_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: fn() -> Instant = Instant::now;

    fn relay(number: u8) -> (PeerId, Vec<Multiaddr>) {
        let address = format!("/ip4/203.0.113.{number}/udp/1/quic-v1");
        (PeerId::random(), vec![address.parse().unwrap()])
    }

    fn supervisor(relays: u8) -> Reservations {
        let mut reservations = Reservations::new(PeerId::random());
        reservations.offer((0..relays).map(relay).collect());
        reservations
    }

    fn dialed(step: Option<Step>) -> PeerId {
        let Some(Step::Dial { relay, .. }) = step else {
            panic!("{step:?} is no dial")
        };
        relay
    }

    fn reserve_with(reservations: &mut Reservations, now: Instant) -> (PeerId, ListenerId) {
        let step = reservations.next(now, true, |_| Connection::Ready);
        let Some(Step::Reserve { relay, .. }) = step else {
            panic!("{step:?} is no reservation")
        };
        let listener = ListenerId::next();
        reservations.on_listening(relay, listener);
        reservations.on_reserved(relay);
        (relay, listener)
    }

    #[test]
    fn two_reservations_are_made_with_different_relays() {
        let (mut reservations, now) = (supervisor(5), NOW());
        let (first, _) = reserve_with(&mut reservations, now);
        let (second, _) = reserve_with(&mut reservations, now);
        assert_ne!(first, second);
        assert_eq!(reservations.next(now, true, |_| Connection::Ready), None);
    }

    #[test]
    fn a_node_with_a_public_address_reserves_nothing() {
        let mut reservations = supervisor(5);
        assert_eq!(reservations.next(NOW(), false, |_| Connection::Ready), None);
    }

    #[test]
    fn the_relay_is_connected_and_identified_before_it_is_asked() {
        let (mut reservations, now) = (supervisor(1), NOW());
        let relay = dialed(reservations.next(now, true, |_| Connection::None));
        reservations.on_dialing(relay, ConnectionId::new_unchecked(7));
        assert_eq!(reservations.next(now, true, |_| Connection::Fresh), None);
        assert_eq!(reserve_with(&mut reservations, now).0, relay);
    }

    #[test]
    fn after_a_failed_dial_the_next_relay_has_its_turn() {
        let (mut reservations, now) = (supervisor(2), NOW());
        let first = dialed(reservations.next(now, true, |_| Connection::None));
        reservations.on_dialing(first, ConnectionId::new_unchecked(1));
        assert!(reservations.on_dial_failed(ConnectionId::new_unchecked(1), now));
        assert!(!reservations.on_dial_failed(ConnectionId::new_unchecked(1), now));
        let second = dialed(reservations.next(now, true, |_| Connection::None));
        assert_ne!(first, second);
        assert_eq!(reservations.next(now, true, |_| Connection::None), None);
        let later = now + FIRST_PAUSE;
        assert_eq!(
            dialed(reservations.next(later, true, |_| Connection::None)),
            first
        );
    }

    #[test]
    fn a_relay_that_neither_fails_nor_answers_is_given_up() {
        let (mut reservations, now) = (supervisor(3), NOW());
        let hung = dialed(reservations.next(now, true, |_| Connection::None));
        dialed(reservations.next(now, true, |_| Connection::None));
        assert_eq!(reservations.next(now, true, |_| Connection::None), None);
        let other = dialed(reservations.next(now + PATIENCE, true, |_| Connection::None));
        assert_ne!(hung, other);
    }

    #[test]
    fn a_lost_reservation_is_made_again() {
        let (mut reservations, now) = (supervisor(1), NOW());
        let (relay, listener) = reserve_with(&mut reservations, now);
        reservations.on_listener_closed(listener, now);
        assert_eq!(
            reservations.next(now, true, |_| Connection::None),
            None,
            "not at once"
        );
        let later = now + FIRST_PAUSE;
        assert_eq!(
            dialed(reservations.next(later, true, |_| Connection::None)),
            relay
        );
    }

    #[test]
    fn pauses_grow_to_their_bound() {
        let (mut reservations, mut now) = (supervisor(1), NOW());
        for _ in 0..40 {
            let (relay, listener) = {
                let step = reservations.next(now, true, |_| Connection::Ready);
                let Some(Step::Reserve { relay, .. }) = step else {
                    panic!("{step:?}")
                };
                (relay, ListenerId::next())
            };
            reservations.on_listening(relay, listener);
            reservations.on_listener_closed(listener, now); // refused
            now += LONGEST_PAUSE;
        }
        let relay = reservations.relays.values().next().unwrap();
        assert_eq!(relay.not_before, Some(now));
    }

    #[test]
    fn a_relay_that_is_offered_no_more_is_kept_until_it_is_lost() {
        let (mut reservations, now) = (supervisor(1), NOW());
        let (_, listener) = reserve_with(&mut reservations, now);
        reservations.offer(vec![]);
        assert_eq!(reservations.relays.len(), 1);
        reservations.on_listener_closed(listener, now);
        assert_eq!(
            reservations.next(now + LONGEST_PAUSE, true, |_| Connection::None),
            None
        );
        assert!(reservations.relays.is_empty());
    }

    #[test]
    fn nodes_spread_over_the_relays() {
        let relays: Vec<_> = (0..4).map(relay).collect();
        let first_choice = || {
            let mut reservations = Reservations::new(PeerId::random());
            reservations.offer(relays.clone());
            dialed(reservations.next(NOW(), true, |_| Connection::None))
        };
        let chosen: std::collections::BTreeSet<_> = (0..200).map(|_| first_choice()).collect();
        assert_eq!(chosen.len(), relays.len());
    }

    #[test]
    fn a_node_is_no_relay_of_its_own() {
        let mut reservations = Reservations::new(PeerId::random());
        reservations.offer(vec![(reservations.local, relay(1).1)]);
        assert_eq!(reservations.next(NOW(), true, |_| Connection::None), None);
    }
}
