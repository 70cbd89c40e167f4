//! An authority lends its powers to a node, for a time.
//!
//! With that the authority's key can stay offline: the delegate admits members and hands out
//! invites in its place, within the limits written here. A stolen delegate can do no more than
//! its delegation says.

use std::{
    collections::BTreeSet,
    fmt,
    ops::{BitOr, RangeInclusive},
};

use minicbor::{Decode, Encode};

use super::{
    envelope::{self, Domain},
    genesis::{Genesis, NetworkId},
    name::Name,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
};

/// What a delegate may do. Unknown bits, from later versions, are kept and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Powers(#[n(0)] u32);

impl Powers {
    /// None at all.
    pub const NONE: Powers = Powers(0);
    /// Sign member certificates.
    pub const ADMIT: Powers = Powers(1);
    /// Hand out invites.
    pub const INVITE: Powers = Powers(1 << 1);
    /// Expel members.
    pub const REVOKE: Powers = Powers(1 << 2);
    /// Set the network's policy.
    pub const POLICY: Powers = Powers(1 << 3);
    /// Release updates.
    pub const UPDATE: Powers = Powers(1 << 4);
    /// Every power this version knows.
    pub const ALL: Powers = Powers(0b1_1111);

    /// Whether all of `wanted` are in here.
    pub fn include(self, wanted: Powers) -> bool {
        self.0 & wanted.0 == wanted.0
    }
}

impl BitOr for Powers {
    type Output = Powers;

    fn bitor(self, other: Powers) -> Powers {
        Powers(self.0 | other.0)
    }
}

impl fmt::Debug for Powers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Powers, &str); 5] = [
            (Powers::ADMIT, "ADMIT"),
            (Powers::INVITE, "INVITE"),
            (Powers::REVOKE, "REVOKE"),
            (Powers::POLICY, "POLICY"),
            (Powers::UPDATE, "UPDATE"),
        ];
        let names = NAMES.iter().filter(|(power, _)| self.include(*power));
        f.debug_set().entries(names.map(|(_, name)| name)).finish()
    }
}

/// Which groups a delegate may put members into.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum GroupGrant {
    /// Every group there is or will be.
    #[n(0)]
    Any,
    /// These; none when empty.
    #[n(1)]
    Only(#[n(0)] BTreeSet<Name>),
}

impl GroupGrant {
    /// Whether all of `groups` may be given.
    pub fn covers(&self, groups: &BTreeSet<Name>) -> bool {
        match self {
            GroupGrant::Any => true,
            GroupGrant::Only(granted) => groups.is_subset(granted),
        }
    }
}

impl fmt::Display for GroupGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroupGrant::Any => f.write_str("any group"),
            GroupGrant::Only(granted) if granted.is_empty() => f.write_str("no group"),
            GroupGrant::Only(granted) => {
                let names: Vec<_> = granted.iter().map(Name::as_str).collect();
                write!(f, "no other groups than {}", names.join(", "))
            }
        }
    }
}

/// What an authority lends to a delegate.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Delegation {
    /// The network it is for.
    #[n(0)]
    pub network: NetworkId,
    /// The node that may act.
    #[n(1)]
    pub delegate: SignerKey,
    /// What it may do.
    #[n(2)]
    pub powers: Powers,
    /// The groups it may give.
    #[n(3)]
    pub groups: GroupGrant,
    /// The first second of its validity.
    #[n(4)]
    pub not_before: UnixTime,
    /// The last second of its validity.
    #[n(5)]
    pub not_after: UnixTime,
}

impl Delegation {
    /// Signs it.
    pub fn seal(&self, authority: &Signer) -> Vec<u8> {
        envelope::seal(authority, Domain::Delegation, self)
    }

    /// Reads a delegation and checks that an authority of this network signed it for this network.
    /// Whether it is valid *now* depends on what it is used for.
    pub fn open(bytes: &[u8], genesis: &Genesis) -> Result<Delegation, Rejection> {
        let opened = envelope::open::<Delegation>(Domain::Delegation, bytes)?;
        if opened.payload.network != genesis.id() {
            return Err(Rejection::WrongNetwork);
        }
        if !genesis.has_authority(&opened.signer) {
            return Err(Rejection::DelegationNotByAuthority);
        }
        Ok(opened.payload)
    }

    /// When it is valid, the last second included.
    pub fn validity(&self) -> RangeInclusive<UnixTime> {
        self.not_before..=self.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_its_groups_and_no_others() {
        let set = |names: &[&str]| -> BTreeSet<Name> {
            names.iter().map(|n| Name::parse(n).unwrap()).collect()
        };
        let gpu = GroupGrant::Only(set(&["gpu", "lab"]));
        assert!(gpu.covers(&set(&["gpu"])));
        assert!(gpu.covers(&set(&[])));
        assert!(!gpu.covers(&set(&["gpu", "admin"])));
        assert!(!GroupGrant::Only(set(&[])).covers(&set(&["gpu"])));
        assert!(GroupGrant::Any.covers(&set(&["admin"])));
    }

    #[test]
    fn powers_are_counted_one_by_one() {
        let powers = Powers::ADMIT | Powers::POLICY;
        assert!(powers.include(Powers::ADMIT));
        assert!(!powers.include(Powers::ADMIT | Powers::INVITE));
        assert!(Powers::ALL.include(powers));
        assert_eq!(format!("{powers:?}"), r#"{"ADMIT", "POLICY"}"#);
    }
}
