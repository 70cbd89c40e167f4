//! What makes a node a member: a certificate, and the delegation of who signed it.
//!
//! The two travel together as a [`Credential`], so anyone who knows the genesis can check the whole
//! chain without asking: authority → delegate → member. A certificate is short-lived and renewed at
//! half its life. [`Notices`](super::notices::Notices) can void it earlier: a revocation by its subject
//! and generation, the end of a delegation by what it rests on.

use std::{collections::BTreeSet, net::Ipv4Addr, ops::RangeInclusive};

use libp2p_identity::PeerId;
use minicbor::{Decode, Encode};

use super::{
    address,
    delegation::{Delegation, Powers},
    envelope::{self, Domain},
    genesis::{Genesis, NetworkId},
    name::Name,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};

/// A member is in a handful of groups; the list is in every packet policy's path.
pub const MAX_GROUPS: usize = 32;

/// That a node is a member, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Certificate {
    /// The network it is for.
    #[n(0)]
    pub network: NetworkId,
    /// The member.
    #[n(1)]
    pub subject: SignerKey,
    /// Grows with each certificate of this subject; the highest one counts.
    #[n(2)]
    pub serial: u64,
    /// The name it was admitted under.
    #[n(3)]
    pub name: Name,
    /// How much its admission is worth: 1 for an invite or an administrator's hand, 0 for less.
    #[n(4)]
    pub tier: u8,
    /// The groups it is in, as policies see them.
    #[n(5)]
    pub groups: BTreeSet<Name>,
    /// Its IPv4 address in the overlay.
    #[n(6)]
    pub ipv4: Ipv4Addr,
    /// When it first became a member. Renewals keep it: seniority decides conflicts.
    #[n(7)]
    pub admitted_at: UnixTime,
    /// The first second of its validity.
    #[n(8)]
    pub not_before: UnixTime,
    /// The last second of its validity.
    #[n(9)]
    pub not_after: UnixTime,
    /// Which life of this key: a readmission after an expulsion has a higher one.
    #[n(10)]
    pub generation: u32,
    /// The delegate that signed.
    #[n(11)]
    pub issuer: SignerKey,
}

impl Certificate {
    /// Signs it.
    pub fn seal(&self, issuer: &Signer) -> Vec<u8> {
        envelope::seal(issuer, Domain::Member, self)
    }

    /// When it is valid, the last second included.
    pub fn validity(&self) -> RangeInclusive<UnixTime> {
        self.not_before..=self.not_after
    }

    /// Whether it is time to have it renewed: half of its life is over.
    pub fn is_due_for_renewal(&self, now: UnixTime) -> bool {
        now.since(self.not_before) >= self.not_after.since(self.not_before) / 2
    }

    /// Whether it is valid now, all else being right.
    pub fn check_time(&self, now: UnixTime) -> Result<(), Rejection> {
        if now < self.not_before {
            Err(Rejection::NotYetValid)
        } else if now > self.not_after {
            Err(Rejection::Expired)
        } else {
            Ok(())
        }
    }
}

/// A certificate and the delegation it rests on, both as signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Credential {
    /// The envelope of a [`Delegation`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub delegation: Vec<u8>,
    /// The envelope of a [`Certificate`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub certificate: Vec<u8>,
}

impl Credential {
    /// For the store or the network.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads the pair; [`verify`](Credential::verify) is what gives it meaning.
    pub fn decode(bytes: &[u8]) -> Result<Credential, Rejection> {
        wire::decode(bytes)
    }

    /// Checks everything: that `subject` is a member of this network now.
    pub fn verify(
        &self,
        genesis: &Genesis,
        now: UnixTime,
        subject: &PeerId,
    ) -> Result<Certificate, Rejection> {
        let certificate = self.verify_untimed(genesis, subject)?;
        certificate.check_time(now)?;
        Ok(certificate)
    }

    /// Checks everything but the time: that `subject` is a member of this network, or once was.
    pub fn verify_untimed(
        &self,
        genesis: &Genesis,
        subject: &PeerId,
    ) -> Result<Certificate, Rejection> {
        let (certificate, _) = self.open(genesis)?;
        if certificate.subject.peer_id() != *subject {
            return Err(Rejection::WrongSubject);
        }
        Ok(certificate)
    }

    /// Checks what does not depend on who presents it and when: the chain of signatures, and that
    /// the certificate gives no more than its issuer has. What was taken back since, the
    /// [`Notices`](super::notices::Notices) know.
    pub(crate) fn open(&self, genesis: &Genesis) -> Result<(Certificate, Delegation), Rejection> {
        let delegation = Delegation::open(&self.delegation, genesis)?;
        let opened = envelope::open::<Certificate>(Domain::Member, &self.certificate)?;
        let (certificate, signer) = (opened.payload, opened.signer);

        if certificate.network != genesis.id() {
            return Err(Rejection::WrongNetwork);
        }
        if signer != delegation.delegate || certificate.issuer != signer {
            return Err(Rejection::WrongIssuer);
        }
        if !delegation.powers.include(Powers::ADMIT) {
            return Err(Rejection::MissingPower);
        }
        let (not_before, not_after) = (certificate.not_before, certificate.not_after);
        if !delegation.validity().contains(&not_before)
            || !delegation.validity().contains(&not_after)
        {
            return Err(Rejection::OutsideDelegation);
        }
        if not_after.since(not_before) > genesis.certificate_lifetime() {
            return Err(Rejection::LifetimeTooLong);
        }
        if certificate.groups.len() > MAX_GROUPS {
            return Err(Rejection::Malformed("too many groups"));
        }
        if !delegation.groups.covers(&certificate.groups) {
            return Err(Rejection::GroupNotGranted);
        }
        if !address::is_usable(genesis.ipv4_prefix(), certificate.ipv4) {
            return Err(Rejection::AddressUnusable);
        }
        Ok((certificate, delegation))
    }
}
