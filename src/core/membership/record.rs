//! What travels between members: one member's credential and descriptor.
//!
//! A record carries its own proof, so it may come from anybody. Its two halves are signed
//! separately and age separately: of two records of one member, the newer half of each is kept.

use std::net::{Ipv4Addr, Ipv6Addr};

use libp2p_identity::PeerId;
use minicbor::{Decode, Encode};

use super::{
    address,
    certificate::{Certificate, Credential},
    delegation::Delegation,
    descriptor::Descriptor,
    genesis::Genesis,
    network::Network,
    rejection::Rejection,
    time::UnixTime,
    wire,
};

/// A member's credential and descriptor, as signed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MemberRecord {
    /// That it is a member.
    #[n(0)]
    pub credential: Credential,
    /// The envelope of its [`Descriptor`].
    #[cbor(n(1), with = "minicbor::bytes")]
    pub descriptor: Vec<u8>,
}

/// What becomes of a record that somebody put into the DHT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DhtVerdict {
    /// It is kept.
    News,
    /// What is kept is as new.
    Known,
}

/// How new a record is, half by half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The certificate's serial.
    pub serial: u64,
    /// The descriptor's sequence number.
    pub seq: u64,
}

impl Version {
    /// Whether a half of this is newer than the same half of `other`. Both may be newer than each
    /// other.
    pub fn has_news_for(&self, other: &Version) -> bool {
        self.serial > other.serial || self.seq > other.seq
    }
}

/// A member whose record was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub peer_id: PeerId,
    /// What it is.
    pub certificate: Certificate,
    /// What its certificate rests on.
    pub delegation: Delegation,
    /// What it says about itself.
    pub descriptor: Descriptor,
    /// The IPv4 address it was given. Whether it *holds* it, the directory knows.
    pub ipv4: Ipv4Addr,
    /// The IPv6 address that follows from its key.
    pub ipv6: Ipv6Addr,
    /// What proves all of it.
    pub record: MemberRecord,
}

impl MemberRecord {
    /// For the store or the network.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a record; [`verify`](MemberRecord::verify) is what gives it meaning.
    pub fn decode(bytes: &[u8]) -> Result<MemberRecord, Rejection> {
        wire::decode(bytes)
    }

    /// What somebody put into the DHT under `key`, if it is a member's record that belongs there. It takes the place of
    /// `kept`, what lies there already, only if it is newer.
    pub fn verify_for_dht(
        network: &Network,
        key: &[u8],
        record: &[u8],
        kept: Option<&[u8]>,
        now: UnixTime,
    ) -> Result<DhtVerdict, Rejection> {
        if kept == Some(record) {
            return Ok(DhtVerdict::Known);
        }
        let member = MemberRecord::decode(record)?.verify(network.genesis(), now)?;
        if network.record_key(&member.peer_id) != key {
            return Err(Rejection::WrongSubject);
        }
        let known = kept.and_then(|kept| {
            let kept = MemberRecord::decode(kept).ok()?;
            kept.verify(network.genesis(), now).ok()
        });
        match known {
            Some(known) if !member.version().has_news_for(&known.version()) => {
                Ok(DhtVerdict::Known)
            }
            Some(_) | None => Ok(DhtVerdict::News),
        }
    }

    /// Checks everything that can be told from the record alone.
    pub fn verify(self, genesis: &Genesis, now: UnixTime) -> Result<Member, Rejection> {
        let member = self.verify_untimed(genesis, now)?;
        member.certificate.check_time(now)?;
        Ok(member)
    }

    /// The same, but its certificate may have run out.
    pub(crate) fn verify_untimed(
        self,
        genesis: &Genesis,
        now: UnixTime,
    ) -> Result<Member, Rejection> {
        let (certificate, delegation) = self.credential.open(genesis)?;
        let subject = certificate.subject;
        let descriptor = Descriptor::open(&self.descriptor, &genesis.id(), &subject, now)?;
        Ok(Member {
            peer_id: subject.peer_id(),
            ipv4: certificate.ipv4,
            ipv6: address::ipv6(&genesis.id(), &subject),
            certificate,
            delegation,
            descriptor,
            record: self,
        })
    }
}

impl Member {
    /// How new what we know of it is.
    pub fn version(&self) -> Version {
        Version {
            serial: self.certificate.serial,
            seq: self.descriptor.seq,
        }
    }

    /// This member with whatever is newer in `other`, another record of the same member. None when
    /// nothing is. Never goes back; two halves of one age must be the same.
    pub(super) fn merged_with(&self, other: &Member) -> Result<Option<Member>, Rejection> {
        let (ours, theirs) = (self.version(), other.version());
        let (held, came) = (&self.record, &other.record);
        let is_tie = theirs.serial == ours.serial
            && came.credential.certificate != held.credential.certificate;
        if is_tie && other.certificate.issuer == self.certificate.issuer {
            return Err(Rejection::CertificateEquivocation);
        }
        // Two delegates may renew one certificate in the same second: both are right, and everybody
        // takes the same one.
        let wins_tie = is_tie && other.certificate.issuer < self.certificate.issuer;
        if theirs.seq == ours.seq && came.descriptor != held.descriptor {
            return Err(Rejection::DescriptorEquivocation);
        }
        if !theirs.has_news_for(&ours) && !wins_tie {
            return Ok(None);
        }
        let mut merged = self.clone();
        if theirs.serial > ours.serial || wins_tie {
            merged.certificate = other.certificate.clone();
            merged.delegation = other.delegation.clone();
            merged.ipv4 = other.ipv4;
            merged.record.credential = came.credential.clone();
        }
        if theirs.seq > ours.seq {
            merged.descriptor = other.descriptor.clone();
            merged.record.descriptor = came.descriptor.clone();
        }
        Ok(Some(merged))
    }
}
