//! What peers see us as: the endpoints from which our probes reach them.
//!
//! Each peer has one word about it, and may lie: so an endpoint that several agree on counts more than any other, and
//! no more than a few are told to others. Behind a NAT that maps every destination anew no two peers agree; then one
//! stands for all, because its address at least is right, and goes on to when its mapping is long past: another would be
//! as wrong, and news to everybody.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::peer::PeerIndex;

/// An observation that was not repeated for so long is past: one side of an idle pair probes every 22 s.
const LIFE: Duration = Duration::from_secs(120);
/// A peer that asks by two paths sees two mappings of such a NAT in turn: what it saw before stands beside what it sees for
/// so long.
const ECHO: Duration = Duration::from_secs(30);
/// Endpoints that are told to others: two address families, an old mapping and its successor.
const MAX_TOLD: usize = 4;

/// The observations of all peers.
#[derive(Debug, Default)]
pub struct Observed {
    by: BTreeMap<PeerIndex, Word>,
    told: Vec<SocketAddr>,
}

/// What one peer says.
#[derive(Debug, Clone, Copy)]
struct Word {
    seen: (SocketAddr, Instant),
    /// What it said before, and when for the last time.
    before: Option<(SocketAddr, Instant)>,
}

impl Observed {
    /// A peer saw us there. Returns whether that is another place than before.
    pub fn note(&mut self, peer: PeerIndex, endpoint: SocketAddr, now: Instant) -> bool {
        let seen = (endpoint, now);
        let Some(word) = self.by.get_mut(&peer) else {
            let before = None;
            self.by.insert(peer, Word { seen, before });
            return true;
        };
        let last = std::mem::replace(&mut word.seen, seen);
        if last.0 == endpoint {
            return false;
        }
        word.before = Some(last);
        true
    }

    /// The peer is no more.
    pub fn forget(&mut self, peer: PeerIndex) {
        self.by.remove(&peer);
    }

    /// What each peer saw last, and when.
    pub fn iter(&self) -> impl Iterator<Item = (PeerIndex, SocketAddr, Instant)> {
        self.by
            .iter()
            .map(|(peer, word)| (*peer, word.seen.0, word.seen.1))
    }

    /// The endpoints worth telling others, apart from those that are our own interfaces'. What was told before stays as
    /// long as somebody sees it.
    pub fn worth_telling(&mut self, own: &[SocketAddr], now: Instant) -> &[SocketAddr] {
        self.by.retain(|_, word| now < word.seen.1 + LIFE);
        let mut seen: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for word in self.by.values() {
            let before = word.before.filter(|(_, at)| now < *at + ECHO);
            let before = before.map(|(endpoint, _)| endpoint);
            for endpoint in std::iter::once(word.seen.0).chain(before) {
                if !own.contains(&endpoint) {
                    *seen.entry(endpoint).or_default() += 1;
                }
            }
        }
        let is_disputed = seen.len() > 1 && seen.values().all(|count| *count == 1);
        let is_seen = |told: &SocketAddr| seen.keys().any(|seen| seen.ip() == told.ip());
        self.told
            .retain(|told| seen.contains_key(told) || is_disputed && is_seen(told));
        let agreed = seen.iter().filter(|(_, count)| **count > 1);
        for (endpoint, _) in agreed {
            self.tell(*endpoint);
        }
        for endpoint in seen.keys() {
            let is_family_told = |told: &SocketAddr| told.is_ipv4() == endpoint.is_ipv4();
            if !self.told.iter().any(is_family_told) {
                self.tell(*endpoint);
            }
        }
        &self.told
    }

    fn tell(&mut self, endpoint: SocketAddr) {
        if !self.told.contains(&endpoint) && self.told.len() < MAX_TOLD {
            self.told.push(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::epoch;

    fn peer(number: u32) -> PeerIndex {
        PeerIndex::new(number)
    }

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_several_see_is_told_and_a_lone_lie_is_not() {
        let mut observed = Observed::default();
        let (right, lie) = (endpoint("203.0.113.7:7777"), endpoint("192.0.2.66:53"));
        observed.note(peer(2), right, epoch());
        assert_eq!(observed.worth_telling(&[], epoch()), [right]);
        observed.note(peer(1), lie, epoch());
        observed.note(peer(3), right, epoch());
        assert_eq!(observed.worth_telling(&[], epoch()), [right]);
    }

    #[test]
    fn behind_a_symmetric_nat_one_endpoint_stands_for_all_and_stays() {
        let mut observed = Observed::default();
        let of = |port| SocketAddr::from(([203, 0, 113, 7], port));
        observed.note(peer(5), of(5005), epoch());
        assert_eq!(observed.worth_telling(&[], epoch()), [of(5005)]);
        for number in 0..20 {
            observed.note(peer(number), of(5000 + number as u16), epoch());
            assert_eq!(observed.worth_telling(&[], epoch()), [of(5005)]);
        }
    }

    #[test]
    fn behind_a_symmetric_nat_a_fresh_mapping_is_no_news() {
        let mut observed = Observed::default();
        let of = |port| SocketAddr::from(([203, 0, 113, 7], port));
        observed.note(peer(1), of(5001), epoch());
        assert_eq!(observed.worth_telling(&[], epoch()), [of(5001)]);
        observed.note(peer(2), of(5002), epoch());
        for port in 6000..6020 {
            observed.note(peer(1), of(port), epoch());
            assert_eq!(observed.worth_telling(&[], epoch()), [of(5001)]);
        }
    }

    #[test]
    fn two_mappings_that_one_peer_sees_in_turn_are_no_news() {
        let mut observed = Observed::default();
        let of = |port| SocketAddr::from(([203, 0, 113, 7], port));
        let mut now = epoch();
        for _ in 0..100 {
            for port in [5001, 5002] {
                now += Duration::from_secs(8);
                observed.note(peer(1), of(port), now);
                assert_eq!(observed.worth_telling(&[], now), [of(5001)]);
            }
        }
        for _ in 0..5 {
            now += Duration::from_secs(8);
            observed.note(peer(1), of(6001), now);
        }
        assert_eq!(observed.worth_telling(&[], now), [of(6001)]);
    }

    #[test]
    fn after_the_reboot_of_a_router_the_new_port_is_told_when_two_agree() {
        let mut observed = Observed::default();
        let of = |port| SocketAddr::from(([203, 0, 113, 7], port));
        for number in [1, 2] {
            observed.note(peer(number), of(5001), epoch());
        }
        assert_eq!(observed.worth_telling(&[], epoch()), [of(5001)]);
        for number in [1, 2] {
            observed.note(peer(number), of(6001), epoch() + ECHO);
        }
        assert_eq!(observed.worth_telling(&[], epoch() + ECHO), [of(6001)]);
    }

    #[test]
    fn our_own_addresses_and_what_is_long_past_are_not_told() {
        let mut observed = Observed::default();
        let own = endpoint("192.168.1.2:7777");
        observed.note(peer(1), own, epoch());
        assert!(observed.worth_telling(&[own], epoch()).is_empty());
        observed.note(peer(1), endpoint("203.0.113.7:7777"), epoch());
        assert_eq!(observed.worth_telling(&[own], epoch()).len(), 1);
        assert!(observed.worth_telling(&[own], epoch() + LIFE).is_empty());
    }
}
