//! All notices that a node knows, and what they amount to.
//!
//! Two nodes that were given the same notices, in whatever order and how often, keep the same ones and
//! judge the same. Nothing here looks at a clock, and a notice is never judged by those that came
//! before it: what each *means* follows from all that are kept, every time anew.
//!
//! - A delegation counts until its end comes.
//! - A revocation counts if an authority signed it, or a delegate whose delegation has not ended and
//!   whose victim is no delegate itself. Of one key, the highest generation counts.
//! - Of the policies whose signer still counts, the highest version is in force; of two of one version,
//!   the one with the lower id.
//!
//! **Bounds.** What one author said about one subject is one place, in which the highest number (then
//! the lower id) stays. Places are ordered by what they are about, authorities before delegates, and
//! only so many are kept, the first ones. All of it depends on what is kept, not on when it came. A
//! delegate can fill no more places than are reserved for one.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    certificate::Certificate,
    delegation::Delegation,
    genesis::Genesis,
    notice::{Author, DelegationEnd, Founded, Notice, NoticeId, PolicyUpdate, Revocation},
    rejection::Rejection,
    signer::SignerKey,
    time::UnixTime,
};

/// Delegations, live and ended: a handful is usual.
const MAX_DELEGATIONS: usize = 256;
/// Nodes whose delegations have been ended.
const MAX_ENDS: usize = 256;
/// Expelled keys on the word of one delegate, or of all authorities together.
const MAX_REVOCATIONS_BY_ONE: usize = 1024;
/// Expelled keys in all.
const MAX_REVOCATIONS: usize = 3072;
/// Policies: of each delegate the newest one.
const MAX_POLICIES: usize = 64;

/// Notices that a node keeps at the most. A digest of as many fits a sync message.
pub const MAX_NOTICES: usize = MAX_DELEGATIONS + MAX_ENDS + MAX_REVOCATIONS + MAX_POLICIES;

/// A notice in its place.
#[derive(Debug, Clone)]
struct Kept<T> {
    id: NoticeId,
    /// Which of two in one place stays.
    rank: u64,
    what: T,
}

/// The outcome of [`Notices::take`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What tells the notice from every other.
    pub id: NoticeId,
    /// Whether it was not known, and is kept.
    pub is_new: bool,
    /// Those that are not kept any more, because of it.
    pub dropped: Vec<NoticeId>,
    /// Why it has no effect as things stand, although it is well-founded and kept.
    pub void: Option<Rejection>,
}

/// The set of notices.
#[derive(Debug, Clone, Default)]
pub struct Notices {
    delegations: BTreeMap<(Reverse<UnixTime>, NoticeId), Kept<(Delegation, Vec<u8>)>>,
    ends: BTreeMap<SignerKey, Kept<DelegationEnd>>,
    revocations: BTreeMap<Author, BTreeMap<SignerKey, Kept<Revocation>>>,
    policies: BTreeMap<Author, Kept<PolicyUpdate>>,
    encoded: BTreeMap<NoticeId, Vec<u8>>,
}

impl Notices {
    /// Takes in an encoded notice, whoever delivered it, if it is well-founded.
    pub fn take(&mut self, encoded: &[u8], genesis: &Genesis) -> Result<Taken, Rejection> {
        let id = Notice::id_of(encoded);
        if self.encoded.contains_key(&id) {
            return Ok(Taken {
                id,
                is_new: false,
                dropped: Vec::new(),
                void: None,
            });
        }
        let notice = Notice::decode(encoded)?;
        let founded = notice.open(genesis)?;
        // Bytes that decode to the same notice would otherwise be another one.
        if notice.encode() != encoded {
            return Err(Rejection::Malformed("a notice in another encoding"));
        }
        let void = self.check_effect(&founded).err();
        let mut dropped = self.put(id, notice, founded);
        let is_new = !dropped.contains(&id);
        dropped.retain(|gone| *gone != id);
        if is_new {
            self.encoded.insert(id, encoded.to_vec());
        }
        for gone in &dropped {
            self.encoded.remove(gone);
        }
        Ok(Taken {
            id,
            is_new,
            dropped,
            void,
        })
    }

    /// Puts a notice into its place. Answers which ones are not kept, perhaps the new one.
    fn put(&mut self, id: NoticeId, notice: Notice, founded: Founded) -> Vec<NoticeId> {
        match founded {
            Founded::Delegation(delegation) => {
                let envelope = match notice {
                    Notice::Delegation(envelope) => envelope,
                    Notice::DelegationEnd(_) | Notice::Revocation(_) | Notice::Policy(_) => {
                        return vec![id];
                    }
                };
                let key = (Reverse(delegation.not_after), id);
                let what = (delegation, envelope);
                let kept = Kept { id, rank: 0, what };
                put_into(&mut self.delegations, key, kept, MAX_DELEGATIONS)
            }
            Founded::DelegationEnd(what) => {
                let (key, rank) = (what.delegate, what.until.0);
                put_into(&mut self.ends, key, Kept { id, rank, what }, MAX_ENDS)
            }
            Founded::Revocation(author, what) => {
                let (key, rank) = (what.subject, what.generation.into());
                let of_author = self.revocations.entry(author).or_default();
                let kept = Kept { id, rank, what };
                let mut dropped = put_into(of_author, key, kept, MAX_REVOCATIONS_BY_ONE);
                dropped.extend(self.drop_surplus_revocations());
                dropped
            }
            Founded::Policy(author, what) => {
                let rank = what.version;
                put_into(
                    &mut self.policies,
                    author,
                    Kept { id, rank, what },
                    MAX_POLICIES,
                )
            }
        }
    }

    fn drop_surplus_revocations(&mut self) -> Option<NoticeId> {
        let count: usize = self.revocations.values().map(BTreeMap::len).sum();
        if count <= MAX_REVOCATIONS {
            return None;
        }
        let mut last = self.revocations.last_entry()?;
        let dropped = last.get_mut().pop_last().map(|(_, kept)| kept.id);
        if last.get().is_empty() {
            last.remove();
        }
        dropped
    }

    // ---- what they amount to -----------------------------------------------------------------------------

    /// Whether a certificate stands: neither its key is expelled, nor the delegation that it rests on
    /// ended.
    pub fn check(
        &self,
        certificate: &Certificate,
        delegation: &Delegation,
    ) -> Result<(), Rejection> {
        if self.is_revoked(&certificate.subject, certificate.generation) {
            return Err(Rejection::Revoked);
        }
        if self.has_ended(&delegation.delegate, delegation.not_before) {
            return Err(Rejection::DelegationEnded);
        }
        Ok(())
    }

    /// Whether this generation of the key's certificates is void.
    pub fn is_revoked(&self, subject: &SignerKey, generation: u32) -> bool {
        self.revocation_of(subject)
            .is_some_and(|(revocation, _)| revocation.generation >= generation)
    }

    /// The revocation of a key that counts, and on whose word.
    pub fn revocation_of(&self, subject: &SignerKey) -> Option<(&Revocation, Author)> {
        let all = self.revocations.iter();
        all.filter_map(|(author, places)| Some((places.get(subject)?, *author)))
            .filter(|(kept, author)| self.check_revocation(author, &kept.what).is_ok())
            // The first author of the highest generation: an authority, if one of them is.
            .min_by_key(|(kept, author)| (Reverse(kept.what.generation), *author))
            .map(|(kept, author)| (&kept.what, author))
    }

    /// Every expelled key, with the revocation that counts.
    pub fn revocations(&self) -> impl Iterator<Item = (&Revocation, Author)> {
        let subjects: BTreeSet<SignerKey> = self
            .revocations
            .values()
            .flat_map(|places| places.keys().copied())
            .collect();
        subjects
            .into_iter()
            .filter_map(|subject| self.revocation_of(&subject))
    }

    /// The notices that prove the expulsion of a key.
    pub fn proof_of_revocation(&self, subject: &SignerKey) -> Vec<Vec<u8>> {
        let proof = self.revocation_of(subject).and_then(|(_, author)| {
            let kept = self.revocations.get(&author)?.get(subject)?;
            self.encoded.get(&kept.id).cloned()
        });
        proof.into_iter().collect()
    }

    /// Whether an authority has ended the delegation of `delegate` that begins at `since`.
    pub fn has_ended(&self, delegate: &SignerKey, since: UnixTime) -> bool {
        self.ended_until(delegate)
            .is_some_and(|until| since <= until)
    }

    /// Up to which beginning the delegations of a node have been ended.
    pub fn ended_until(&self, delegate: &SignerKey) -> Option<UnixTime> {
        self.ends.get(delegate).map(|kept| kept.what.until)
    }

    /// Whether the node has been given powers that no authority has taken back. They may be in the
    /// past or in the future.
    pub fn is_delegate(&self, node: &SignerKey) -> bool {
        self.delegations_of(node).next().is_some()
    }

    /// The node's newest delegation that has not been ended, with its envelope.
    pub fn delegation_of(&self, node: &SignerKey) -> Option<(&Delegation, &[u8])> {
        self.delegations_of(node)
            .max_by_key(|(delegation, envelope)| (delegation.not_before, *envelope))
    }

    fn delegations_of(&self, node: &SignerKey) -> impl Iterator<Item = (&Delegation, &[u8])> {
        self.delegations()
            .filter(move |(delegation, _, has_ended)| delegation.delegate == *node && !has_ended)
            .map(|(delegation, envelope, _)| (delegation, envelope))
    }

    /// Every delegation, with its envelope and whether it has been ended.
    pub fn delegations(&self) -> impl Iterator<Item = (&Delegation, &[u8], bool)> {
        self.delegations.values().map(|kept| {
            let (delegation, envelope) = &kept.what;
            let has_ended = self.has_ended(&delegation.delegate, delegation.not_before);
            (delegation, envelope.as_slice(), has_ended)
        })
    }

    /// The policy in force, and on whose word.
    pub fn policy(&self) -> Option<(&PolicyUpdate, Author)> {
        let counting = self.policies.iter();
        counting
            .filter(|(author, _)| self.check_author(author).is_ok())
            .max_by_key(|(_, kept)| (kept.rank, Reverse(kept.id)))
            .map(|(author, kept)| (&kept.what, *author))
    }

    fn check_author(&self, author: &Author) -> Result<(), Rejection> {
        match author {
            Author::Authority => Ok(()),
            Author::Delegate {
                delegate, since, ..
            } => match self.has_ended(delegate, *since) {
                true => Err(Rejection::DelegationEnded),
                false => Ok(()),
            },
        }
    }

    fn check_revocation(&self, author: &Author, revocation: &Revocation) -> Result<(), Rejection> {
        self.check_author(author)?;
        match author {
            Author::Authority => Ok(()),
            Author::Delegate { .. } => match self.is_delegate(&revocation.subject) {
                true => Err(Rejection::RevokesDelegate),
                false => Ok(()),
            },
        }
    }

    fn check_effect(&self, founded: &Founded) -> Result<(), Rejection> {
        match founded {
            Founded::Delegation(delegation) => {
                match self.has_ended(&delegation.delegate, delegation.not_before) {
                    true => Err(Rejection::DelegationEnded),
                    false => Ok(()),
                }
            }
            Founded::DelegationEnd(_) => Ok(()),
            Founded::Revocation(author, revocation) => self.check_revocation(author, revocation),
            Founded::Policy(author, _) => self.check_author(author),
        }
    }

    // ---- for synchronisation -----------------------------------------------------------------------------

    /// The ids of all, in their order.
    pub fn ids(&self) -> impl Iterator<Item = &NoticeId> {
        self.encoded.keys()
    }

    /// A notice, encoded.
    pub fn get(&self, id: &NoticeId) -> Option<&[u8]> {
        self.encoded.get(id).map(Vec::as_slice)
    }

    /// All, encoded; those first that others need to judge the rest.
    pub fn encoded(&self) -> impl Iterator<Item = &[u8]> {
        let policy = self.policy().map(|(_, author)| author);
        let policy = policy.and_then(|author| self.policies.get(&author));
        let first = policy
            .map(|kept| &kept.id)
            .into_iter()
            .chain(self.ends.values().map(|kept| &kept.id))
            .chain(self.delegations.values().map(|kept| &kept.id));
        let revocations = self.revocations.values().flat_map(BTreeMap::values);
        first
            .chain(revocations.map(|kept| &kept.id))
            .filter_map(|id| self.get(id))
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.encoded.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }
}

/// Puts `kept` into its place unless a higher one is there, and lets go of the places beyond `limit`.
/// Answers which notices are not kept.
fn put_into<K: Ord, T>(
    places: &mut BTreeMap<K, Kept<T>>,
    key: K,
    kept: Kept<T>,
    limit: usize,
) -> Vec<NoticeId> {
    let height = |kept: &Kept<T>| (kept.rank, Reverse(kept.id));
    if places
        .get(&key)
        .is_some_and(|held| height(held) >= height(&kept))
    {
        return vec![kept.id];
    }
    let before = places.insert(key, kept).map(|held| held.id);
    let surplus = match places.len() > limit {
        true => places.pop_last().map(|(_, last)| last.id),
        false => None,
    };
    before.into_iter().chain(surplus).collect()
}
