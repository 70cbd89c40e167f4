//! A delegate at work: making invites, admitting nodes, renewing certificates.
//!
//! An invite admits one node, at the node that made it. That node keeps a [`Redemption`] of each
//! used invite, written *before* the answer is sent. If the answer is lost, the same node may ask
//! again and is given the same certificate; anyone else is told that the invite is used up.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use libp2p_core::Multiaddr;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::{
    address,
    certificate::{Certificate, Credential, MAX_GROUPS},
    delegation::{Delegation, Powers},
    directory::Directory,
    genesis::Genesis,
    invite::{Invite, Terms},
    join::JoinRequest,
    name::Name,
    notice::Signing,
    refusal::JoinRefusal,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::{CLOCK_SKEW, UnixTime},
    wire,
};

/// The tier of members that an administrator admitted, by invite or by hand.
pub const TIER_INVITED: u8 = 1;
/// The tier of members that admitted themselves by the network's password.
pub const TIER_PASSWORD: u8 = 0;

/// Serials are times; one further ahead was not made by an honest clock.
const PLAUSIBLY_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);

/// A node with a delegation.
#[derive(Debug, Clone)]
pub struct Issuer {
    signer: Signer,
    genesis: Genesis,
    delegation: Delegation,
    envelope: Vec<u8>,
}

/// What to put into an invite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// What the new member will be called; its own choice, if none.
    pub name: Option<Name>,
    /// The groups it will be in.
    pub groups: BTreeSet<Name>,
    /// Its address; its own choice, if none.
    pub ipv4: Option<Ipv4Addr>,
    /// The last second at which the invite admits anyone.
    pub expires: UnixTime,
    /// Where the joining node may find this one.
    pub addresses: Vec<Multiaddr>,
}

/// A node to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applicant {
    /// Its key.
    pub key: SignerKey,
    /// What it would like to be called; if that is taken, it gets a number.
    pub name: Name,
    /// The groups it will be in.
    pub groups: BTreeSet<Name>,
    /// The address it must have; any, if none.
    pub ipv4: Option<Ipv4Addr>,
    /// What its admission is worth: [`TIER_INVITED`] or [`TIER_PASSWORD`].
    pub tier: u8,
}

/// That an invite was used, by whom, and what for. Kept for as long as the store is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Redemption {
    /// The invite's id.
    #[n(0)]
    pub invite: SignerKey,
    /// The node it admitted.
    #[n(1)]
    pub subject: SignerKey,
    /// What that node was given.
    #[n(2)]
    pub credential: Credential,
}

impl Redemption {
    /// For the store.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads what [`encode`](Redemption::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Redemption, Rejection> {
        wire::decode(bytes)
    }
}

impl Issuer {
    /// A delegate at work: `signer` under the delegation that an authority gave it.
    pub fn new(signer: Signer, delegation: Vec<u8>, genesis: Genesis) -> Result<Issuer, Rejection> {
        let opened = Delegation::open(&delegation, &genesis)?;
        if opened.delegate != signer.key() {
            return Err(Rejection::WrongSubject);
        }
        Ok(Issuer {
            signer,
            genesis,
            delegation: opened,
            envelope: delegation,
        })
    }

    /// The delegation, for status and diagnosis.
    pub fn delegation(&self) -> &Delegation {
        &self.delegation
    }

    /// What notices are signed with, if the delegation includes these powers now.
    pub fn signing(&self, powers: Powers, now: UnixTime) -> Result<Signing<'_>, Rejection> {
        self.may(powers, &BTreeSet::new(), now)?;
        Ok(Signing::Delegate(&self.signer, &self.envelope))
    }

    /// The delegation as it was signed.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Makes an invite. `secret` must be random and used for this invite only.
    pub fn invite(
        &self,
        offer: Offer,
        secret: Zeroizing<[u8; 32]>,
        now: UnixTime,
    ) -> Result<Invite, Rejection> {
        self.may(Powers::INVITE | Powers::ADMIT, &offer.groups, now)?;
        if let Some(ipv4) = offer.ipv4
            && !address::is_usable(self.genesis.ipv4_prefix(), ipv4)
        {
            return Err(Rejection::AddressUnusable);
        }
        let terms = Terms {
            network: self.genesis.id(),
            network_name: self.genesis.name().clone(),
            id: Signer::from_seed(&secret).key(),
            expires: offer.expires,
            name: offer.name,
            groups: offer.groups,
            ipv4: offer.ipv4,
        };
        Ok(Invite::seal(terms, &self.signer, offer.addresses, secret))
    }

    /// Judges a request to join. `redeemed` is what the store has under the request's
    /// [`invite_id`](JoinRequest::invite_id).
    ///
    /// Write the redemption before sending the credential. The new member's name and address are
    /// kept for it in the directory until its record comes.
    pub fn decide(
        &self,
        request: &JoinRequest,
        now: UnixTime,
        directory: &mut Directory,
        redeemed: Option<&Redemption>,
    ) -> Result<Redemption, JoinRefusal> {
        let terms = request.terms();
        if terms.network != self.genesis.id() {
            return Err(JoinRefusal::NotForThisNetwork);
        }
        if request.invited_by() != self.signer.key() {
            return Err(JoinRefusal::UnknownInvite);
        }
        if directory.is_expelled(&request.joiner()) {
            return Err(JoinRefusal::Expelled);
        }
        if let Some(redeemed) = redeemed {
            return self.answer_again(request, now, directory, redeemed);
        }
        if now > terms.expires {
            return Err(JoinRefusal::Expired);
        }
        self.may(Powers::INVITE, &terms.groups, now)
            .map_err(|_| JoinRefusal::IssuerMayNotAdmit)?;
        let applicant = Applicant {
            key: request.joiner(),
            name: terms.name.clone().unwrap_or_else(|| request.wanted_name()),
            groups: terms.groups.clone(),
            ipv4: terms.ipv4.or(request.wanted_ipv4()),
            tier: TIER_INVITED,
        };
        Ok(Redemption {
            invite: terms.id,
            subject: request.joiner(),
            credential: self.admit(applicant, now, directory)?,
        })
    }

    fn answer_again(
        &self,
        request: &JoinRequest,
        now: UnixTime,
        directory: &mut Directory,
        redeemed: &Redemption,
    ) -> Result<Redemption, JoinRefusal> {
        if redeemed.invite != request.invite_id() || redeemed.subject != request.joiner() {
            return Err(JoinRefusal::UsedUp);
        }
        match self.promise_again(redeemed, now, directory) {
            Ok(()) => Ok(redeemed.clone()),
            Err(Rejection::Revoked) => Err(JoinRefusal::Expelled),
            Err(_) => Err(JoinRefusal::Expired),
        }
    }

    /// Certifies a node without an invite: the founder, or one admitted by hand.
    ///
    /// A node that is a member already keeps its seniority, and its address unless it asks for one. One
    /// that was expelled begins a new life: its old certificates stay void.
    pub fn admit(
        &self,
        applicant: Applicant,
        now: UnixTime,
        directory: &mut Directory,
    ) -> Result<Credential, JoinRefusal> {
        if directory.certificate_of(&applicant.key).is_none() && directory.is_full() {
            return Err(JoinRefusal::NetworkFull);
        }
        let known = directory.last_certificate_of(&applicant.key).cloned();
        let ipv4 = self.assign_ipv4(&applicant, known.as_ref(), directory)?;
        let certificate = Certificate {
            network: self.genesis.id(),
            subject: applicant.key,
            serial: next_serial(known.as_ref(), now),
            name: directory.free_name(&applicant.name, &applicant.key),
            tier: applicant.tier,
            groups: applicant.groups,
            ipv4,
            admitted_at: known.as_ref().map_or(now, |known| known.admitted_at),
            not_before: now,
            not_after: now,
            generation: next_generation(&applicant.key, known.as_ref(), directory)?,
            issuer: self.signer.key(),
        };
        let (credential, certificate) = self
            .certify(certificate, now)
            .map_err(|_| JoinRefusal::IssuerMayNotAdmit)?;
        directory.promise(certificate);
        Ok(credential)
    }

    /// Certifies a node that proved the network's password: without groups, and worth less than an invite.
    ///
    /// A member loses nothing by proving it: it stays in its groups and is worth what it was. Who was expelled is not
    /// admitted by it: only an administrator takes him back.
    pub fn admit_by_password(
        &self,
        key: SignerKey,
        name: Name,
        ipv4: Option<Ipv4Addr>,
        now: UnixTime,
        directory: &mut Directory,
    ) -> Result<Credential, JoinRefusal> {
        if directory.notices().revocation_of(&key).is_some()
            && directory.get(&key.peer_id()).is_none()
        {
            return Err(JoinRefusal::Expelled);
        }
        let known = directory.certificate_of(&key);
        let applicant = Applicant {
            key,
            name,
            groups: known.map(|known| known.groups.clone()).unwrap_or_default(),
            ipv4,
            tier: known.map_or(TIER_PASSWORD, |known| known.tier),
        };
        self.admit(applicant, now, directory)
    }

    /// Whether this node may admit members now.
    pub fn may_admit(&self, now: UnixTime) -> bool {
        self.may(Powers::ADMIT, &BTreeSet::new(), now).is_ok()
    }

    /// A certificate like this one, valid from now and for longer: the same member, name, groups and address.
    pub fn renew(&self, certificate: &Certificate, now: UnixTime) -> Result<Credential, Rejection> {
        certificate.check_time(now)?;
        let renewed = Certificate {
            serial: next_serial(Some(certificate), now),
            issuer: self.signer.key(),
            ..certificate.clone()
        };
        let (credential, renewed) = self.certify(renewed, now)?;
        match renewed.not_after > certificate.not_after {
            true => Ok(credential),
            // Our delegation ends too soon: somebody else's may not.
            false => Err(Rejection::OutsideDelegation),
        }
    }

    /// Makes a member of a node that was one, as what it was: the name and the address as far as they
    /// are free, groups and seniority. If it was expelled, it begins a new life.
    pub fn readmit(
        &self,
        last: &Certificate,
        now: UnixTime,
        directory: &mut Directory,
    ) -> Result<Credential, JoinRefusal> {
        if directory.certificate_of(&last.subject).is_none() && directory.is_full() {
            return Err(JoinRefusal::NetworkFull);
        }
        let applicant = Applicant {
            key: last.subject,
            name: last.name.clone(),
            groups: last.groups.clone(),
            ipv4: None,
            tier: last.tier,
        };
        let certificate = Certificate {
            serial: next_serial(Some(last), now),
            name: directory.free_name(&last.name, &last.subject),
            ipv4: self.assign_ipv4(&applicant, Some(last), directory)?,
            generation: next_generation(&last.subject, Some(last), directory)?,
            issuer: self.signer.key(),
            ..last.clone()
        };
        let (credential, certificate) = self
            .certify(certificate, now)
            .map_err(|_| JoinRefusal::IssuerMayNotAdmit)?;
        directory.promise(certificate);
        Ok(credential)
    }

    /// The same member again, on our own delegation, when the one that its certificate rests on is to
    /// end. Whoever had that one may have numbered certificates as high as numbers go: that is no
    /// reason to follow.
    pub fn reissue(
        &self,
        certificate: &Certificate,
        now: UnixTime,
    ) -> Result<Credential, Rejection> {
        let is_plausible = certificate.serial < now.plus(PLAUSIBLY_AHEAD).0;
        let reissued = Certificate {
            serial: next_serial(Some(certificate).filter(|_| is_plausible), now),
            issuer: self.signer.key(),
            ..certificate.clone()
        };
        Ok(self.certify(reissued, now)?.0)
    }

    /// Keeps the name and address of a node that was admitted before a restart, for the case that
    /// its record has not come. Call it with every redemption of the store, after the stored
    /// records.
    pub fn remember(&self, redemption: &Redemption, now: UnixTime, directory: &mut Directory) {
        // What has expired, or is of another network, keeps nothing: that is no error.
        let _ = self.promise_again(redemption, now, directory);
    }

    fn promise_again(
        &self,
        redemption: &Redemption,
        now: UnixTime,
        directory: &mut Directory,
    ) -> Result<(), Rejection> {
        let subject = redemption.subject.peer_id();
        let (certificate, delegation) = redemption.credential.open(&self.genesis)?;
        if certificate.subject.peer_id() != subject {
            return Err(Rejection::WrongSubject);
        }
        certificate.check_time(now)?;
        directory.notices().check(&certificate, &delegation)?;
        directory.promise(certificate);
        Ok(())
    }

    /// Fills in the validity and signs.
    fn certify(
        &self,
        certificate: Certificate,
        now: UnixTime,
    ) -> Result<(Credential, Certificate), Rejection> {
        self.may(Powers::ADMIT, &certificate.groups, now)?;
        let not_before = now.minus(CLOCK_SKEW).max(self.delegation.not_before);
        let not_after = not_before.plus(self.genesis.certificate_lifetime());
        let certificate = Certificate {
            not_before,
            not_after: not_after.min(self.delegation.not_after),
            ..certificate
        };
        let credential = Credential {
            delegation: self.envelope.clone(),
            certificate: certificate.seal(&self.signer),
        };
        Ok((credential, certificate))
    }

    /// Whether the delegation lets us do this now.
    fn may(&self, powers: Powers, groups: &BTreeSet<Name>, now: UnixTime) -> Result<(), Rejection> {
        let delegation = &self.delegation;
        if !delegation.validity().contains(&now) {
            return Err(Rejection::OutsideDelegation);
        }
        if !delegation.powers.include(powers) {
            return Err(Rejection::MissingPower);
        }
        if groups.len() > MAX_GROUPS || !delegation.groups.covers(groups) {
            return Err(Rejection::GroupNotGranted);
        }
        Ok(())
    }

    fn assign_ipv4(
        &self,
        applicant: &Applicant,
        known: Option<&Certificate>,
        directory: &Directory,
    ) -> Result<Ipv4Addr, JoinRefusal> {
        let is_free = |ipv4: &Ipv4Addr| !directory.is_address_taken(*ipv4, &applicant.key);
        if let Some(wanted) = applicant.ipv4 {
            if !address::is_usable(self.genesis.ipv4_prefix(), wanted) {
                return Err(JoinRefusal::AddressOutside);
            }
            return Some(wanted)
                .filter(is_free)
                .ok_or(JoinRefusal::AddressTaken);
        }
        known
            .map(|known| known.ipv4)
            .filter(is_free)
            .or_else(|| directory.free_ipv4(&applicant.key))
            .ok_or(JoinRefusal::NoAddressLeft)
    }
}

/// The time in seconds, so that two issuers who do not know of each other's certificates still
/// number them in order, and always higher than the last one known.
fn next_serial(last: Option<&Certificate>, now: UnixTime) -> u64 {
    let after_last = last.map_or(0, |last| last.serial.saturating_add(1));
    now.0.max(after_last)
}

/// The generation of a key's next certificate: the one it is in, or the next one if that was expelled.
fn next_generation(
    node: &SignerKey,
    last: Option<&Certificate>,
    directory: &Directory,
) -> Result<u32, JoinRefusal> {
    let last = last.map_or(0, |last| last.generation);
    match directory.notices().revocation_of(node) {
        Some((revocation, _)) if revocation.generation >= last => {
            let next = revocation.generation.checked_add(1);
            next.ok_or(JoinRefusal::Expelled)
        }
        Some(_) | None => Ok(last),
    }
}
