//! How often a password may be tried.
//!
//! Each try is counted against everything it comes from: the peer, and the address or the relay of each connection the
//! peer has. A source has [`FREE`] tries; then each costs it a pause that doubles. A try that turns out right is taken
//! back. An hour without one forgets a source.
//!
//! All sources together have [`EVERYBODY`] tries in a minute, so that many addresses do not help. Whoever uses these
//! up keeps others from joining by password meanwhile; who has an invite joins all the same.
//!
//! The table needs no other bound: a peer has at most eight connections, so with its id it is nine sources, and all
//! that are remembered tried within the hour.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::connection::Link;

/// Tries that a source has before it must pause.
pub const FREE: u32 = 10;
/// Tries that all sources together have in a minute.
pub const EVERYBODY: u32 = 60;
/// The pause after the last free try; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(60);
/// But not beyond this.
const MAX_PAUSE: Duration = Duration::from_secs(30 * 60);
/// A source that has not tried for so long begins anew. Longer than any pause.
const FORGET: Duration = Duration::from_secs(60 * 60);

const _: () = assert!(MAX_PAUSE.as_secs() < FORGET.as_secs());

const MINUTE: Duration = Duration::from_secs(60);

/// Where a try comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// An IPv4 address, or the /64 of an IPv6 address: whoever has one of its addresses has them all.
    Address(IpAddr),
    /// A relay: those behind it cannot be told apart.
    Relay(PeerId),
    /// The peer itself. It costs nothing to be another, so this one is for those who change their address.
    Peer(PeerId),
}

impl Source {
    /// Where a peer comes from that is connected like this.
    pub fn of(link: Link) -> Source {
        match link {
            Link::Quic(endpoint) | Link::Tcp(endpoint) => match endpoint.ip().to_canonical() {
                IpAddr::V4(ip) => Source::Address(ip.into()),
                IpAddr::V6(ip) => {
                    let network = u128::from(ip) >> 64 << 64;
                    Source::Address(Ipv6Addr::from(network).into())
                }
            },
            Link::Relayed { relay } => Source::Relay(relay),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Address(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Source::Address(IpAddr::V6(ip)) => write!(f, "{ip}/64"),
            Source::Relay(relay) => write!(f, "relay {relay}"),
            Source::Peer(peer) => write!(f, "{peer}"),
        }
    }
}

/// Who has tried how often.
#[derive(Debug, Default)]
pub struct Tries {
    sources: BTreeMap<Source, Tried>,
    minute: Option<Instant>,
    in_minute: u32,
}

#[derive(Debug)]
struct Tried {
    /// Not counting what turned out right.
    count: u32,
    last: Instant,
    next: Instant,
}

impl Tries {
    /// Counts a try, if all sources may. Otherwise nothing is counted: a source that goes on trying waits no longer
    /// for it, and takes nothing from the others.
    pub fn begin(&mut self, sources: &[Source], now: Instant) -> bool {
        if self.minute.is_none_or(|began| now >= began + MINUTE) {
            self.minute = Some(now);
            self.in_minute = 0;
            self.sources.retain(|_, tried| now < tried.last + FORGET);
        }
        let must_pause = |source| {
            let tried = self.sources.get(source);
            tried.is_some_and(|tried| now < tried.next)
        };
        if self.in_minute >= EVERYBODY || sources.iter().any(must_pause) {
            return false;
        }
        self.in_minute += 1;
        for source in sources {
            let tried = self.sources.entry(*source).or_insert(Tried {
                count: 0,
                last: now,
                next: now,
            });
            tried.count += 1;
            tried.last = now;
            tried.next = now + pause(tried.count);
        }
        true
    }

    /// The try was right. It stays counted among everybody's, so that one who knows the password cannot fill the
    /// network in a minute.
    pub fn take_back(&mut self, sources: &[Source]) {
        for source in sources {
            if let Some(tried) = self.sources.get_mut(source) {
                tried.count = tried.count.saturating_sub(1);
                tried.next = tried.last;
            }
        }
    }

    /// How often a source has tried without success.
    pub fn count(&self, source: &Source) -> u32 {
        self.sources.get(source).map_or(0, |tried| tried.count)
    }
}

/// How long a source must pause after its try of this number.
fn pause(count: u32) -> Duration {
    let Some(doublings) = count.checked_sub(FREE) else {
        return Duration::ZERO;
    };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::epoch;

    fn address(last: u8) -> Source {
        Source::Address([192, 0, 2, last].into())
    }

    /// How many of `wanted` tries a second apart are let through.
    fn tries(tries: &mut Tries, source: Source, from: Instant, wanted: u64) -> usize {
        (0..wanted)
            .filter(|second| tries.begin(&[source], from + Duration::from_secs(*second)))
            .count()
    }

    #[test]
    fn a_source_has_ten_tries_and_then_pauses_that_double() {
        let mut table = Tries::default();
        let start = epoch();
        let mut admitted = Vec::new();
        for second in 0..3600 {
            if table.begin(&[address(1)], start + Duration::from_secs(second)) {
                admitted.push(second);
            }
        }
        assert_eq!(admitted[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(admitted[10..], [69, 189, 429, 909, 1869]);
        assert_eq!(table.count(&address(1)), 15);
    }

    #[test]
    fn one_source_does_not_slow_another_down() {
        let mut table = Tries::default();
        assert_eq!(tries(&mut table, address(1), epoch(), 50), 10);
        assert!(table.begin(&[address(2)], epoch() + Duration::from_secs(50)));
        assert!(!table.begin(&[address(2), address(1)], epoch() + Duration::from_secs(50)));
    }

    #[test]
    fn many_sources_together_have_sixty_tries_a_minute() {
        let mut table = Tries::default();
        let admitted = (0..200).filter(|last| table.begin(&[address(*last)], epoch()));
        assert_eq!(admitted.count(), 60);
        assert!(table.begin(&[address(200)], epoch() + MINUTE));
    }

    #[test]
    fn an_hour_of_quiet_is_forgiven_and_forgotten() {
        let mut table = Tries::default();
        tries(&mut table, address(1), epoch(), 100);
        let later = epoch() + Duration::from_secs(100) + FORGET;
        assert_eq!(tries(&mut table, address(1), later, 10), 10);
        tries(&mut table, address(2), later + FORGET + FORGET, 1);
        assert_eq!(table.sources.len(), 1);
    }

    #[test]
    fn a_right_password_is_no_wrong_try() {
        let mut table = Tries::default();
        for _ in 0..40 {
            assert!(table.begin(&[address(1)], epoch()));
            table.take_back(&[address(1)]);
        }
        assert_eq!(table.count(&address(1)), 0);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let source = |text: &str| Source::of(Link::Tcp(text.parse().unwrap()));
        assert_eq!(
            source("[2001:db8:1:2::1]:1"),
            source("[2001:db8:1:2:ffff::9]:2")
        );
        assert_ne!(source("[2001:db8:1:2::1]:1"), source("[2001:db8:1:3::1]:1"));
        assert_eq!(source("[::ffff:192.0.2.1]:1"), address(1));
        assert_eq!(
            source("[2001:db8:1:2::1]:1").to_string(),
            "2001:db8:1:2::/64"
        );
    }

    proptest! {
        /// Whatever is tried when, no source gets more than its free tries and one per minute.
        #[test]
        fn no_pattern_of_tries_gets_more_than_it_should(
            gaps in proptest::collection::vec(0..120_000_u64, 1..200),
        ) {
            let (mut table, mut at, mut admitted) = (Tries::default(), Duration::ZERO, 0_u64);
            for gap in gaps {
                at += Duration::from_millis(gap);
                admitted += u64::from(table.begin(&[address(1)], epoch() + at));
            }
            prop_assert!(admitted <= u64::from(FREE) + at.as_secs() / 60);
        }
    }
}
