//! What the two ends of a measurement say to each other. Fixed lengths, numbers in big endian.
//!
//! | message | where | bytes |
//! |---|---|---|
//! | [`Ask`] | libp2p request, daemon to daemon | kind, seconds |
//! | [`Answer`] | its response | kind; of [`Opened`] also TCP port, UDP port, ticket |
//! | [`Header`] | first on every TCP stream, from the client | ticket, errand, seconds |
//! | [`Total`] | back on an upload, several times a second | bytes, microseconds |
//! | [`Echo`] | UDP, there and back unchanged | ticket, number |
//!
//! A message of another length or kind is refused, so that later versions are free to add kinds.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The longest that either direction is measured, in seconds.
pub const MAX_SECONDS: u8 = 30;
/// The most TCP streams at once.
pub const MAX_STREAMS: u8 = 8;
/// No message between daemons is longer, in bytes.
pub const MAX_MESSAGE: usize = 64;

/// The kind of [`Ask`].
const MEASURE: u8 = 1;
/// The kinds of [`Answer`].
const OPENED: u8 = 1;
const BUSY: u8 = 2;
const NOT_UNDERSTOOD: u8 = 3;
const UNABLE: u8 = 4;

/// A secret of one measurement: other programs on the asker's machine have its address as well, but not this.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket(pub [u8; 16]);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// "Be the far end of a measurement."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// How long each direction will be measured: 1 to [`MAX_SECONDS`].
    pub seconds: u8,
}

impl Ask {
    /// As it is sent.
    pub fn encode(self) -> Vec<u8> {
        vec![MEASURE, self.seconds]
    }

    /// `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[MEASURE, seconds] = bytes else {
            return None;
        };
        are_measurable(seconds).then_some(Self { seconds })
    }
}

/// The ports that were opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// For streams.
    pub tcp: u16,
    /// For echoes.
    pub udp: u16,
    /// To be shown on each stream and in each echo.
    pub ticket: Ticket,
}

/// What comes of an [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Come.
    Opened(Opened),
    /// As many measurements as are allowed at once are under way.
    Busy,
    /// The request is none of ours.
    NotUnderstood,
    /// No port could be opened on the overlay address.
    Unable,
}

impl Answer {
    /// As it is sent.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Opened(opened) => {
                let mut bytes = vec![OPENED];
                bytes.extend(opened.tcp.to_be_bytes());
                bytes.extend(opened.udp.to_be_bytes());
                bytes.extend(opened.ticket.0);
                bytes
            }
            Self::Busy => vec![BUSY],
            Self::NotUnderstood => vec![NOT_UNDERSTOOD],
            Self::Unable => vec![UNABLE],
        }
    }

    /// `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            &[OPENED, t0, t1, u0, u1, ref ticket @ ..] => Some(Self::Opened(Opened {
                tcp: u16::from_be_bytes([t0, t1]),
                udp: u16::from_be_bytes([u0, u1]),
                ticket: Ticket(ticket.try_into().ok()?),
            })),
            [BUSY] => Some(Self::Busy),
            [NOT_UNDERSTOOD] => Some(Self::NotUnderstood),
            [UNABLE] => Some(Self::Unable),
            _ => None,
        }
    }
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Nothing: the measurement goes on as long as it is open.
    Hold,
    /// The client sends, the responder counts and reports a [`Total`] now and then.
    Upload,
    /// The responder sends, the client counts.
    Download,
}

/// The beginning of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Of this measurement.
    pub ticket: Ticket,
    /// What follows.
    pub errand: Errand,
    /// For how long: 1 to [`MAX_SECONDS`].
    pub seconds: u8,
}

impl Header {
    /// Of each.
    pub const LENGTH: usize = 18;

    /// As it is sent.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(&self.ticket.0);
        bytes[16] = match self.errand {
            Errand::Hold => 0,
            Errand::Upload => 1,
            Errand::Download => 2,
        };
        bytes[17] = self.seconds;
        bytes
    }

    /// `None` for an unknown errand or a length of time that is not allowed.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let (&ticket, &[errand, seconds]) = bytes.split_first_chunk()? else {
            return None;
        };
        let errand = match errand {
            0 => Errand::Hold,
            1 => Errand::Upload,
            2 => Errand::Download,
            _ => return None,
        };
        are_measurable(seconds).then_some(Self {
            ticket: Ticket(ticket),
            errand,
            seconds,
        })
    }
}

/// What has arrived so far. The one that covers the whole window is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// TCP payload.
    pub bytes: u64,
    /// Since the first byte; whole microseconds are sent.
    pub elapsed: Duration,
}

impl Total {
    /// Of each.
    pub const LENGTH: usize = 16;

    /// As it is sent.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let micros = u64::try_from(self.elapsed.as_micros()).unwrap_or(u64::MAX);
        let both = u128::from(self.bytes) << 64 | u128::from(micros);
        both.to_be_bytes()
    }

    /// Any bytes are a total.
    pub fn decode(bytes: [u8; Self::LENGTH]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self {
            bytes: (both >> 64) as u64,
            elapsed: Duration::from_micros(both as u64),
        }
    }
}

/// A datagram that comes back as it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Of this measurement.
    pub ticket: Ticket,
    /// Tells one from another.
    pub number: u32,
}

impl Echo {
    /// Of each.
    pub const LENGTH: usize = 20;

    /// As it is sent.
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(&self.ticket.0);
        bytes[16..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// `None` for any other length.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&ticket, number) = bytes.split_first_chunk()?;
        Some(Self {
            ticket: Ticket(ticket),
            number: u32::from_be_bytes(number.try_into().ok()?),
        })
    }
}

fn are_measurable(seconds: u8) -> bool {
    (1..=MAX_SECONDS).contains(&seconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket() -> impl Strategy<Value = Ticket> {
        any::<[u8; 16]>().prop_map(Ticket)
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            (any::<u16>(), any::<u16>(), ticket())
                .prop_map(|(tcp, udp, ticket)| Answer::Opened(Opened { tcp, udp, ticket })),
            Just(Answer::Busy),
            Just(Answer::NotUnderstood),
            Just(Answer::Unable),
        ]
    }

    fn errand() -> impl Strategy<Value = Errand> {
        prop_oneof![
            Just(Errand::Hold),
            Just(Errand::Upload),
            Just(Errand::Download)
        ]
    }

    proptest! {
        #[test]
        fn every_message_comes_out_as_it_went_in(
            answer in answer(),
            ticket in ticket(),
            errand in errand(),
            seconds in 1..=MAX_SECONDS,
            number: u32,
            bytes: u64,
            micros: u64,
        ) {
            let ask = Ask { seconds };
            prop_assert_eq!(Ask::decode(&ask.encode()), Some(ask));
            prop_assert_eq!(Answer::decode(&answer.encode()), Some(answer));
            prop_assert!(answer.encode().len() <= MAX_MESSAGE);
            let header = Header { ticket, errand, seconds };
            prop_assert_eq!(Header::decode(&header.encode()), Some(header));
            let echo = Echo { ticket, number };
            prop_assert_eq!(Echo::decode(&echo.encode()), Some(echo));
            let total = Total { bytes, elapsed: Duration::from_micros(micros) };
            prop_assert_eq!(Total::decode(total.encode()), total);
        }

        /// What is understood has one spelling only; most bytes are not understood, and none do harm.
        #[test]
        fn whatever_is_understood_is_spelled_as_we_would(
            kind in 0..6_u8,
            rest in prop::collection::vec(any::<u8>(), 0..24),
            header: [u8; Header::LENGTH],
        ) {
            let bytes = [&[kind], &rest[..]].concat();
            if let Some(ask) = Ask::decode(&bytes) {
                prop_assert_eq!(ask.encode(), bytes.clone());
            }
            if let Some(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), bytes.clone());
            }
            if let Some(echo) = Echo::decode(&bytes) {
                prop_assert_eq!(&echo.encode()[..], &bytes[..]);
            }
            if let Some(read) = Header::decode(&header) {
                prop_assert_eq!(read.encode(), header);
            }
        }
    }

    #[test]
    fn unknown_kinds_and_lengths_of_time_are_refused() {
        for wrong in [
            &[][..],
            &[MEASURE],
            &[MEASURE, 0],
            &[MEASURE, MAX_SECONDS + 1],
            &[MEASURE, 5, 0],
            &[MEASURE + 1, 5],
        ] {
            assert_eq!(Ask::decode(wrong), None, "{wrong:?}");
        }
        assert_eq!(Answer::decode(&[9]), None);
        assert_eq!(Answer::decode(&[BUSY, 0]), None);
        let header = Header {
            ticket: Ticket([7; 16]),
            errand: Errand::Download,
            seconds: MAX_SECONDS,
        };
        for (at, wrong) in [(16, 3), (17, 0), (17, MAX_SECONDS + 1)] {
            let mut bytes = header.encode();
            bytes[at] = wrong;
            assert_eq!(Header::decode(&bytes), None, "{wrong} at {at}");
        }
    }

    #[test]
    fn a_ticket_is_not_printed() {
        assert_eq!(format!("{:?}", Ticket([42; 16])), "Ticket(…)");
    }
}
