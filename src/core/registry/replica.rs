//! All entries that a node knows, found by key and owner.
//!
//! Of each owner and key there is one, the **highest** that was seen: of the highest sequence number, and should there be two
//! with that, of the lowest hash. Replicas that saw the same entries hold the same, in whatever order these came. An entry
//! that is over and a tombstone stay as **marks** for a while ([`RETENTION`](super::entry::RETENTION)): nothing below comes
//! back.
//!
//! Memory is bounded twice. An owner may have [`MAX_LIVE`] entries with a value, among them [`MAX_SERVICES`] services,
//! [`MAX_MARKS`] with its marks, and [`MAX_BYTES`]; what it has may always be replaced or deleted, but nothing is added. All
//! owners together have [`MAX_ALL`] entries and [`MAX_ALL_BYTES`]; when there is no room for another one, whoever takes most
//! of it loses what would be forgotten first, the newcomer included.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use sha2::{Digest, Sha256};

use super::{Entry, Key, Service, entry::Signed};
use crate::membership::{Rejection, SignerKey, UnixTime};

/// Entries with a value that one owner may have at a time.
pub const MAX_LIVE: usize = 256;
/// Services among them.
pub const MAX_SERVICES: usize = 64;
/// Keys of one owner that are remembered, tombstones and what is over included.
pub const MAX_MARKS: usize = 1024;
/// Sealed bytes of one owner.
pub const MAX_BYTES: usize = 512 * 1024;
/// Entries of all owners, all marks included.
pub const MAX_ALL: usize = 64 * 1024;
/// Sealed bytes of all owners.
pub const MAX_ALL_BYTES: usize = 64 * 1024 * 1024;

/// How new an entry is; the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Its sequence number.
    pub seq: u64,
    /// The first bytes of its hash, turned round: of two, the lower hash is the greater version.
    tie: u64,
}

impl Version {
    /// Of an entry with this number, sealed to bytes with this hash.
    fn of(seq: u64, hash: &[u8; 32]) -> Version {
        let [a, b, c, d, e, f, g, h, ..] = *hash;
        Version::from_parts(seq, u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// As it is spelt in messages: the number, and the first eight bytes of the hash.
    pub fn from_parts(seq: u64, hash: u64) -> Version {
        Version { seq, tie: !hash }
    }

    /// The first eight bytes of the hash.
    pub fn hash(&self) -> u64 {
        !self.tie
    }
}

/// An entry as it is held: what it says, and what proves it.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// What it says.
    pub entry: Entry,
    /// Its owner's key.
    pub owner: SignerKey,
    /// What proves it, ready to be passed on.
    pub sealed: Vec<u8>,
    /// The service that it tells of.
    pub service: Option<Service>,
    /// SHA-256 of `sealed`.
    pub hash: [u8; 32],
}

impl Held {
    pub(super) fn new(sealed: &[u8], signed: &Signed) -> Held {
        Held {
            entry: signed.entry.clone(),
            owner: signed.owner,
            sealed: sealed.to_vec(),
            service: None,
            hash: Sha256::digest(sealed).into(),
        }
    }

    pub(super) fn with_service(mut self, service: Option<Service>) -> Held {
        self.service = service;
        self
    }

    /// How new it is.
    pub fn version(&self) -> Version {
        Version::of(self.entry.seq, &self.hash)
    }
}

/// What one owner has.
#[derive(Debug, Clone, Default)]
struct Share {
    keys: BTreeSet<Key>,
    bytes: usize,
    /// What it has, in short; none, if it has changed since.
    digest: Option<[u8; 32]>,
}

/// What putting an entry in did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Whether it is in now.
    pub is_news: bool,
    /// What had to give way, by owner and key.
    pub dropped: Vec<(SignerKey, Key)>,
}

/// All entries.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// Boxed, because most keys have one owner and a map makes room for eleven.
    keys: BTreeMap<Key, BTreeMap<SignerKey, Box<Held>>>,
    owners: BTreeMap<SignerKey, Share>,
    /// The ends of all that is not over.
    ends: BTreeSet<(UnixTime, SignerKey, Key)>,
    /// When everything is forgotten.
    forgotten_at: BTreeSet<(UnixTime, SignerKey, Key)>,
    /// Hashes of everything.
    hashes: BTreeMap<[u8; 32], (SignerKey, Key)>,
    bytes: usize,
}

impl Replica {
    /// What is held, if it is exactly these sealed bytes.
    pub fn known(&self, sealed: &[u8]) -> Option<&Held> {
        let hash: [u8; 32] = Sha256::digest(sealed).into();
        let (owner, key) = self.hashes.get(&hash)?;
        self.get(key, owner)
    }

    /// What an owner has under a key.
    pub fn get(&self, key: &Key, owner: &SignerKey) -> Option<&Held> {
        self.keys.get(key)?.get(owner).map(Box::as_ref)
    }

    /// What all have under a key.
    pub fn at(&self, key: &Key) -> impl Iterator<Item = &Held> {
        let owners = self.keys.get(key).into_iter();
        owners.flat_map(BTreeMap::values).map(Box::as_ref)
    }

    /// Everything.
    pub fn all(&self) -> impl Iterator<Item = &Held> {
        let owners = self.keys.values();
        owners.flat_map(BTreeMap::values).map(Box::as_ref)
    }

    /// What all have below a key: `weather/berlin` is below `weather`.
    pub fn below(&self, key: &str) -> impl Iterator<Item = &Held> + use<'_> {
        // '0' comes right after '/'.
        let (from, until) = (format!("{key}/"), format!("{key}0"));
        self.keys
            .range::<str, _>((
                Bound::Included(from.as_str()),
                Bound::Excluded(until.as_str()),
            ))
            .flat_map(|(_, owners)| owners.values().map(Box::as_ref))
    }

    /// What one owner has, by key.
    pub fn of_owner<'a>(
        &'a self,
        owner: &'a SignerKey,
    ) -> impl Iterator<Item = &'a Held> + use<'a> {
        let keys = self
            .owners
            .get(owner)
            .into_iter()
            .flat_map(|share| &share.keys);
        keys.filter_map(|key| self.get(key, owner))
    }

    /// How many entries there are, all marks included.
    pub fn len(&self) -> usize {
        self.forgotten_at.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sealed bytes of all.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Puts an entry in, if it is higher than what is there. Whether it may be believed and its owner may have it is
    /// [judged](super::validator::Pipeline) before.
    pub fn put(&mut self, held: Held, now: UnixTime) -> Put {
        let known = self.get(&held.entry.key, &held.owner);
        if known.is_some_and(|known| known.version() >= held.version()) {
            return Put::default();
        }
        self.remove(&held.owner, &held.entry.key);
        let (owner, key) = (held.owner, held.entry.key.clone());
        let share = self.owners.entry(owner).or_default();
        share.keys.insert(key.clone());
        share.bytes += held.sealed.len();
        share.digest = None;
        self.bytes += held.sealed.len();
        if held.entry.is_live(now) {
            self.ends.insert((held.entry.expires, owner, key.clone()));
        }
        self.forgotten_at
            .insert((held.entry.forgotten_at(), owner, key.clone()));
        self.hashes.insert(held.hash, (owner, key.clone()));
        self.keys
            .entry(key.clone())
            .or_default()
            .insert(owner, Box::new(held));
        let dropped = self.make_room();
        Put {
            is_news: !dropped.contains(&(owner, key)),
            dropped,
        }
    }

    /// Drops what is too much for all.
    fn make_room(&mut self) -> Vec<(SignerKey, Key)> {
        let mut dropped = Vec::new();
        while self.len() > MAX_ALL || self.bytes > MAX_ALL_BYTES {
            let weight = |share: &Share| {
                share
                    .bytes
                    .max(share.keys.len() * (MAX_ALL_BYTES / MAX_ALL))
            };
            let Some(owner) = self
                .owners
                .iter()
                .max_by_key(|(_, share)| weight(share))
                .map(|(owner, _)| *owner)
            else {
                break;
            };
            let first = self
                .of_owner(&owner)
                .min_by_key(|held| held.entry.forgotten_at())
                .map(|held| held.entry.key.clone());
            let Some(key) = first else { break };
            self.remove(&owner, &key);
            dropped.push((owner, key));
        }
        dropped
    }

    fn remove(&mut self, owner: &SignerKey, key: &Key) {
        let Some(held) = self
            .keys
            .get_mut(key)
            .and_then(|owners| owners.remove(owner))
        else {
            return;
        };
        if self.keys.get(key).is_some_and(BTreeMap::is_empty) {
            self.keys.remove(key);
        }
        self.bytes -= held.sealed.len();
        self.hashes.remove(&held.hash);
        self.ends.remove(&(held.entry.expires, *owner, key.clone()));
        self.forgotten_at
            .remove(&(held.entry.forgotten_at(), *owner, key.clone()));
        let Some(share) = self.owners.get_mut(owner) else {
            return;
        };
        share.keys.remove(key);
        share.bytes -= held.sealed.len();
        share.digest = None;
        if share.keys.is_empty() {
            self.owners.remove(owner);
        }
    }

    /// Whether its owner may have this one besides what it has.
    pub(super) fn check_quota(&self, held: &Held, now: UnixTime) -> Result<(), Rejection> {
        let Some(share) = self.owners.get(&held.owner) else {
            return Ok(());
        };
        let replaced = self.get(&held.entry.key, &held.owner);
        let freed = replaced.map_or(0, |replaced| replaced.sealed.len());
        if replaced.is_none() && share.keys.len() >= MAX_MARKS {
            return Err(Rejection::OwnerFull);
        }
        if held.entry.is_tombstone() || !held.entry.is_live(now) {
            return Ok(());
        }
        let others = self.of_owner(&held.owner).map(|other| &other.entry);
        let others = others.filter(|other| {
            other.key != held.entry.key && other.is_live(now) && !other.is_tombstone()
        });
        let (mut live, mut services) = (0, 0);
        for other in others {
            live += 1;
            services += usize::from(other.key.is_for_services());
        }
        let is_full = live >= MAX_LIVE
            || held.entry.key.is_for_services() && services >= MAX_SERVICES
            || share.bytes - freed + held.sealed.len() > MAX_BYTES;
        match is_full {
            true => Err(Rejection::OwnerFull),
            false => Ok(()),
        }
    }

    // ---- time --------------------------------------------------------------------------------------------

    /// When something ends or is forgotten next.
    pub fn next(&self) -> Option<UnixTime> {
        let ends = self.ends.first().map(|(at, _, _)| *at);
        let forgotten = self.forgotten_at.first().map(|(at, _, _)| *at);
        ends.into_iter().chain(forgotten).min()
    }

    /// Lets go of what is to be forgotten. Returns it, and whether anything that was there is over.
    pub fn expire(&mut self, now: UnixTime) -> (Vec<(SignerKey, Key)>, bool) {
        let mut is_over = false;
        while self.ends.first().is_some_and(|(at, _, _)| now >= *at) {
            self.ends.pop_first();
            is_over = true;
        }
        let mut forgotten = Vec::new();
        while let Some((at, owner, key)) = self.forgotten_at.first().cloned() {
            if now < at {
                break;
            }
            self.remove(&owner, &key);
            forgotten.push((owner, key));
        }
        (forgotten, is_over)
    }

    // ---- in short ----------------------------------------------------------------------------------------

    /// What each owner has, in short: two replicas with the same hash of an owner have the same of it.
    pub fn digests(&mut self) -> impl Iterator<Item = (SignerKey, [u8; 32])> + '_ {
        let keys = &self.keys;
        self.owners.iter_mut().map(|(owner, share)| {
            let Share {
                keys: its, digest, ..
            } = share;
            let digest = digest.get_or_insert_with(|| {
                let held = its
                    .iter()
                    .filter_map(|key| keys.get(key)?.get(owner).map(Box::as_ref));
                digest_of(held)
            });
            (*owner, *digest)
        })
    }
}

fn digest_of<'a>(all: impl Iterator<Item = &'a Held>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for held in all {
        let key = held.entry.key.as_str().as_bytes();
        // A key has at most 255 bytes.
        hash.update([key.len() as u8]);
        hash.update(key);
        hash.update(held.entry.seq.to_be_bytes());
        hash.update(held.version().hash().to_be_bytes());
    }
    hash.finalize().into()
}
