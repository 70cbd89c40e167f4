//! What an entry must be to be believed: the one pipeline that everything goes through, whoever delivered it.
//!
//! In this order, the cheap before the dear and what proves before what is proven: size, version, seal; the signature and
//! that it is for an entry; the slot it was found in; that its owner signed it; that its owner is a member, whose
//! certificate is valid and was not taken back; the network; times; the sequence number; the bounds of its fields; what
//! belongs under such a key; the rules of this node; the quotas.
//!
//! What time can change is checked again when an entry is read: its end, its owner's certificate, the rules.

use std::fmt;

use super::{
    Entry, Key,
    entry::Signed,
    predicates::Rules,
    replica::{Held, Replica, Version},
    schema,
    seal::Sealing,
};
use crate::membership::{Certificate, Directory, Name, Network, Rejection, SignerKey, UnixTime};

/// Something that an entry must fulfil beyond what all must. An application may add its own, as a predicate of a rule.
pub trait Validator: fmt::Debug + Send + Sync {
    /// What logs call it.
    fn name(&self) -> &str;

    /// Whether it is fulfilled; if not, why. Asked when an entry arrives and whenever it is read, so it must be quick.
    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection>;

    /// Whether the answer may change by the passing of time alone.
    fn depends_on_time(&self) -> bool {
        false
    }
}

/// An entry that may be believed, all but the rules being fulfilled.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// The entry.
    pub entry: &'a Entry,
    /// What its owner is.
    pub certificate: &'a Certificate,
    /// The time.
    pub now: UnixTime,
    is_named: bool,
    occasion: Occasion,
    replica: &'a Replica,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    Arrival,
    Reading,
}

impl<'a> Candidate<'a> {
    /// The name in the owner's certificate, unless an older member has it.
    pub fn owner_name(&self) -> Option<&'a Name> {
        self.is_named.then_some(&self.certificate.name)
    }

    /// What else its owner has, of those that come first: for an entry that arrives, all the others; for one that is read,
    /// those with lower keys. So of too many, the same ones are read every time.
    pub fn others(&self) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let Candidate {
            entry,
            now,
            occasion,
            ..
        } = *self;
        let all = self.replica.of_owner(&self.certificate.subject);
        all.map(|held| &held.entry).filter(move |other| {
            let comes_first = match occasion {
                Occasion::Arrival => other.key != entry.key,
                Occasion::Reading => other.key < entry.key,
            };
            comes_first && other.is_live(now) && !other.is_tombstone()
        })
    }
}

/// All that judges.
#[derive(Clone, Copy)]
pub struct Pipeline<'a> {
    /// Which network it must be for.
    pub network: &'a Network,
    /// How that network's entries are sealed.
    pub sealing: &'a Sealing,
    /// Who is a member.
    pub directory: &'a Directory,
    /// What this node wants besides.
    pub rules: &'a Rules,
    /// What is known already.
    pub replica: &'a Replica,
    /// The time.
    pub now: UnixTime,
}

/// What came through the pipeline.
#[derive(Debug)]
pub struct Passed {
    /// Ready for the replica.
    pub held: Held,
    /// Its owner has signed another entry with the same sequence number, which is to be replaced by this one.
    pub equivocates: bool,
}

/// What did not.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: Rejection,
    /// The entry, if nothing is wrong but that its owner is no member now: if it is one again, the entry is good.
    pub waiting: Option<Held>,
}

impl From<Rejection> for Refused {
    fn from(reason: Rejection) -> Self {
        let waiting = None;
        Self { reason, waiting }
    }
}

impl Pipeline<'_> {
    /// An entry that arrives, from `slot` if it was found in the DHT.
    pub fn arrival(&self, sealed: &[u8], slot: Option<&[u8]>) -> Result<Passed, Refused> {
        let signed = Entry::open(&self.sealing.unseal(sealed)?)?;
        if slot.is_some_and(|slot| slot != self.slot_of(&signed.entry)) {
            return Err(Rejection::WrongSlot.into());
        }
        if signed.signer != signed.owner {
            return Err(Rejection::NotByOwner.into());
        }
        let owner = self.owner(&signed.owner);
        if signed.network != self.network.id() {
            return Err(Rejection::WrongNetwork.into());
        }
        let held = Held::new(sealed, &signed);
        match owner {
            Ok(certificate) => self
                .judge(&signed, held, certificate)
                .map_err(Refused::from),
            Err(reason) => {
                let service = self.judge_content(&signed, &held)?;
                let waiting = Some(held.with_service(service));
                Err(Refused { reason, waiting })
            }
        }
    }

    fn judge(
        &self,
        signed: &Signed,
        held: Held,
        certificate: &Certificate,
    ) -> Result<Passed, Rejection> {
        signed.check_times(self.now)?;
        let equivocates = self.check_seq(&held)?;
        let service = self.judge_content(signed, &held)?;
        self.rules
            .validate(&self.candidate(&held.entry, certificate, Occasion::Arrival))?;
        self.replica.check_quota(&held, self.now)?;
        let held = held.with_service(service);
        Ok(Passed { held, equivocates })
    }

    /// What follows from the entry alone.
    fn judge_content(
        &self,
        signed: &Signed,
        held: &Held,
    ) -> Result<Option<super::Service>, Rejection> {
        signed.check_times(self.now)?;
        signed.check_fields()?;
        schema::check(&held.entry)
    }

    /// Whether it takes the place of another one with the same number. What is held already does not come here.
    fn check_seq(&self, held: &Held) -> Result<bool, Rejection> {
        let Some(known) = self.replica.get(&held.entry.key, &held.owner) else {
            return Ok(false);
        };
        if held.entry.seq != known.entry.seq {
            let is_newer = held.entry.seq > known.entry.seq;
            return is_newer.then_some(false).ok_or(Rejection::Outdated);
        }
        match held.version() > known.version() {
            true => Ok(true),
            false => Err(Rejection::EntryEquivocation),
        }
    }

    /// An entry that is read: whether what time changes still holds.
    pub fn reading(&self, held: &Held) -> Result<(), Rejection> {
        if !held.entry.is_live(self.now) {
            return Err(Rejection::Expired);
        }
        let certificate = self.owner(&held.owner)?;
        if self.rules.is_empty() {
            return Ok(());
        }
        self.rules
            .validate(&self.candidate(&held.entry, certificate, Occasion::Reading))
    }

    fn owner(&self, owner: &SignerKey) -> Result<&Certificate, Rejection> {
        let Some(member) = self.directory.get(&owner.peer_id()) else {
            return Err(match self.directory.is_expelled(owner) {
                true => Rejection::Revoked,
                false => Rejection::UnknownOwner,
            });
        };
        member.certificate.check_time(self.now)?;
        Ok(&member.certificate)
    }

    fn candidate<'b>(
        &'b self,
        entry: &'b Entry,
        certificate: &'b Certificate,
        occasion: Occasion,
    ) -> Candidate<'b> {
        Candidate {
            entry,
            certificate,
            now: self.now,
            is_named: self.directory.is_named(&entry.owner, &certificate.name),
            occasion,
            replica: self.replica,
        }
    }

    /// Where an entry belongs.
    pub fn slot_of(&self, entry: &Entry) -> [u8; 32] {
        self.network.entry_slot(&entry.owner, &entry.key)
    }

    /// Where something sealed belongs, whether it is to be believed or not.
    pub fn slot_in(&self, sealed: &[u8]) -> Option<[u8; 32]> {
        let signed = Entry::open(&self.sealing.unseal(sealed).ok()?).ok()?;
        Some(self.slot_of(&signed.entry))
    }

    /// Whose entry this says it is, and under which key.
    pub fn place_in(&self, sealed: &[u8]) -> Option<(SignerKey, Key)> {
        let signed = Entry::open(&self.sealing.unseal(sealed).ok()?).ok()?;
        Some((signed.owner, signed.entry.key))
    }

    /// How new something sealed is, if its owner has signed it and it is not over.
    pub fn version_in(&self, sealed: &[u8]) -> Option<Version> {
        let signed = Entry::open(&self.sealing.unseal(sealed).ok()?).ok()?;
        let is_good = signed.signer == signed.owner && signed.entry.is_live(self.now);
        is_good.then(|| Held::new(sealed, &signed).version())
    }
}
