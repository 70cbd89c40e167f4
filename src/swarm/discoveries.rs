//! What mDNS found, passed on a few at a time: each discovery may become a dial, and a site may have hundreds of nodes,
//! or one that invents them.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};

/// Discoveries that may be being dialed.
const AT_ONCE: usize = 8;
/// How long a dial on one's own site takes at most. Whoever takes longer lets the next one begin.
const PATIENCE: Duration = Duration::from_secs(2);
/// Discoveries that wait. mDNS finds those again that are lost beyond.
const MAX_WAITING: usize = 512;

/// A queue with some places at the counter.
#[derive(Default)]
pub struct Discoveries {
    waiting: VecDeque<(PeerId, Vec<Multiaddr>)>,
    begun: HashMap<PeerId, Instant>,
}

impl Discoveries {
    /// mDNS found the peer at these addresses.
    pub fn add(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        if let Some((_, known)) = self
            .waiting
            .iter_mut()
            .find(|(waiting, _)| *waiting == peer)
        {
            *known = addresses;
        } else if self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((peer, addresses));
        }
    }

    /// The next one to pass on, if it is its turn.
    pub fn next(&mut self, now: Instant) -> Option<(PeerId, Vec<Multiaddr>)> {
        if self.waiting.is_empty() {
            return None;
        }
        self.begun
            .retain(|_, begun| now.saturating_duration_since(*begun) < PATIENCE);
        if self.begun.len() >= AT_ONCE {
            return None;
        }
        let (peer, addresses) = self.waiting.pop_front()?;
        self.begun.insert(peer, now);
        Some((peer, addresses))
    }

    /// The peer is connected, or cannot be dialed.
    pub fn on_settled(&mut self, peer: &PeerId) {
        self.begun.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_passed_on_a_few_at_a_time() {
        let (mut discoveries, now) = (Discoveries::default(), Instant::now());
        (0..1000).for_each(|_| discoveries.add(PeerId::random(), vec![]));
        let first: Vec<_> = std::iter::from_fn(|| discoveries.next(now)).collect();
        assert_eq!(first.len(), AT_ONCE);
        discoveries.on_settled(&first[0].0);
        assert!(discoveries.next(now).is_some() && discoveries.next(now).is_none());

        let rest = (1..).map_while(|round| {
            let later = now + PATIENCE * round;
            let some = std::iter::from_fn(|| discoveries.next(later)).count();
            (some > 0).then_some(some)
        });
        assert_eq!(rest.sum::<usize>(), MAX_WAITING - AT_ONCE - 1);
    }

    #[test]
    fn who_is_found_twice_has_one_turn_with_the_newer_addresses() {
        let (mut discoveries, now, peer) =
            (Discoveries::default(), Instant::now(), PeerId::random());
        let newer: Multiaddr = "/ip4/192.168.1.7/udp/1/quic-v1".parse().unwrap();
        discoveries.add(peer, vec![]);
        discoveries.add(peer, vec![newer.clone()]);
        assert_eq!(discoveries.next(now), Some((peer, vec![newer])));
        assert_eq!(discoveries.next(now), None);
    }
}
