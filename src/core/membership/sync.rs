//! How two members bring their directories together: the records of the members, and the
//! [`Notices`](super::notices::Notices), of which both end up with the union.
//!
//! 0. One sends a [`Summary`], a hash of its digest. Mostly the other's is the same, and that is all.
//! 1. Or else the other begins with a [`Digest`]: how new what it knows of each member is, and which
//!    notices it has.
//! 2. The other answers with the records that are newer on its side and the notices that are missing
//!    on the first one's, and names what it is to be sent ([`SyncAnswer`]).
//! 3. The first sends what was asked for.
//!
//! A member that has something new to say sends it alone, unasked. Within a message, notices come
//! first: they say which records are void. Messages are bounded; what
//! does not fit is left for the next round, and `more` says to begin that one at once.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;
use minicbor::{
    Decode, Encode,
    bytes::{ByteArray, ByteVec},
};
use sha2::{Digest as _, Sha256};

use super::{
    directory::{Directory, MAX_MEMBERS},
    notice::{Notice, NoticeId},
    notices::MAX_NOTICES,
    record::Version,
    rejection::Rejection,
    signer::SignerKey,
    wire,
};

/// Records and notices in one message, of each. Checking one takes about a quarter of a millisecond,
/// so a message keeps its reader busy for no more than some 120 ms.
pub const MAX_RECORDS: usize = 256;

/// What everything in a message but its records and notices takes at the most, generously: wants of
/// every member and notice (36 bytes each), or a genesis, a credential and a secret.
const OVERHEAD: usize = 320 * 1024;

const RECORDS_BUDGET: usize = wire::MAX_MESSAGE - OVERHEAD;

/// An id with its head.
const NOTICE_ID: usize = 34;

const _: () = assert!(MAX_MEMBERS * 36 + MAX_NOTICES * NOTICE_ID < OVERHEAD);
// An entry of a digest: a key and two numbers, each with their heads, in a map.
const _: () =
    assert!(MAX_MEMBERS * (1 + 35 + 10 + 10) + MAX_NOTICES * NOTICE_ID < wire::MAX_MESSAGE);
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

/// How new what a node knows of each member is, and which notices it has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Digest {
    #[n(0)]
    members: Vec<Entry>,
    #[n(1)]
    notices: Vec<ByteArray<32>>,
}

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
    /// Which notices are wanted.
    #[n(2)]
    wanted_notices: Vec<ByteArray<32>>,
}

/// Encoded notices, each to be given to [`Directory::take_notice`], and encoded member records, each
/// to be given to [`Directory::admit`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Records {
    #[n(0)]
    pub(super) records: Vec<ByteVec>,
    /// Whether there would have been more: begin another round when these are admitted.
    #[n(1)]
    pub more: bool,
    #[n(2)]
    pub(super) notices: Vec<ByteVec>,
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
            SyncMessage::Digest(digest) => {
                digest.members.len() <= MAX_MEMBERS && digest.notices.len() <= MAX_NOTICES
            }
            SyncMessage::Answer(answer) => {
                answer.wants.len() <= MAX_MEMBERS
                    && answer.wanted_notices.len() <= MAX_NOTICES
                    && answer.news.is_bounded()
            }
            SyncMessage::Records(records) => records.is_bounded(),
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
            ..Records::default()
        })
    }

    /// A message with notices, as many as fit.
    pub fn notices(notices: &[Vec<u8>]) -> SyncMessage {
        let mut picked = Picked::default();
        for notice in notices {
            picked.notice(notice);
        }
        SyncMessage::Records(picked.records)
    }
}

impl Records {
    /// The records, encoded.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.records.iter().map(|record| record.as_slice())
    }

    /// The notices, encoded.
    pub fn notices(&self) -> impl Iterator<Item = &[u8]> {
        self.notices.iter().map(|notice| notice.as_slice())
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are neither records nor notices.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.notices.is_empty()
    }

    fn is_bounded(&self) -> bool {
        self.records.len() <= MAX_RECORDS && self.notices.len() <= MAX_RECORDS
    }
}

/// What goes into a message, as long as there is room.
#[derive(Default)]
struct Picked {
    records: Records,
    bytes: usize,
}

impl Picked {
    fn notice(&mut self, notice: &[u8]) {
        if self.records.notices.len() < MAX_RECORDS && self.has_room_for(notice) {
            self.records.notices.push(notice.to_vec().into());
        } else {
            self.records.more = true;
        }
    }

    fn record(&mut self, record: Vec<u8>) {
        if self.records.records.len() < MAX_RECORDS && self.has_room_for(&record) {
            self.records.records.push(record.into());
        } else {
            self.records.more = true;
        }
    }

    fn is_full(&self) -> bool {
        self.records.more
    }

    fn has_room_for(&mut self, object: &[u8]) -> bool {
        // A byte string's head takes five bytes at the most at this size.
        self.bytes += object.len() + 5;
        self.bytes <= RECORDS_BUDGET
    }
}

impl SyncAnswer {
    /// Whether nothing is left to send: both sides know the same.
    pub fn is_settled(&self) -> bool {
        self.news.is_empty() && self.wants.is_empty() && self.wanted_notices.is_empty()
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
        // A member takes 48 bytes and a notice 32, so their number tells the two apart.
        hash.update((self.len() as u64).to_be_bytes());
        for id in self.notices().ids() {
            hash.update(id);
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
        Digest {
            members: self.members().map(entry).collect(),
            notices: self.notices().ids().map(|id| (*id).into()).collect(),
        }
    }

    /// The answer to another member's digest.
    pub fn answer(&self, digest: &Digest) -> SyncAnswer {
        let theirs: BTreeMap<SignerKey, Version> = digest
            .members
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
        let has = digest
            .notices
            .iter()
            .map(|id| **id)
            .collect::<BTreeSet<NoticeId>>();
        let missing = self.notices().ids().filter(|id| !has.contains(*id));
        let wanted = has.iter().filter(|id| self.notices().get(id).is_none());
        SyncAnswer {
            news: self.pick(missing, news.map(|member| &member.peer_id)),
            wanted_notices: wanted.map(|id| (*id).into()).collect(),
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
        let ids: Vec<NoticeId> = answer.wanted_notices.iter().map(|id| **id).collect();
        self.pick(&ids, &wanted)
    }

    /// As many notices and records of members as fit a message; of what is not known there is nothing.
    fn pick<'a>(
        &self,
        notices: impl IntoIterator<Item = &'a NoticeId>,
        peers: impl IntoIterator<Item = &'a PeerId>,
    ) -> Records {
        let picked = self.pick_notices(notices);
        self.pick_records(picked, peers)
    }

    fn pick_records<'a>(
        &self,
        mut picked: Picked,
        peers: impl IntoIterator<Item = &'a PeerId>,
    ) -> Records {
        for member in peers.into_iter().filter_map(|peer| self.get(peer)) {
            if picked.is_full() {
                break;
            }
            picked.record(member.record.encode());
        }
        picked.records
    }

    fn pick_notices<'a>(&self, ids: impl IntoIterator<Item = &'a NoticeId>) -> Picked {
        let mut picked = Picked::default();
        for notice in ids.into_iter().filter_map(|id| self.notices().get(id)) {
            if picked.is_full() {
                break;
            }
            picked.notice(notice);
        }
        picked
    }

    /// What a new member begins with: as many notices as fit, and as many records of these members as
    /// there is room for.
    pub(super) fn beginning<'a>(&self, peers: impl IntoIterator<Item = &'a PeerId>) -> Records {
        let first = self.notices().encoded().take(MAX_RECORDS);
        let first: Vec<NoticeId> = first.map(Notice::id_of).collect();
        self.pick_records(self.pick_notices(&first), peers)
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
