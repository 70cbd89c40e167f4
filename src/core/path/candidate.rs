//! Candidates: the endpoints at which a peer may be reached, from whom we have them, and what came of trying.
//!
//! A candidate costs nothing until it is tried. Members name their own in calls and descriptors, multicast finds those
//! of the same site, and authentic datagrams from an unknown address bring the rest. What a member names may be wrong,
//! or somebody else's: that is why their number and the rate at which they are tried have bounds.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

/// What is known of a peer at once; the ones that were named longest ago make room.
const MAX_CANDIDATES: usize = 16;

/// Where an endpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// An address of the peer's own interfaces.
    Host,
    /// Multicast found it on this site.
    Lan,
    /// The peer's router maps it to the peer (UPnP, PCP, NAT-PMP).
    Mapped,
    /// What other members see the peer as.
    Reflexive,
    /// The peer's descriptor names it.
    Announced,
    /// An authentic datagram came from there.
    Heard,
}

impl CandidateKind {
    /// The stable name that `why --json` shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Lan => "lan",
            Self::Mapped => "mapped",
            Self::Reflexive => "reflexive",
            Self::Announced => "announced",
            Self::Heard => "heard",
        }
    }

    /// The number in a [call](crate::signal).
    pub fn code(self) -> u8 {
        match self {
            Self::Announced => 0,
            Self::Host => 1,
            Self::Lan => 2,
            Self::Mapped => 3,
            Self::Reflexive => 4,
            Self::Heard => 5,
        }
    }

    /// The kind with this number; one of a later version means no more than that the endpoint was named.
    pub fn of_code(code: u8) -> Self {
        match code {
            1 => Self::Host,
            2 => Self::Lan,
            3 => Self::Mapped,
            4 => Self::Reflexive,
            5 => Self::Heard,
            _ => Self::Announced,
        }
    }
}

/// An endpoint that may lead to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Where it comes from.
    pub kind: CandidateKind,
    /// Where to send.
    pub endpoint: SocketAddr,
}

/// What came of a candidate that leads nowhere now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not been tried yet.
    Untried,
    /// Nothing came back.
    NoAnswer,
    /// It answered once, and stopped to.
    Lost,
    /// It answered, and is kept for when better ones fail.
    Spare,
}

/// A candidate with its history.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Which.
    pub candidate: Candidate,
    /// How often it was tried in vain since it last answered.
    pub tries: u32,
    /// What came of it.
    pub outcome: Outcome,
    named: Instant,
}

/// The candidates for one peer.
#[derive(Debug, Default)]
pub struct Candidates(Vec<Known>);

impl Candidates {
    /// Remembers a candidate; returns whether it is news. The more telling kind of two stays.
    pub fn learn(&mut self, candidate: Candidate, now: Instant) -> bool {
        if !is_worth_trying(candidate.endpoint) {
            return false;
        }
        if let Some(known) = self.find(candidate.endpoint) {
            known.named = now;
            known.candidate.kind = known.candidate.kind.min(candidate.kind);
            return false;
        }
        if self.0.len() >= MAX_CANDIDATES
            && let Some(oldest) = (0..self.0.len()).min_by_key(|at| self.0[*at].named)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push(Known {
            candidate,
            tries: 0,
            outcome: Outcome::Untried,
            named: now,
        });
        true
    }

    /// Forgets what others saw the peer as, unless it is named still or has ever answered.
    pub fn forget_unnamed(&mut self, named: &[Candidate]) {
        self.0.retain(|known| {
            let is_past = match known.outcome {
                Outcome::Untried | Outcome::NoAnswer => {
                    known.candidate.kind == CandidateKind::Reflexive
                }
                Outcome::Lost | Outcome::Spare => false,
            };
            let endpoint = known.candidate.endpoint;
            !is_past || named.iter().any(|named| named.endpoint == endpoint)
        });
    }

    /// It is being tried, or answered, or was given up.
    pub fn note(&mut self, endpoint: SocketAddr, outcome: Outcome) {
        let Some(known) = self.find(endpoint) else {
            return;
        };
        known.outcome = outcome;
        known.tries = match outcome {
            Outcome::NoAnswer => known.tries.saturating_add(1),
            Outcome::Untried | Outcome::Lost | Outcome::Spare => 0,
        };
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Known> {
        self.0.iter()
    }

    fn find(&mut self, endpoint: SocketAddr) -> Option<&mut Known> {
        self.0
            .iter_mut()
            .find(|known| known.candidate.endpoint == endpoint)
    }
}

/// Whether an endpoint can be one node's: none of a kind that many have or that reaches many.
fn is_worth_trying(endpoint: SocketAddr) -> bool {
    let is_many = match endpoint.ip() {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast() || ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_multicast() || ip.is_loopback() || ip.is_unicast_link_local(),
    };
    !(is_many || endpoint.ip().is_unspecified() || endpoint.port() == 0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::epoch;

    fn candidate(text: &str, kind: CandidateKind) -> Candidate {
        Candidate {
            kind,
            endpoint: text.parse().unwrap(),
        }
    }

    #[test]
    fn every_kind_survives_its_code() {
        for code in 0..6 {
            assert_eq!(CandidateKind::of_code(code).code(), code);
        }
    }

    #[test]
    fn a_flood_of_candidates_pushes_out_the_oldest_only() {
        let mut candidates = Candidates::default();
        let mut now = epoch();
        for port in 1..1000 {
            now += Duration::from_secs(1);
            let endpoint = ([203, 0, 113, 9], port).into();
            let kind = CandidateKind::Announced;
            assert!(candidates.learn(Candidate { kind, endpoint }, now));
        }
        assert_eq!(candidates.iter().count(), MAX_CANDIDATES);
        let oldest = candidates.iter().map(|known| known.named).min();
        assert_eq!(
            oldest,
            Some(now - Duration::from_secs(MAX_CANDIDATES as u64 - 1))
        );
    }

    #[test]
    fn an_endpoint_that_is_named_twice_keeps_the_more_telling_kind() {
        let mut candidates = Candidates::default();
        let lan = candidate("192.0.2.1:7777", CandidateKind::Lan);
        assert!(candidates.learn(lan, epoch()));
        let announced = candidate("192.0.2.1:7777", CandidateKind::Announced);
        assert!(!candidates.learn(announced, epoch()));
        assert_eq!(candidates.iter().next().unwrap().candidate, lan);
    }

    #[test]
    fn a_mapping_that_is_named_no_more_is_forgotten_unless_it_has_answered() {
        let mut candidates = Candidates::default();
        let mapping = |port| Candidate {
            kind: CandidateKind::Reflexive,
            endpoint: ([203, 0, 113, 9], port).into(),
        };
        let host = candidate("192.168.1.2:7777", CandidateKind::Host);
        for one in [mapping(1), mapping(2), mapping(3), host] {
            candidates.learn(one, epoch());
        }
        candidates.note(mapping(1).endpoint, Outcome::NoAnswer);
        candidates.note(mapping(2).endpoint, Outcome::Lost);
        candidates.forget_unnamed(&[mapping(3)]);
        let left: Vec<_> = candidates.iter().map(|known| known.candidate).collect();
        assert_eq!(left, [mapping(2), mapping(3), host]);
    }

    #[test]
    fn addresses_of_many_and_of_nobody_are_not_tried() {
        let mut candidates = Candidates::default();
        for text in [
            "255.255.255.255:1",
            "224.0.0.251:5353",
            "127.0.0.1:7777",
            "0.0.0.0:7777",
            "192.0.2.1:0",
            "[ff02::1]:7777",
            "[::1]:7777",
        ] {
            assert!(!candidates.learn(candidate(text, CandidateKind::Host), epoch()));
        }
    }
}
