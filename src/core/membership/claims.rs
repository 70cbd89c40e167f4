//! Who holds what several may claim: an address, a name.
//!
//! After a partition two members may have been given the same one. All claims are kept, and the
//! first in order holds; when it goes, the next one does. The order depends on signed facts only,
//! so everyone who knows the same members sees the same holders.

use std::collections::{BTreeMap, BTreeSet};

use libp2p_identity::PeerId;

use super::time::UnixTime;

/// What a claim rests on, the stronger first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Basis {
    /// A certificate gives it.
    Certified,
    /// The node says so.
    Chosen,
}

/// A member's claim. The order of the fields is the order of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub basis: Basis,
    /// The older member keeps.
    pub admitted_at: UnixTime,
    /// A hash of the member's key, to decide between equals.
    pub lot: [u8; 32],
    pub peer: PeerId,
}

#[derive(Debug, Clone)]
pub(super) struct Claims<K>(BTreeMap<K, BTreeSet<Claim>>);

impl<K: Ord> Claims<K> {
    pub fn new() -> Claims<K> {
        Claims(BTreeMap::new())
    }

    pub fn add(&mut self, key: K, claim: Claim) {
        self.0.entry(key).or_default().insert(claim);
    }

    pub fn remove(&mut self, key: &K, claim: &Claim) {
        if let Some(claims) = self.0.get_mut(key) {
            claims.remove(claim);
            if claims.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub fn holder(&self, key: &K) -> Option<PeerId> {
        self.claimants(key).next()
    }

    /// Everyone who claims it, the holder first.
    pub fn claimants(&self, key: &K) -> impl Iterator<Item = PeerId> {
        self.0
            .get(key)
            .into_iter()
            .flatten()
            .map(|claim| claim.peer)
    }

    /// Whether anyone but `peer` claims it.
    pub fn taken_from(&self, peer: &PeerId, key: &K) -> bool {
        self.claimants(key).any(|claimant| claimant != *peer)
    }
}
