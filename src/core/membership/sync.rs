//! How two members bring their directories together.
//!
//! 0. One sends a [`Summary`], a hash of its digest. Mostly the other's is the same, and that is all.
//! 1. Or else the other begins with a [`Digest`]: how new what it knows of each member is.
//! 2. The other answers with the records that are newer on its side, and names those that are
//!    newer on the first one's ([`SyncAnswer`]).
//! 3. The first sends the records that were asked for.
//!
//! A member that has something new to say sends its record alone, unasked. Messages are bounded; what
//! does not fit is left for the next round, and `more` says to begin that one at once.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;
use minicbor::{Decode, Encode, bytes::ByteVec};
use sha2::{Digest as _, Sha256};

use super::{
    directory::{Directory, MAX_MEMBERS},
    record::Version,
    rejection::Rejection,
    signer::SignerKey,
    wire,
};

/// Records in one message. Checking one takes about a quarter of a millisecond, so a message
/// keeps its reader busy for no more than some 60 ms.
pub const MAX_RECORDS: usize = 256;

/// What everything in a message but its records takes at the most, generously: wants of every
/// member (36 bytes each), or a genesis, a credential and a secret.
const OVERHEAD: usize = 256 * 1024;

const RECORDS_BUDGET: usize = wire::MAX_MESSAGE - OVERHEAD;

const _: () = assert!(MAX_MEMBERS * 36 < OVERHEAD);
// An entry of a digest: a key and two numbers, each with their heads, in a map.
const _: () = assert!(MAX_MEMBERS * (1 + 35 + 10 + 10) < wire::MAX_MESSAGE);
const _: () = assert!(RECORDS_BUDGET >= wire::MAX_OBJECT);

/// What members send each other to agree on who is a member.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SyncMessage {
    /// What the sender knows; asks for a [`SyncMessage::Answer`].
    #[n(0)]
    Digest(#[n(0)] Digest),
    /// What the receiver of a digest knows better, and what it wants.
    #[n(1)]
    Answer(#[n(0)] SyncAnswer),
    /// Records that were asked for, or the sender's own.
    #[n(2)]
    Records(#[n(0)] Records),
    /// What the sender knows, in short: whoever knows anything else sends its [`SyncMessage::Digest`].
    #[n(3)]
    Summary(#[n(0)] Summary),
}

/// The hash of a [`Digest`]: two directories with the same know the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Summary(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

/// How new what a node knows of each member is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Digest(#[n(0)] Vec<Entry>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Entry {
    #[n(0)]
    member: SignerKey,
    #[n(1)]
    serial: u64,
    #[n(2)]
    seq: u64,
}

/// The answer to a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SyncAnswer {
    /// What is newer here.
    #[n(0)]
    pub news: Records,
    /// Of whom newer records are wanted.
    #[n(1)]
    wants: Vec<SignerKey>,
}

/// Encoded member records, each to be given to [`Directory::admit`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Records {
    #[n(0)]
    pub(super) records: Vec<ByteVec>,
    /// Whether there would have been more: begin another round when these are admitted.
    #[n(1)]
    pub more: bool,
}

impl SyncMessage {
    /// For the wire: 1 MiB at the most.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a message and checks its bounds.
    pub fn decode(bytes: &[u8]) -> Result<SyncMessage, Rejection> {
        let message: SyncMessage = wire::decode_message(bytes)?;
        let is_bounded = match &message {
            SyncMessage::Digest(digest) => digest.0.len() <= MAX_MEMBERS,
            SyncMessage::Answer(answer) => {
                answer.wants.len() <= MAX_MEMBERS && answer.news.records.len() <= MAX_RECORDS
            }
            SyncMessage::Records(records) => records.records.len() <= MAX_RECORDS,
            SyncMessage::Summary(_) => true,
        };
        if !is_bounded {
            return Err(Rejection::Malformed("more entries than a message may have"));
        }
        Ok(message)
    }

    /// A message with one record: news of the member itself.
    pub fn announcement(record: Vec<u8>) -> SyncMessage {
        SyncMessage::Records(Records {
            records: vec![record.into()],
            more: false,
        })
    }
}

impl Records {
    /// The records, encoded.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().map(|record| record.as_slice())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

impl SyncAnswer {
    /// Whether nothing is left to send: both sides know the same.
    pub fn is_settled(&self) -> bool {
        self.news.is_empty() && self.wants.is_empty()
    }

    /// Of whom newer records are wanted.
    pub fn wants(&self) -> impl Iterator<Item = PeerId> {
        self.wants.iter().map(SignerKey::peer_id)
    }
}

impl Directory {
    /// What we know, in short.
    pub fn summary(&self) -> Summary {
        let mut hash = Sha256::new();
        for member in self.members() {
            let version = member.version();
            hash.update(member.certificate.subject.as_bytes());
            hash.update(version.serial.to_be_bytes());
            hash.update(version.seq.to_be_bytes());
        }
        Summary(hash.finalize().into())
    }

    /// What we know, to begin a round with.
    pub fn digest(&self) -> Digest {
        let entry = |member: &super::record::Member| Entry {
            member: member.certificate.subject,
            serial: member.version().serial,
            seq: member.version().seq,
        };
        Digest(self.members().map(entry).collect())
    }

    /// The answer to another member's digest.
    pub fn answer(&self, digest: &Digest) -> SyncAnswer {
        let theirs: BTreeMap<SignerKey, Version> = digest
            .0
            .iter()
            .map(|entry| (entry.member, entry.version()))
            .collect();
        let is_news =
            |member: &&super::record::Member| match theirs.get(&member.certificate.subject) {
                Some(version) => member.version().has_news_for(version),
                None => true,
            };
        let news = self.members().filter(is_news);
        let is_wanted = |member: &SignerKey, version: &Version| match self.get(&member.peer_id()) {
            Some(known) => version.has_news_for(&known.version()),
            None => true,
        };
        SyncAnswer {
            news: self.records_of(news.map(|member| &member.peer_id)),
            wants: theirs
                .iter()
                .filter(|(member, version)| is_wanted(member, version))
                .map(|(member, _)| *member)
                .collect(),
        }
    }

    /// What the other side of our digest asked for.
    pub fn records_wanted(&self, answer: &SyncAnswer) -> Records {
        let wanted: BTreeSet<PeerId> = answer.wants().collect();
        self.records_of(&wanted)
    }

    /// As many records of these members as fit a message; of strangers there are none.
    pub(super) fn records_of<'a>(&self, peers: impl IntoIterator<Item = &'a PeerId>) -> Records {
        let mut picked = Records::default();
        let mut bytes = 0;
        for member in peers.into_iter().filter_map(|peer| self.get(peer)) {
            let record = member.record.encode();
            // A byte string's head takes five bytes at the most at this size.
            bytes += record.len() + 5;
            if picked.records.len() == MAX_RECORDS || bytes > RECORDS_BUDGET {
                picked.more = true;
                break;
            }
            picked.records.push(record.into());
        }
        picked
    }
}

impl Entry {
    fn version(&self) -> Version {
        Version {
            serial: self.serial,
            seq: self.seq,
        }
    }
}
