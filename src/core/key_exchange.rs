//! How two nodes agree on a secret for their session, by signals in the [greeting](crate::peer::sessions) between them.
//!
//! ```text
//! lower key                                             higher key
//!     │ ◄──────────────────────────────────────────── Want   │   only if it needs keys, and was not offered any
//!     │ Offer: ephemeral encapsulation key, our index ─────► │
//!     │ ◄───────────── Accept: ciphertext, its index ─────── │   both know the session's pre-shared key now
//!     │ ◄───────────── WireGuard's handshake under it ─────► │
//! ```
//!
//! An offer and its acceptance are too long for one datagram on a path that carries 576 bytes, and travel in *parts*. The
//! side that waits repeats what it said; the other, asked twice, says the same twice. Parts are gathered for one exchange at
//! a time, into memory of a known size. Each exchange goes by a number that is a digest of its offer, so that parts of two
//! offers do not mix; authentic they are all, because the greeting is.

use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::{
    peer::sessions::Slot,
    tunnel_key::{ACCEPTANCE, OFFER, Secret},
};

/// The most bytes of a part: with all that is around it, it passes where 576 bytes do, through a relay too.
pub const PART: usize = 400;
/// When what was not answered is said again, for the first time; the pauses double.
const FIRST_PATIENCE: Duration = Duration::from_millis(500);
/// And the longest of them.
const LONGEST_PATIENCE: Duration = Duration::from_secs(8);
/// The same is not said twice within this time, however often the peer asks.
const ECHO: Duration = Duration::from_millis(100);

/// A piece of an offer or an acceptance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The way of agreeing, see [`SUITE`](crate::tunnel_key::SUITE).
    pub suite: u8,
    /// Which exchange.
    pub exchange: u64,
    /// The sender's index (24 bits) of the session to come.
    pub session: u32,
    /// Which piece, from 0.
    pub number: u8,
    /// Up to [`PART`] bytes.
    pub bytes: Vec<u8>,
}

/// The pieces of `whole`.
pub fn parts(
    suite: u8,
    exchange: u64,
    session: u32,
    whole: &[u8],
) -> impl Iterator<Item = Part> + '_ {
    let pieces = whole.chunks(PART).zip(0..);
    pieces.map(move |(bytes, number)| Part {
        suite,
        exchange,
        session,
        number,
        bytes: bytes.to_vec(),
    })
}

/// What the exchange that begins with this offer is called.
pub fn number_of(offer: &[u8], session: u32) -> u64 {
    let digest = Sha256::new()
        .chain_update(session.to_be_bytes())
        .chain_update(offer)
        .finalize();
    let (first, _) = digest.split_first_chunk().expect("32 bytes");
    u64::from_be_bytes(*first)
}

/// Parts that came so far.
#[derive(Debug)]
pub struct Gathering {
    exchange: u64,
    session: u32,
    bytes: Vec<u8>,
    missing: u32,
}

impl Gathering {
    fn new(part: &Part, length: usize) -> Self {
        Self {
            exchange: part.exchange,
            session: part.session,
            bytes: vec![0; length],
            missing: (1 << length.div_ceil(PART)) - 1,
        }
    }

    /// Adds a part of something that is `length` bytes long. Parts of something else that were gathered before are
    /// forgotten. Returns the whole once it is there.
    pub fn add(slot: &mut Option<Self>, part: &Part, length: usize) -> Option<Vec<u8>> {
        let start = usize::from(part.number) * PART;
        let expected = length.checked_sub(start)?.min(PART);
        if expected == 0 || part.bytes.len() != expected {
            return None;
        }
        let is_of = |known: &Self| (known.exchange, known.session) == (part.exchange, part.session);
        let gathering = match slot {
            Some(known) if is_of(known) => known,
            Some(_) | None => slot.insert(Self::new(part, length)),
        };
        gathering.bytes[start..start + expected].copy_from_slice(&part.bytes);
        gathering.missing &= !(1 << part.number);
        if gathering.missing > 0 {
            return None;
        }
        slot.take().map(|whole| whole.bytes)
    }
}

/// Where an exchange stands.
pub enum Stage {
    /// We accept, and have asked for an offer.
    Wanted,
    /// We made an offer.
    Offered {
        /// What opens its acceptance.
        secret: Secret,
        /// The exchange.
        number: u64,
        /// The offer.
        offer: Vec<u8>,
        /// Where the session will be.
        slot: Slot,
    },
    /// We accepted an offer, and begin the session until it stands.
    Accepted {
        /// The exchange.
        number: u64,
        /// What we sent in return.
        acceptance: Vec<u8>,
        /// Where the session is.
        slot: Slot,
    },
}

/// An exchange that is under way.
pub struct Exchange {
    /// Where it stands.
    pub stage: Stage,
    said: Instant,
    patience: Duration,
}

impl Exchange {
    /// It begins, or is at another stage: the first words are said now.
    pub fn at(stage: Stage, now: Instant) -> Self {
        Self {
            stage,
            said: now,
            patience: FIRST_PATIENCE,
        }
    }

    /// When we lose our patience and say the same again.
    pub fn due(&self) -> Instant {
        self.said + self.patience
    }

    /// Whether the same is to be said again because nothing came back.
    pub fn repeats(&mut self, now: Instant) -> bool {
        let is_due = now >= self.due();
        if is_due {
            self.said = now;
            self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
        }
        is_due
    }

    /// Whether the same is to be said again because the peer asks for it.
    pub fn echoes(&mut self, now: Instant) -> bool {
        let may = now >= self.said + ECHO;
        if may {
            self.said = now;
        }
        may
    }
}

const _: () = assert!(OFFER.div_ceil(PART) <= 8 && ACCEPTANCE.div_ceil(PART) <= 8);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(length: usize) -> Vec<u8> {
        (0..length).map(|at| at as u8).collect()
    }

    proptest! {
        #[test]
        fn parts_in_any_order_and_number_make_the_whole(
            length in 1..3000_usize, order in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let parts: Vec<_> = parts(1, 7, 9, &whole(length)).collect();
            let mut gathered = None;
            let mut came = std::collections::BTreeSet::new();
            let everything = 0..parts.len();
            for at in order.iter().map(|index| index.index(parts.len())).chain(everything) {
                came.insert(at);
                let complete = Gathering::add(&mut gathered, &parts[at], length);
                prop_assert_eq!(complete.is_some(), came.len() == parts.len());
                if let Some(complete) = complete {
                    prop_assert_eq!(complete, whole(length));
                    return Ok(());
                }
            }
        }

        #[test]
        fn no_part_panics_or_takes_more_memory_than_the_whole(
            number: u8, exchange: u64, bytes in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let part = Part { suite: 1, exchange, session: 0, number, bytes };
            let mut gathered = None;
            let complete = Gathering::add(&mut gathered, &part, 1184);
            prop_assert!(complete.is_none());
            prop_assert!(gathered.is_none_or(|gathered| gathered.bytes.len() == 1184));
        }
    }

    #[test]
    fn parts_of_two_offers_do_not_mix() {
        let one: Vec<_> = parts(1, 1, 9, &whole(1184)).collect();
        let other: Vec<_> = parts(1, 2, 9, &[0; 1184]).collect();
        let mut gathered = None;
        assert!(Gathering::add(&mut gathered, &one[0], 1184).is_none());
        assert!(Gathering::add(&mut gathered, &one[1], 1184).is_none());
        assert!(Gathering::add(&mut gathered, &other[2], 1184).is_none());
        assert!(Gathering::add(&mut gathered, &other[0], 1184).is_none());
        let complete = Gathering::add(&mut gathered, &other[1], 1184);
        assert_eq!(complete, Some(vec![0; 1184]));
    }

    #[test]
    fn an_exchange_goes_by_its_offer_and_its_session() {
        assert_ne!(number_of(b"offer", 1), number_of(b"offer", 2));
        assert_ne!(number_of(b"offer", 1), number_of(b"other", 1));
    }

    #[test]
    fn what_is_not_answered_is_said_again_ever_more_rarely() {
        let start = crate::testing::epoch();
        let mut exchange = Exchange::at(Stage::Wanted, start);
        let mut said = 0;
        for quarter in 0..400 {
            said += usize::from(exchange.repeats(start + Duration::from_millis(250) * quarter));
        }
        assert!((10..=18).contains(&said), "{said} times in 100 s");
    }
}
