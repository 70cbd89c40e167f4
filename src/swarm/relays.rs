//! Relays: being one ([`server`]), and having some ([`Reservations`]).
//!
//! A node with a public address passes circuits on for the network. Members reserve: that makes them reachable
//! through the relay. Anybody may open a circuit *to* such a member, because that is how an invite is redeemed
//! by a node that cannot reach its issuer; strangers get few of them.

mod reservations;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId, relay};

use super::{
    addresses::{self, Addresses},
    gate::Members,
};
pub use reservations::{Connection, Reservations, Step, Way};

/// Whether this node relays for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum RelayMode {
    /// If it has a public address.
    #[default]
    Auto,
    /// Even without one, for relays behind a forwarded port and for tests.
    #[value(name = "true")]
    Always,
    /// Not at all.
    #[value(name = "false")]
    Never,
}

impl RelayMode {
    /// Whether to relay with these addresses.
    pub fn serves(self, ours: &Addresses) -> bool {
        match self {
            RelayMode::Auto => ours.has_public(),
            RelayMode::Always => true,
            RelayMode::Never => false,
        }
    }

    /// Whether to relay under addresses that only the nodes of this site can dial.
    pub fn serves_its_site(self, ours: &Addresses) -> bool {
        match self {
            RelayMode::Always => !ours.has_public(),
            RelayMode::Auto | RelayMode::Never => false,
        }
    }
}

/// The members that we relay for: all, unless the owner of this node said which. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Guests(Arc<RwLock<Option<BTreeSet<PeerId>>>>);

impl Guests {
    /// These and nobody else, or all.
    pub fn set(&self, guests: Option<BTreeSet<PeerId>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = guests;
    }

    fn contains(&self, peer: &PeerId) -> bool {
        let guests = self.0.read().unwrap_or_else(PoisonError::into_inner);
        guests.as_ref().is_none_or(|guests| guests.contains(peer))
    }
}

/// Circuits a stranger may open within [`STRANGER_INTERVAL`]: enough to redeem an invite with some retries.
const STRANGER_CIRCUITS: u32 = 6;
const STRANGER_INTERVAL: Duration = Duration::from_secs(60);

/// Circuits that all strangers together may open within [`STRANGER_INTERVAL`]; peer ids are free to make.
const ALL_STRANGERS_CIRCUITS: u32 = 60;

/// What a relay carries at once. For members these are only a bound on memory: a network of a thousand nodes
/// behind NATs fits on one relay.
const MAX_RESERVATIONS: usize = 2048;
const MAX_CIRCUITS: usize = 4096;
const MAX_CIRCUITS_PER_PEER: usize = 256;

/// The relaying half. It starts disabled; see [`relay::Behaviour::set_status`].
///
/// Whoever is no guest gets no reservation. Circuits need no check of their own: they end at who has one.
pub fn server(
    local: PeerId,
    members: Members,
    guests: Guests,
    reservation: Duration,
) -> relay::Behaviour {
    let mut strangers = Strangers::default();
    let reserving = members.clone();
    let config = relay::Config {
        max_reservations: MAX_RESERVATIONS,
        max_reservations_per_peer: 4,
        reservation_duration: reservation,
        reservation_rate_limiters: vec![Box::new(
            move |peer: PeerId, _: &Multiaddr, _: Instant| {
                reserving.contains(&peer) && guests.contains(&peer)
            },
        )],
        max_circuits: MAX_CIRCUITS,
        max_circuits_per_peer: MAX_CIRCUITS_PER_PEER,
        // A tunnel lives as long as its nodes. Zero bytes means no limit; the duration cannot be zero.
        max_circuit_duration: Duration::from_secs(u32::MAX.into()),
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: vec![Box::new(
            move |peer: PeerId, _: &Multiaddr, now: Instant| {
                members.contains(&peer) || strangers.admit(peer, now)
            },
        )],
    };
    let mut server = relay::Behaviour::new(local, config);
    server.set_status(Some(relay::Status::Disable));
    server
}

/// How many circuits strangers opened in the current interval.
#[derive(Default)]
struct Strangers {
    since: Option<Instant>,
    total: u32,
    each: HashMap<PeerId, u32>,
}

impl Strangers {
    fn admit(&mut self, peer: PeerId, now: Instant) -> bool {
        let over = self
            .since
            .is_none_or(|since| now.saturating_duration_since(since) >= STRANGER_INTERVAL);
        if over {
            self.since = Some(now);
            self.total = 0;
            self.each.clear();
        }
        if self.total == ALL_STRANGERS_CIRCUITS {
            return false;
        }
        let circuits = self.each.entry(peer).or_default();
        if *circuits == STRANGER_CIRCUITS {
            return false;
        }
        *circuits += 1;
        self.total += 1;
        true
    }
}

/// The addresses to dial a relay at, best first: the transport that reaches the relay is the one that DCUtR
/// punches, and only QUIC's hole carries raw datagrams. So TCP has its turn after QUIC has failed.
pub fn dial_order(known: &[Multiaddr], failures: u32) -> Vec<Multiaddr> {
    let direct = known
        .iter()
        .filter(|address| !addresses::is_circuit(address));
    let (quic, other): (Vec<_>, Vec<_>) = direct.cloned().partition(addresses::is_quic);
    if quic.is_empty() || (failures % 2 == 1 && !other.is_empty()) {
        other
    } else {
        quic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_gets_a_few_circuits_and_then_waits() {
        let mut strangers = Strangers::default();
        let (peer, start) = (PeerId::random(), Instant::now());
        for _ in 0..STRANGER_CIRCUITS {
            assert!(strangers.admit(peer, start));
        }
        assert!(!strangers.admit(peer, start));
        assert!(
            strangers.admit(PeerId::random(), start),
            "others are not held liable"
        );
        assert!(strangers.admit(peer, start + STRANGER_INTERVAL));
    }

    #[test]
    fn many_strangers_together_do_not_take_more() {
        let mut strangers = Strangers::default();
        let start = Instant::now();
        let admitted = (0..1000).filter(|_| strangers.admit(PeerId::random(), start));
        assert_eq!(admitted.count() as u32, ALL_STRANGERS_CIRCUITS);
        assert!(strangers.each.len() as u32 <= ALL_STRANGERS_CIRCUITS);
    }

    #[test]
    fn a_node_relays_by_itself_only_with_a_public_address() {
        let public = Addresses {
            external: vec!["/ip4/203.0.113.1/udp/1/quic-v1".parse().unwrap()],
            ..Addresses::default()
        };
        let private = Addresses::default();
        assert!(RelayMode::Auto.serves(&public) && !RelayMode::Auto.serves(&private));
        assert!(RelayMode::Always.serves(&private));
        assert!(!RelayMode::Never.serves(&public));
    }

    #[test]
    fn quic_has_the_first_turn_and_tcp_the_next() {
        let quic: Multiaddr = "/ip4/203.0.113.1/udp/1/quic-v1".parse().unwrap();
        let tcp: Multiaddr = "/ip4/203.0.113.1/tcp/1".parse().unwrap();
        let both = [tcp.clone(), quic.clone()];
        assert_eq!(dial_order(&both, 0), std::slice::from_ref(&quic));
        assert_eq!(dial_order(&both, 1), std::slice::from_ref(&tcp));
        assert_eq!(dial_order(&both, 2), std::slice::from_ref(&quic));
        assert_eq!(dial_order(&both[..1], 0), [tcp]);
        assert_eq!(dial_order(&both[1..], 1), [quic]);
    }
}
