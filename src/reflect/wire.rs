//! What the two daemons say to each other. Fixed lengths, numbers in big endian.
//!
//! | message | where | bytes |
//! |---|---|---|
//! | [`Ask`] | libp2p request | kind; to send also token, port, IP address (4 or 16) |
//! | [`Answer`] | its response | kind; of a clock also milliseconds since 1970 |
//! | [`Token`] | UDP, to the shared socket | 9, 0, 0, 0, token |
//!
//! The datagram's first four bytes are neither a WireGuard message type nor, without the bit 0x40, QUIC. A message of
//! another length or kind is refused, so that later versions are free to add kinds.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// No message between daemons is longer, in bytes.
pub const MAX_MESSAGE: usize = 64;

/// The kinds of [`Ask`].
const CLOCK: u8 = 1;
const SEND: u8 = 2;
/// The kinds of [`Answer`].
const TIME: u8 = 1;
const SENT: u8 = 2;
const TOO_OFTEN: u8 = 3;
const NOT_YOURS: u8 = 4;
const NOT_UNDERSTOOD: u8 = 5;
const UNABLE: u8 = 6;

/// Begins the datagram that carries a token.
const MARK: [u8; 4] = [9, 0, 0, 0];

/// What the asker recognises the datagram by. Nobody else can guess it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 16]);

impl Token {
    /// The datagram that carries it.
    pub fn to_datagram(self) -> [u8; 20] {
        let mut datagram = [0; 20];
        datagram[..4].copy_from_slice(&MARK);
        datagram[4..].copy_from_slice(&self.0);
        datagram
    }

    /// The token of a datagram that carries one.
    pub fn in_datagram(datagram: &[u8]) -> Option<Self> {
        let token = datagram.strip_prefix(&MARK)?;
        Some(Self(token.try_into().ok()?))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What a member is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// "What time is it?"
    Clock,
    /// "Send this token to this endpoint of mine, from a port that is new."
    Send {
        /// Where to.
        endpoint: SocketAddr,
        /// What.
        token: Token,
    },
}

impl Ask {
    /// As it is sent.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Clock => vec![CLOCK],
            Self::Send { endpoint, token } => {
                let mut bytes = vec![SEND];
                bytes.extend(token.0);
                bytes.extend(endpoint.port().to_be_bytes());
                match endpoint.ip() {
                    IpAddr::V4(ip) => bytes.extend(ip.octets()),
                    IpAddr::V6(ip) => bytes.extend(ip.octets()),
                }
                bytes
            }
        }
    }

    /// `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [CLOCK] => Some(Self::Clock),
            [SEND, rest @ ..] => {
                let (token, rest) = rest.split_first_chunk::<16>()?;
                let (port, ip) = rest.split_first_chunk::<2>()?;
                let ip = match ip.len() {
                    4 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
                    16 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
                    _ => return None,
                };
                Some(Self::Send {
                    endpoint: SocketAddr::new(ip, u16::from_be_bytes(*port)),
                    token: Token(*token),
                })
            }
            _ => None,
        }
    }
}

/// What comes of an [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The system clock, in milliseconds since 1970.
    Clock(u64),
    /// The token is on its way.
    Sent,
    /// This member asked for that often enough lately.
    TooOften,
    /// The endpoint is at another address than the one that the asker's connections come from.
    NotYours,
    /// The request is none of ours.
    NotUnderstood,
    /// The system did not send the datagram.
    Unable,
}

impl Answer {
    /// As it is sent.
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Clock(time) => [&[TIME][..], &time.to_be_bytes()].concat(),
            Self::Sent => vec![SENT],
            Self::TooOften => vec![TOO_OFTEN],
            Self::NotYours => vec![NOT_YOURS],
            Self::NotUnderstood => vec![NOT_UNDERSTOOD],
            Self::Unable => vec![UNABLE],
        }
    }

    /// `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [TIME, time @ ..] => Some(Self::Clock(u64::from_be_bytes(time.try_into().ok()?))),
            [SENT] => Some(Self::Sent),
            [TOO_OFTEN] => Some(Self::TooOften),
            [NOT_YOURS] => Some(Self::NotYours),
            [NOT_UNDERSTOOD] => Some(Self::NotUnderstood),
            [UNABLE] => Some(Self::Unable),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hivevpn_core::datagram::is_wireguard;
    use proptest::prelude::*;

    use super::*;

    fn send(endpoint: &str) -> Ask {
        Ask::Send {
            endpoint: endpoint.parse().unwrap(),
            token: Token([7; 16]),
        }
    }

    #[test]
    fn every_message_comes_out_as_it_went_in() {
        for ask in [
            Ask::Clock,
            send("203.0.113.9:1"),
            send("[2001:db8::1]:65535"),
        ] {
            assert!(ask.encode().len() <= MAX_MESSAGE);
            assert_eq!(Ask::decode(&ask.encode()), Some(ask));
        }
        for answer in [
            Answer::Clock(u64::MAX - 1),
            Answer::Sent,
            Answer::TooOften,
            Answer::NotYours,
            Answer::NotUnderstood,
            Answer::Unable,
        ] {
            assert_eq!(Answer::decode(&answer.encode()), Some(answer));
        }
    }

    #[test]
    fn a_token_s_datagram_is_neither_wireguard_nor_quic() {
        let datagram = Token([0xff; 16]).to_datagram();
        assert!(!is_wireguard(&datagram) && datagram[0] & 0x40 == 0);
        assert_eq!(Token::in_datagram(&datagram), Some(Token([0xff; 16])));
        assert_eq!(Token::in_datagram(&datagram[..19]), None);
        assert_eq!(Token::in_datagram(&[&datagram[..], &[0]].concat()), None);
    }

    proptest! {
        #[test]
        fn what_is_understood_is_said_in_one_way_only(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(ask) = Ask::decode(&bytes) {
                prop_assert_eq!(ask.encode(), bytes.clone());
            }
            if let Some(answer) = Answer::decode(&bytes) {
                prop_assert_eq!(answer.encode(), bytes);
            }
        }
    }
}
