//! What all members must know besides each other's records: who may act for the authority, who was
//! expelled, which policy is in force.
//!
//! A **delegation** lends powers, its **end** takes them back, a **revocation** expels a key, a
//! **policy update** sets the policy. Each is a signed object of its own; a [`Notice`] is such an
//! object as it travels, with the delegation of its signer unless an authority signed it. So a notice
//! proves itself and may come from anybody.
//!
//! Whether a notice is *well-founded* depends on the notice alone, never on the moment at which it
//! comes or on what came before. Whether it has an *effect* depends on all the notices that are known
//! ([`Notices`](super::notices::Notices)): a delegate's word counts until an authority ends its
//! delegation.

use minicbor::{Decode, Encode, bytes::ByteVec};
use sha2::{Digest, Sha256};

use super::{
    delegation::{Delegation, Powers},
    envelope::{self, Domain, Opened},
    genesis::{Genesis, NetworkId},
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};

/// Bytes of a policy. Every member keeps it and passes it on.
pub const MAX_POLICY: usize = 32 * 1024;

/// Bytes of the reason for an expulsion: a sentence.
pub const MAX_REASON: usize = 200;

/// SHA-256 of an encoded notice.
pub type NoticeId = [u8; 32];

/// An authority takes back what it lent to a delegate. What rests on it is not believed any more,
/// whenever it claims to have been signed: a thief of the delegate's key can choose that moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DelegationEnd {
    /// The network it is for.
    #[n(0)]
    pub network: NetworkId,
    /// The delegate.
    #[n(1)]
    pub delegate: SignerKey,
    /// Every delegation of it that begins at this moment or before has ended.
    #[n(2)]
    pub until: UnixTime,
}

/// A key is expelled: all its certificates up to a generation are void, for ever.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revocation {
    /// The network it is for.
    #[n(0)]
    pub network: NetworkId,
    /// The expelled key.
    #[n(1)]
    pub subject: SignerKey,
    /// Up to this generation its certificates are void.
    #[n(2)]
    pub generation: u32,
    /// When its signer decided so.
    #[n(3)]
    pub revoked_at: UnixTime,
    /// For people, at most [`MAX_REASON`] bytes.
    #[n(4)]
    pub reason: String,
}

/// The network's policy, from now on. What the body says is not for this module to know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PolicyUpdate {
    /// The network it is for.
    #[n(0)]
    pub network: NetworkId,
    /// The highest version is in force.
    #[n(1)]
    pub version: u64,
    /// The [`hash`](PolicyUpdate::hash) of the one that it replaces; zeros for the first.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// At most [`MAX_POLICY`] bytes.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Vec<u8>,
    /// When its signer decided so.
    #[n(4)]
    pub set_at: UnixTime,
}

impl PolicyUpdate {
    /// What the next update names as its predecessor.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(wire::encode(self)).into()
    }
}

/// A notice as it travels and is stored.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Notice {
    /// The envelope of a [`Delegation`].
    #[n(0)]
    Delegation(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The envelope of a [`DelegationEnd`].
    #[n(1)]
    DelegationEnd(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A [`Revocation`].
    #[n(2)]
    Revocation(#[n(0)] Backed),
    /// A [`PolicyUpdate`].
    #[n(3)]
    Policy(#[n(0)] Backed),
}

/// Something that an authority signed, or a delegate in its place.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Backed {
    /// The envelope.
    #[cbor(n(0), with = "minicbor::bytes")]
    signed: Vec<u8>,
    /// The envelope of the [`Delegation`] that it rests on; none when an authority signed.
    #[n(1)]
    delegation: Option<ByteVec>,
}

/// On whose word a notice rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// An authority of the network.
    Authority,
    /// A delegate.
    Delegate {
        /// SHA-256 of its delegation's envelope.
        delegation: [u8; 32],
        /// Its key.
        delegate: SignerKey,
        /// When the delegation begins.
        since: UnixTime,
    },
}

/// Who signs a notice.
#[derive(Debug, Clone, Copy)]
pub enum Signing<'a> {
    /// An authority.
    Authority(&'a Signer),
    /// A delegate, by this delegation.
    Delegate(&'a Signer, &'a [u8]),
}

/// A notice that was found well-founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Founded {
    Delegation(Delegation),
    DelegationEnd(DelegationEnd),
    Revocation(Author, Revocation),
    Policy(Author, PolicyUpdate),
}

impl Signing<'_> {
    fn seal<T: Encode<()>>(self, domain: Domain, object: &T) -> Backed {
        match self {
            Signing::Authority(signer) => Backed {
                signed: envelope::seal(signer, domain, object),
                delegation: None,
            },
            Signing::Delegate(signer, delegation) => Backed {
                signed: envelope::seal(signer, domain, object),
                delegation: Some(delegation.to_vec().into()),
            },
        }
    }
}

impl Notice {
    /// Takes a delegate's powers back; `authority` signs.
    pub fn end(end: &DelegationEnd, authority: &Signer) -> Notice {
        Notice::DelegationEnd(envelope::seal(authority, Domain::DelegationEnd, end))
    }

    /// Expels a key. A longer reason is cut.
    pub fn revocation(mut revocation: Revocation, by: Signing) -> Notice {
        let mut end = revocation.reason.len().min(MAX_REASON);
        while !revocation.reason.is_char_boundary(end) {
            end -= 1;
        }
        revocation.reason.truncate(end);
        Notice::Revocation(by.seal(Domain::Revocation, &revocation))
    }

    /// Sets the policy.
    pub fn policy(update: &PolicyUpdate, by: Signing) -> Notice {
        Notice::Policy(by.seal(Domain::Policy, update))
    }

    /// For the wire and the store.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// Reads a notice, which proves nothing yet.
    pub fn decode(bytes: &[u8]) -> Result<Notice, Rejection> {
        wire::decode(bytes)
    }

    /// What tells it from every other.
    pub fn id_of(encoded: &[u8]) -> NoticeId {
        Sha256::digest(encoded).into()
    }

    /// Checks all that does not depend on other notices: the signatures, the signer's powers, and
    /// the bounds.
    pub(super) fn open(&self, genesis: &Genesis) -> Result<Founded, Rejection> {
        match self {
            Notice::Delegation(envelope) => {
                Ok(Founded::Delegation(Delegation::open(envelope, genesis)?))
            }
            Notice::DelegationEnd(envelope) => {
                let opened = envelope::open::<DelegationEnd>(Domain::DelegationEnd, envelope)?;
                if opened.payload.network != genesis.id() {
                    return Err(Rejection::WrongNetwork);
                }
                if !genesis.has_authority(&opened.signer) {
                    return Err(Rejection::NotByAuthority);
                }
                Ok(Founded::DelegationEnd(opened.payload))
            }
            Notice::Revocation(backed) => {
                let opened = envelope::open::<Revocation>(Domain::Revocation, &backed.signed)?;
                let author = backed.author(
                    &opened,
                    opened.payload.network,
                    opened.payload.revoked_at,
                    Powers::REVOKE,
                    genesis,
                )?;
                if opened.payload.reason.len() > MAX_REASON {
                    return Err(Rejection::TooLarge { limit: MAX_REASON });
                }
                Ok(Founded::Revocation(author, opened.payload))
            }
            Notice::Policy(backed) => {
                let opened = envelope::open::<PolicyUpdate>(Domain::Policy, &backed.signed)?;
                let author = backed.author(
                    &opened,
                    opened.payload.network,
                    opened.payload.set_at,
                    Powers::POLICY,
                    genesis,
                )?;
                if opened.payload.body.len() > MAX_POLICY {
                    return Err(Rejection::TooLarge { limit: MAX_POLICY });
                }
                Ok(Founded::Policy(author, opened.payload))
            }
        }
    }
}

impl Backed {
    /// On whose word it rests: an authority's, or a delegate's who had the power at that moment.
    fn author<T>(
        &self,
        opened: &Opened<T>,
        network: NetworkId,
        moment: UnixTime,
        power: Powers,
        genesis: &Genesis,
    ) -> Result<Author, Rejection> {
        if network != genesis.id() {
            return Err(Rejection::WrongNetwork);
        }
        let Some(envelope) = &self.delegation else {
            return match genesis.has_authority(&opened.signer) {
                true => Ok(Author::Authority),
                false => Err(Rejection::NotByAuthority),
            };
        };
        let delegation = Delegation::open(envelope, genesis)?;
        if delegation.delegate != opened.signer {
            return Err(Rejection::WrongIssuer);
        }
        if !delegation.powers.include(power) {
            return Err(Rejection::MissingPower);
        }
        if !delegation.validity().contains(&moment) {
            return Err(Rejection::OutsideDelegation);
        }
        Ok(Author::Delegate {
            delegation: Sha256::digest(envelope.as_slice()).into(),
            delegate: delegation.delegate,
            since: delegation.not_before,
        })
    }
}
