//! Whether a public address is any good: a firewall may stand before it.
//!
//! The proof is a member that reached us by itself. Its connection counts when it came from the internet and nothing that
//! we sent can have opened the way for it. Until there is one, and after every change of our public addresses, a node
//! keeps reservations with relays as one does that has no public address.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use libp2p::{Multiaddr, PeerId};

use super::addresses::{Addresses, is_public, is_public_ip};

/// Longer than firewalls remember a UDP flow without traffic (RFC 4787 REQ-5 wants 2 min or more).
const FLOW: Duration = Duration::from_secs(5 * 60);

/// What is known so far.
#[derive(Default)]
pub struct Reachability {
    /// When we last sent something to a peer.
    called: HashMap<PeerId, Instant>,
    /// What the proof is about.
    public: BTreeSet<Multiaddr>,
    is_proven: bool,
}

impl Reachability {
    /// Whether any node of the internet can dial us, for all we know.
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// We dial the peer, or were connected to it until now: a firewall lets it in for a while.
    pub fn on_call(&mut self, peer: PeerId, now: Instant) {
        self.called
            .retain(|_, called| now.saturating_duration_since(*called) < FLOW);
        self.called.insert(peer, now);
    }

    /// Whether a connection that `peer` opened to us directly, from `remote`, will be a proof if the peer is a member.
    /// `own` are the networks around this machine's addresses.
    pub fn would_prove(&self, peer: &PeerId, remote: IpAddr, own: &[IpNet], now: Instant) -> bool {
        let remote = remote.to_canonical();
        let was_called = self
            .called
            .get(peer)
            .is_some_and(|called| now.saturating_duration_since(*called) < FLOW);
        !was_called && is_public_ip(remote) && !own.iter().any(|network| network.contains(&remote))
    }

    /// The peer of such a connection is a member.
    pub fn on_proof(&mut self) {
        self.is_proven = true;
    }

    /// Our addresses are these now. Others than before must prove themselves.
    pub fn on_addresses(&mut self, addresses: &Addresses) {
        let listen = addresses.listen.iter().filter(|address| is_public(address));
        let public: BTreeSet<_> = addresses.external.iter().chain(listen).cloned().collect();
        if !public.is_subset(&self.public) {
            self.is_proven = false;
        }
        self.public = public;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(last: u8) -> Addresses {
        Addresses {
            external: vec![
                format!("/ip4/203.0.113.{last}/udp/1/quic-v1")
                    .parse()
                    .unwrap(),
            ],
            ..Addresses::default()
        }
    }

    #[test]
    fn whoever_comes_from_the_internet_uncalled_is_a_proof() {
        let (reachability, now, peer) = (Reachability::default(), Instant::now(), PeerId::random());
        let own = ["203.0.113.11/24".parse().unwrap()];
        let proves =
            |remote: &str| reachability.would_prove(&peer, remote.parse().unwrap(), &own, now);
        assert!(proves("198.51.100.7") && proves("::ffff:198.51.100.7") && proves("2001:db8::1"));
        assert!(!proves("203.0.113.12"), "our own switch");
        assert!(!proves("192.168.1.7") && !proves("127.0.0.1"));
    }

    #[test]
    fn whom_we_called_may_come_through_a_firewall_that_stops_others() {
        let (mut reachability, now, peer) =
            (Reachability::default(), Instant::now(), PeerId::random());
        let remote = "198.51.100.7".parse().unwrap();
        reachability.on_call(peer, now);
        assert!(!reachability.would_prove(&peer, remote, &[], now));
        assert!(reachability.would_prove(&PeerId::random(), remote, &[], now));
        assert!(reachability.would_prove(&peer, remote, &[], now + FLOW));
    }

    #[test]
    fn another_public_address_needs_another_proof() {
        let mut reachability = Reachability::default();
        reachability.on_addresses(&public(1));
        reachability.on_proof();
        reachability.on_addresses(&public(1));
        assert!(reachability.is_proven());
        reachability.on_addresses(&public(2));
        assert!(!reachability.is_proven());
    }

    #[test]
    fn calls_are_forgotten() {
        let (mut reachability, now) = (Reachability::default(), Instant::now());
        (0..100).for_each(|_| reachability.on_call(PeerId::random(), now));
        reachability.on_call(PeerId::random(), now + FLOW);
        assert_eq!(reachability.called.len(), 1);
    }
}
