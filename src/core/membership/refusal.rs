//! Why a node was not admitted, in words that tell its user what to do.

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// The issuer's reason. It travels as a number; the sentence is the joiner's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
pub enum JoinRefusal {
    /// A reason that this version does not know.
    #[error("the issuer refused for a reason this version does not know: update hivevpn")]
    Unspecified = 0,
    /// The invite admitted another node already.
    #[error("the invite has been used by another node: ask for a new one")]
    UsedUp = 1,
    /// The invite's time is over.
    #[error("the invite has expired: ask for a new one")]
    Expired = 2,
    /// The invite was not made by the node that was asked.
    #[error(
        "the node that was asked did not make this invite: ask for a new one, and join through the node that made it"
    )]
    UnknownInvite = 3,
    /// The issuer belongs to another network.
    #[error(
        "the invite is for another network than this node's: check which invite you were given"
    )]
    NotForThisNetwork = 4,
    /// Another member has the address.
    #[error("the address is another member's: ask for a different one, or for none")]
    AddressTaken = 5,
    /// The address is not one of the network's.
    #[error(
        "the address is not a usable one of this network: ask for one inside its prefix, or for none"
    )]
    AddressOutside = 6,
    /// Every address is taken.
    #[error("the network has no IPv4 address left: have a member that is gone removed")]
    NoAddressLeft = 7,
    /// There are as many members as there may be.
    #[error("the network is full: have a member that is gone removed")]
    NetworkFull = 8,
    /// The issuer's own powers have ended or do not reach this far.
    #[error(
        "the node that made the invite may no longer admit members: ask another administrator for an invite"
    )]
    IssuerMayNotAdmit = 9,
    /// The request was not understood, or is not the asking node's own.
    #[error("the issuer could not make sense of the request: update hivevpn on both nodes")]
    Malformed = 10,
    /// Too many requests.
    #[error("the issuer has been asked too often: wait a minute and try again")]
    RateLimited = 11,
    /// The issuer could not write down what it decided.
    #[error("the issuer cannot admit anyone at the moment: try again, and look at its log")]
    Unavailable = 12,
    /// The node's key was expelled.
    #[error(
        "this node was expelled from the network: ask an administrator to restore it, or join with a new identity"
    )]
    Expelled = 15,
    /// There is no certificate to hand out.
    #[error(
        "the node that was asked has no newer certificate for this one: ask a node that may admit members, or join with a new invite"
    )]
    NothingToRenew = 16,
}

impl JoinRefusal {
    const ALL: [JoinRefusal; 15] = [
        JoinRefusal::Unspecified,
        JoinRefusal::UsedUp,
        JoinRefusal::Expired,
        JoinRefusal::UnknownInvite,
        JoinRefusal::NotForThisNetwork,
        JoinRefusal::AddressTaken,
        JoinRefusal::AddressOutside,
        JoinRefusal::NoAddressLeft,
        JoinRefusal::NetworkFull,
        JoinRefusal::IssuerMayNotAdmit,
        JoinRefusal::Malformed,
        JoinRefusal::RateLimited,
        JoinRefusal::Unavailable,
        JoinRefusal::Expelled,
        JoinRefusal::NothingToRenew,
    ];

    /// A short, stable name for counters and logs.
    pub fn code(&self) -> &'static str {
        match self {
            JoinRefusal::Unspecified => "unspecified",
            JoinRefusal::UsedUp => "used-up",
            JoinRefusal::Expired => "expired",
            JoinRefusal::UnknownInvite => "unknown-invite",
            JoinRefusal::NotForThisNetwork => "not-for-this-network",
            JoinRefusal::AddressTaken => "address-taken",
            JoinRefusal::AddressOutside => "address-outside",
            JoinRefusal::NoAddressLeft => "no-address-left",
            JoinRefusal::NetworkFull => "network-full",
            JoinRefusal::IssuerMayNotAdmit => "issuer-may-not-admit",
            JoinRefusal::Malformed => "malformed",
            JoinRefusal::RateLimited => "rate-limited",
            JoinRefusal::Unavailable => "unavailable",
            JoinRefusal::Expelled => "expelled",
            JoinRefusal::NothingToRenew => "nothing-to-renew",
        }
    }
}

impl<C> Encode<C> for JoinRefusal {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.u8(*self as u8)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for JoinRefusal {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let number = d.u64()?;
        let known = JoinRefusal::ALL.into_iter().find(|r| *r as u64 == number);
        Ok(known.unwrap_or(JoinRefusal::Unspecified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::wire;

    #[test]
    fn every_refusal_survives_its_encoding() {
        assert!(
            JoinRefusal::ALL.is_sorted_by_key(|refusal| *refusal as u8),
            "no number is used twice"
        );
        for refusal in JoinRefusal::ALL {
            assert_eq!(wire::decode(&wire::encode(&refusal)), Ok(refusal));
        }
    }

    #[test]
    fn a_refusal_of_a_later_version_is_still_a_refusal() {
        assert_eq!(
            wire::decode(&wire::encode(&200u8)),
            Ok(JoinRefusal::Unspecified)
        );
    }
}
