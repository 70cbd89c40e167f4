//! How members bring their replicas together.
//!
//! - Whoever has written something **announces** it to those it is connected with. They tell a few others that they **have**
//!   it, and those want what they lack.
//! - Whoever is newly connected, and everybody now and then, sends a **summary**, a hash. If the other's is another one, it
//!   says so by its own, and both **fetch** what they lack: a **digest** with a hash for each owner is answered with the
//!   **versions** of what the other has of those owners for which the hashes differ, as many as fit a message; what is newer
//!   there is **wanted**, and **records** come. Then the next page, until all owners were compared.
//! - How busy services are is told directly (**loads**), unsigned: it counts for the sender's own services only.
//! - A node that keeps no replica asks for what lies under a key (**get**).
//!
//! A member that does not serve others answers everything with nothing. All messages are bounded; what an answer has no room
//! for is asked for again.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode, bytes::ByteVec};
use sha2::{Digest as _, Sha256};

use super::{
    Key, Load,
    replica::{MAX_MARKS, MAX_SERVICES, Replica, Version},
    seal::MAX_SEALED,
};
use crate::membership::{Name, Rejection, SignerKey, directory::MAX_MEMBERS, wire};

/// Sealed entries in one message. Checking one takes about a tenth of a millisecond.
pub const MAX_RECORDS: usize = 256;
/// Versions in one message.
pub const MAX_VERSIONS: usize = 16 * 1024;
/// Bytes of a message's records or versions.
const BUDGET: usize = wire::MAX_MESSAGE - 128 * 1024;

// A digest has a key and a hash of each owner, each with its head, in an array.
const _: () = assert!(MAX_MEMBERS * (1 + 34 + 34) < BUDGET);
const _: () = assert!(MAX_SEALED < BUDGET);

/// What members send each other about the registry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RegistryMessage {
    /// It came.
    #[n(0)]
    Taken,
    /// The sender has done enough for the receiver for the moment.
    #[n(1)]
    Later,
    /// News. Asks for nothing.
    #[n(2)]
    Announce(#[n(0)] Records),
    /// News that the sender has, and that may be asked for.
    #[n(3)]
    Have(#[n(0)] Vec<OwnerVersions>),
    /// All that the sender has, in short. Answered by the receiver's own, or by [`RegistryMessage::Same`].
    #[n(4)]
    Summary(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]),
    /// What the sender has of each owner; asks for [`RegistryMessage::Versions`].
    #[n(5)]
    Digest(#[n(0)] Digest),
    /// What the sender has of those owners of whom the digest's sender has something else.
    #[n(6)]
    Versions(#[n(0)] Versions),
    /// Asks for [`RegistryMessage::Records`].
    #[n(7)]
    Want(#[n(0)] Vec<Wanted>),
    /// What was wanted, as far as it fits, and at how many of what was wanted the sender has looked.
    #[n(8)]
    Records(#[n(0)] Records, #[n(1)] u32),
    /// How busy the sender's services are, all of them.
    #[n(9)]
    Loads(#[n(0)] Vec<LoadOf>),
    /// Asks for the [`RegistryMessage::Records`] of all owners under a key.
    #[n(10)]
    Get(#[n(0)] Key),
    /// The sender serves nobody, or was not understood.
    #[n(11)]
    Nothing,
    /// The sender has what the summary says.
    #[n(12)]
    Same,
}

/// Sealed entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Records {
    #[n(0)]
    sealed: Vec<ByteVec>,
}

/// What a node has of each owner, in short.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Digest {
    /// Only the owners after this one are meant.
    #[n(0)]
    pub after: Option<SignerKey>,
    #[n(1)]
    owners: Vec<OwnerDigest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct OwnerDigest {
    #[n(0)]
    owner: SignerKey,
    #[cbor(n(1), with = "minicbor::bytes")]
    digest: [u8; 32],
}

/// The answer to a [`Digest`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Versions {
    /// The owners that were compared and differ.
    #[n(0)]
    pub owners: Vec<OwnerVersions>,
    /// The last owner that was compared, if there was no room for more.
    #[n(1)]
    pub until: Option<SignerKey>,
}

/// How new a node's entries of one owner are.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OwnerVersions {
    /// Whose.
    #[n(0)]
    pub owner: SignerKey,
    #[n(1)]
    keys: Vec<KeyVersion>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct KeyVersion {
    #[n(0)]
    key: Key,
    #[n(1)]
    seq: u64,
    #[n(2)]
    hash: u64,
}

/// Which entries of one owner are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Wanted {
    /// Whose.
    #[n(0)]
    pub owner: SignerKey,
    /// Under which keys.
    #[n(1)]
    pub keys: Vec<Key>,
}

/// How busy a service of the sender is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LoadOf {
    /// Which.
    #[n(0)]
    pub name: Name,
    /// How busy.
    #[n(1)]
    pub load: Load,
}

impl RegistryMessage {
    /// For the network.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads what a member sent.
    pub fn decode(bytes: &[u8]) -> Result<RegistryMessage, Rejection> {
        let message: RegistryMessage = wire::decode_message(bytes)?;
        let is_bounded = match &message {
            RegistryMessage::Announce(records) | RegistryMessage::Records(records, _) => {
                records.sealed.len() <= MAX_RECORDS
            }
            RegistryMessage::Have(owners) => are_bounded(owners),
            RegistryMessage::Versions(versions) => are_bounded(&versions.owners),
            RegistryMessage::Digest(digest) => digest.owners.len() <= MAX_MEMBERS,
            RegistryMessage::Want(wanted) => {
                wanted.len() <= MAX_RECORDS
                    && wanted.iter().map(|wanted| wanted.keys.len()).sum::<usize>() <= MAX_RECORDS
            }
            RegistryMessage::Loads(loads) => loads.len() <= MAX_SERVICES,
            RegistryMessage::Taken
            | RegistryMessage::Later
            | RegistryMessage::Nothing
            | RegistryMessage::Same
            | RegistryMessage::Summary(_)
            | RegistryMessage::Get(_) => true,
        };
        match is_bounded {
            true => Ok(message),
            false => Err(Rejection::Malformed("more entries than a message may have")),
        }
    }
}

fn are_bounded(owners: &[OwnerVersions]) -> bool {
    owners.len() <= MAX_MEMBERS
        && owners.iter().all(|owner| owner.keys.len() <= MAX_MARKS)
        && owners.iter().map(|owner| owner.keys.len()).sum::<usize>() <= MAX_VERSIONS
}

impl Records {
    /// As many of them as fit a message, and whether that is all.
    pub fn pick<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> (Records, bool) {
        let mut room = BUDGET;
        let mut records = Records::default();
        for sealed in all {
            // A byte string's head takes three bytes at this size.
            let Some(rest) = room.checked_sub(sealed.len() + 3) else {
                return (records, false);
            };
            if records.sealed.len() == MAX_RECORDS {
                return (records, false);
            }
            room = rest;
            records.sealed.push(sealed.to_vec().into());
        }
        (records, true)
    }

    /// The sealed entries.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.sealed.iter().map(|sealed| sealed.as_slice())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sealed.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }
}

impl OwnerVersions {
    /// The keys, with how new what lies there is.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, Version)> {
        self.keys
            .iter()
            .map(|known| (&known.key, Version::from_parts(known.seq, known.hash)))
    }

    /// Generously.
    fn encoded_len(&self) -> usize {
        40 + self.keys.iter().map(KeyVersion::encoded_len).sum::<usize>()
    }
}

impl KeyVersion {
    fn encoded_len(&self) -> usize {
        1 + 2 + self.key.as_str().len() + 9 + 9
    }
}

impl Replica {
    /// All that is held of these owners, in short.
    pub fn summary(&mut self, is_member: impl Fn(&SignerKey) -> bool) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (owner, digest) in self.digests().filter(|(owner, _)| is_member(owner)) {
            hash.update(owner.as_bytes());
            hash.update(digest);
        }
        hash.finalize().into()
    }

    /// What is held of the owners after this one, to begin a page with.
    pub fn digest(
        &mut self,
        after: Option<SignerKey>,
        is_member: impl Fn(&SignerKey) -> bool,
    ) -> Digest {
        let is_meant = |owner: &SignerKey| after.is_none_or(|after| *owner > after);
        let all = self.digests();
        let owners = all
            .filter(|(owner, _)| is_meant(owner) && is_member(owner))
            .map(|(owner, digest)| OwnerDigest { owner, digest })
            .take(MAX_MEMBERS)
            .collect();
        Digest { after, owners }
    }

    /// What is held of those owners of whom the sender of a digest has something else: as many owners as fit.
    pub fn versions(
        &mut self,
        theirs: &Digest,
        is_member: impl Fn(&SignerKey) -> bool,
    ) -> Versions {
        let known: BTreeMap<SignerKey, [u8; 32]> = theirs
            .owners
            .iter()
            .map(|known| (known.owner, known.digest))
            .collect();
        let is_meant = |owner: &SignerKey| theirs.after.is_none_or(|after| *owner > after);
        let differing: Vec<SignerKey> = self
            .digests()
            .filter(|(owner, digest)| {
                is_meant(owner) && known.get(owner) != Some(digest) && is_member(owner)
            })
            .map(|(owner, _)| owner)
            .collect();
        let mut versions = Versions::default();
        let (mut room, mut count) = (BUDGET, 0);
        let mut last = None;
        for owner in differing {
            let of_owner = self.versions_of(&owner);
            count += of_owner.keys.len();
            let rest = room.checked_sub(of_owner.encoded_len());
            let Some(rest) = rest.filter(|_| count <= MAX_VERSIONS) else {
                versions.until = last;
                break;
            };
            room = rest;
            last = Some(owner);
            versions.owners.push(of_owner);
        }
        versions
    }

    fn versions_of(&self, owner: &SignerKey) -> OwnerVersions {
        OwnerVersions {
            owner: *owner,
            keys: self.of_owner(owner).map(key_version).collect(),
        }
    }

    /// Of these entries, as far as they are held, how new they are.
    pub fn versions_at(&self, entries: &[(SignerKey, Key)]) -> Vec<OwnerVersions> {
        let mut owners = BTreeMap::<SignerKey, Vec<KeyVersion>>::new();
        for (owner, key) in entries {
            if let Some(held) = self.get(key, owner) {
                owners.entry(*owner).or_default().push(key_version(held));
            }
        }
        owners
            .into_iter()
            .map(|(owner, keys)| OwnerVersions { owner, keys })
            .collect()
    }

    /// What of this is newer than what is held.
    pub fn lacking(&self, theirs: &[OwnerVersions]) -> BTreeSet<(SignerKey, Key)> {
        let mut lacking = BTreeSet::new();
        for of_owner in theirs {
            let owner = of_owner.owner;
            let is_lacking = |key: &Key, version: Version| {
                let known = self.get(key, &owner);
                known.is_none_or(|known| known.version() < version)
            };
            let newer = of_owner.iter().filter(|(key, at)| is_lacking(key, *at));
            lacking.extend(newer.map(|(key, _)| (owner, key.clone())));
        }
        lacking
    }

    /// What was asked for, as far as it is held and fits a message, and how many of what was asked for were looked at.
    pub fn records(&self, wanted: &[Wanted]) -> (Records, u32) {
        let entries = wanted
            .iter()
            .flat_map(|wanted| wanted.keys.iter().map(|key| (key, &wanted.owner)));
        let mut looked_at = 0;
        let held = entries
            .inspect(|_| looked_at += 1)
            .filter_map(|(key, owner)| self.get(key, owner));
        let (records, is_all) = Records::pick(held.map(|held| held.sealed.as_slice()));
        // The last one that was looked at had no room.
        (records, looked_at - u32::from(!is_all))
    }
}

fn key_version(held: &super::replica::Held) -> KeyVersion {
    KeyVersion {
        key: held.entry.key.clone(),
        seq: held.entry.seq,
        hash: held.version().hash(),
    }
}

/// Asks for the first of these.
pub fn want(lacking: &BTreeSet<(SignerKey, Key)>) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (owner, key) in lacking.iter().take(MAX_RECORDS) {
        match wanted.last_mut().filter(|last| last.owner == *owner) {
            Some(last) => last.keys.push(key.clone()),
            None => wanted.push(Wanted {
                owner: *owner,
                keys: vec![key.clone()],
            }),
        }
    }
    wanted
}
