//! Relays: being one ([`Server`]), and having some ([`Reservations`]).
//!
//! A node with a public address passes circuits on for the network. Members reserve: that makes them reachable
//! through the relay. Anybody may open a circuit *to* such a member, because that is how an invite is redeemed
//! by a node that cannot reach its issuer; strangers get few of them.

mod reservations;
mod server;

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, RwLock},
};

use libp2p::{Multiaddr, PeerId};

use super::addresses::{self, Addresses};
pub use reservations::{Connection, Reservations, Step, Way};
pub use server::Server;

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
