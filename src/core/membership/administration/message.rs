//! What a member says to the node that it wants to act on, and what that answers.
//!
//! Requests and replies inside are the shell's: the core carries them and knows nothing of what they mean.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::membership::{capability::Roles, name::Name, rejection::Rejection, wire};

/// The longest [`Ask`], in bytes. Requests are short.
pub const MAX_ASK: usize = 64 << 10;
/// The longest [`Answer`], in bytes: the status of a node that knows a thousand others.
pub const MAX_ANSWER: usize = 1 << 20;

/// From a member to the node that it wants to act on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Ask {
    /// To be given what the node's configuration lists for this member.
    #[n(0)]
    Enter,
    /// To be challenged as an administrator.
    #[n(1)]
    Begin {
        /// The administrator's name.
        #[n(0)]
        user: Name,
        /// OPAQUE's first message.
        #[cbor(n(1), with = "minicbor::bytes")]
        begun: Vec<u8>,
    },
    /// OPAQUE's third message: the challenge is met.
    #[n(2)]
    Prove(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To have a request answered.
    #[n(3)]
    Call {
        /// The right to ask it.
        #[cbor(n(0), with = "minicbor::bytes")]
        capability: Vec<u8>,
        /// The request.
        #[cbor(n(1), with = "minicbor::bytes")]
        request: Vec<u8>,
    },
}

/// A capability, and what the member should know of it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Grant {
    /// To be shown with each call.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub capability: Vec<u8>,
    /// What it allows.
    #[n(1)]
    pub roles: Roles,
    /// How many seconds it is good for.
    #[n(2)]
    pub seconds: u32,
}

/// The node's answer to an [`Ask`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To [`Ask::Begin`]: OPAQUE's second message.
    #[n(0)]
    Challenge(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To [`Ask::Enter`] and [`Ask::Prove`].
    #[n(1)]
    Granted(#[n(0)] Grant),
    /// To [`Ask::Call`].
    #[n(2)]
    Replied(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Nothing was done.
    #[n(3)]
    Refused(#[n(0)] Refusal),
}

/// Why nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The call showed no capability that is good, or it is no more.
    #[n(0)]
    NotAdministrator,
    /// The node's configuration gives this member nothing: it needs a password.
    #[n(1)]
    NotListed,
    /// There is no such administrator, or its password is another.
    #[n(2)]
    WrongPassword,
    /// Not now.
    #[n(3)]
    TooOften {
        /// When it may be worth a try, in seconds.
        #[n(0)]
        seconds: u32,
    },
    /// The capability is good, but not for this request.
    #[n(4)]
    MissingRole(#[n(0)] Roles),
    /// Nobody may ask this from another machine.
    #[n(5)]
    OnlyThere,
    /// It is of another version, or damaged.
    #[n(6)]
    NotUnderstood,
}

impl Refusal {
    pub(super) fn too_often(wait: Duration) -> Refusal {
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        Refusal::TooOften {
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
        }
    }
}

impl Ask {
    /// For the wire.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Ask, Rejection> {
        wire::decode(bytes)
    }
}

impl Answer {
    /// For the wire.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads one.
    pub fn decode(bytes: &[u8]) -> Result<Answer, Rejection> {
        wire::decode_message(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::membership::testing::name;

    fn asks() -> Vec<Ask> {
        vec![
            Ask::Enter,
            Ask::Begin {
                user: name("admin"),
                begun: vec![1; 96],
            },
            Ask::Prove(vec![2; 64]),
            Ask::Call {
                capability: vec![3; 300],
                request: b"{\"command\":\"status\"}".to_vec(),
            },
        ]
    }

    fn answers() -> Vec<Answer> {
        let refusals = [
            Refusal::NotAdministrator,
            Refusal::NotListed,
            Refusal::WrongPassword,
            Refusal::TooOften { seconds: 9 },
            Refusal::MissingRole(Roles::CONFIG),
            Refusal::OnlyThere,
            Refusal::NotUnderstood,
        ];
        let others = [
            Answer::Challenge(vec![1; 320]),
            Answer::Granted(Grant {
                capability: vec![3; 300],
                roles: Roles::METRICS | Roles::SHELL,
                seconds: 3600,
            }),
            Answer::Replied(b"{\"ok\":null}".to_vec()),
        ];
        others
            .into_iter()
            .chain(refusals.map(Answer::Refused))
            .collect()
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same() {
        for ask in asks() {
            assert_eq!(Ask::decode(&ask.encode()), Ok(ask));
        }
        for answer in answers() {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn a_truncated_message_is_none() {
        for bytes in asks().iter().map(Ask::encode) {
            for len in 0..bytes.len() {
                assert!(Ask::decode(&bytes[..len]).is_err());
            }
        }
        for bytes in answers().iter().map(Answer::encode) {
            for len in 0..bytes.len() {
                assert!(Answer::decode(&bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn no_time_to_wait_is_no_time_at_all() {
        let wait = |millis| Refusal::too_often(Duration::from_millis(millis));
        assert_eq!(wait(0), Refusal::TooOften { seconds: 1 });
        assert_eq!(wait(1001), Refusal::TooOften { seconds: 2 });
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = Ask::decode(&bytes);
            let _ = Answer::decode(&bytes);
        }
    }
}
