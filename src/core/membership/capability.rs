//! A node lends a member some of the rights over itself, for a short time.
//!
//! Membership gives no right on anybody's machine. Who proves to a node that it is an administrator of *that
//! node* is given a capability: signed by the node, for one other member, for an hour. It is shown with
//! each request. Nobody but that member can use it, no other node believes it, and the node that
//! signed it ends all of them by beginning a new *epoch*.

use std::{fmt, ops::BitOr, time::Duration};

use minicbor::{Decode, Encode};

use super::{
    envelope::{self, Domain},
    genesis::NetworkId,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
};

/// How long a capability is good for. A stolen one is of use to its subject alone, so an hour costs little, and
/// an administrator types the password once for a session's work.
pub const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// What its holder may do on one node. Unknown bits, from later versions, are kept and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct Roles(#[n(0)] u32);

impl Roles {
    /// None at all.
    pub const NONE: Roles = Roles(0);
    /// Read status, members and measurements.
    pub const METRICS: Roles = Roles(1);
    /// Open and close services and forwards.
    pub const PROXY: Roles = Roles(1 << 1);
    /// Run programs.
    pub const SHELL: Roles = Roles(1 << 2);
    /// Replace the program.
    pub const UPDATE: Roles = Roles(1 << 3);
    /// Change the configuration, and stop the node.
    pub const CONFIG: Roles = Roles(1 << 4);
    /// Use the node's keys: admit, revoke, delegate, rotate.
    pub const KEYS: Roles = Roles(1 << 5);
    /// Every role this version knows.
    pub const ALL: Roles = Roles(0b11_1111);

    /// The names, as people write them.
    pub const NAMES: [(Roles, &'static str); 6] = [
        (Roles::METRICS, "metrics"),
        (Roles::PROXY, "proxy"),
        (Roles::SHELL, "shell"),
        (Roles::UPDATE, "update"),
        (Roles::CONFIG, "config"),
        (Roles::KEYS, "keys"),
    ];

    /// Whether all of `wanted` are in here.
    pub fn include(self, wanted: Roles) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// The names of those in here.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Roles::NAMES
            .into_iter()
            .filter(move |(role, _)| self.include(*role))
            .map(|(_, name)| name)
    }

    /// Whether there is none in here that this version knows.
    pub fn is_empty(self) -> bool {
        self.names().next().is_none()
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Roles> {
        let found = Roles::NAMES.into_iter().find(|(_, known)| *known == name);
        found.map(|(role, _)| role)
    }
}

impl BitOr for Roles {
    type Output = Roles;

    fn bitor(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// That a member may act on a node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Capability {
    /// The network in which both are.
    #[n(0)]
    pub network: NetworkId,
    /// Whose it is: the member that may act.
    #[n(1)]
    pub subject: SignerKey,
    /// What it may do.
    #[n(2)]
    pub roles: Roles,
    /// The last second of its validity.
    #[n(3)]
    pub not_after: UnixTime,
    /// Of the node that signed: random at its start, and anew when its administrators change.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub epoch: [u8; 16],
}

impl Capability {
    /// Signs it, as the node that is acted on.
    pub fn seal(&self, node: &Signer) -> Vec<u8> {
        envelope::seal(node, Domain::Capability, self)
    }

    /// What the peer `from` may do on `node`, having shown `bytes`.
    pub fn check(
        bytes: &[u8],
        node: &SignerKey,
        network: &NetworkId,
        epoch: &[u8; 16],
        from: &SignerKey,
        now: UnixTime,
    ) -> Result<Roles, Rejection> {
        let opened = envelope::open::<Capability>(Domain::Capability, bytes)?;
        let capability = opened.payload;
        if opened.signer != *node {
            return Err(Rejection::WrongIssuer);
        }
        if capability.network != *network {
            return Err(Rejection::WrongNetwork);
        }
        if capability.subject != *from {
            return Err(Rejection::WrongSubject);
        }
        if capability.epoch != *epoch || now > capability.not_after {
            return Err(Rejection::Expired);
        }
        Ok(capability.roles)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixTime = UnixTime(1_000_000);
    const EPOCH: [u8; 16] = [3; 16];

    fn signer(number: u8) -> Signer {
        Signer::from_seed(&[number; 32])
    }

    fn network() -> NetworkId {
        NetworkId::from_bytes([1; 32])
    }

    fn capability() -> Vec<u8> {
        Capability {
            network: network(),
            subject: signer(2).key(),
            roles: Roles::METRICS | Roles::SHELL,
            not_after: NOW.plus(LIFETIME),
            epoch: EPOCH,
        }
        .seal(&signer(1))
    }

    fn check(bytes: &[u8], node: u8, from: u8) -> Result<Roles, Rejection> {
        let (node, from) = (signer(node).key(), signer(from).key());
        Capability::check(bytes, &node, &network(), &EPOCH, &from, NOW)
    }

    #[test]
    fn its_subject_may_do_on_its_node_what_it_says() {
        let roles = check(&capability(), 1, 2).unwrap();
        assert!(roles.include(Roles::METRICS) && roles.include(Roles::SHELL));
        assert!(!roles.include(Roles::CONFIG));
    }

    #[test]
    fn another_member_that_has_overheard_it_may_do_nothing() {
        assert_eq!(check(&capability(), 1, 3), Err(Rejection::WrongSubject));
    }

    #[test]
    fn another_node_does_not_believe_it() {
        assert_eq!(check(&capability(), 3, 2), Err(Rejection::WrongIssuer));
    }

    #[test]
    fn it_ends_with_its_time_its_epoch_and_its_network() {
        let (node, from) = (signer(1).key(), signer(2).key());
        let check = |network: &NetworkId, epoch: &[u8; 16], now| {
            Capability::check(&capability(), &node, network, epoch, &from, now)
        };
        let last = NOW.plus(LIFETIME);
        assert!(check(&network(), &EPOCH, last).is_ok());
        let after = UnixTime(last.0 + 1);
        assert_eq!(check(&network(), &EPOCH, after), Err(Rejection::Expired));
        assert_eq!(check(&network(), &[4; 16], NOW), Err(Rejection::Expired));
        let other = NetworkId::from_bytes([2; 32]);
        assert_eq!(check(&other, &EPOCH, NOW), Err(Rejection::WrongNetwork));
    }

    #[test]
    fn every_role_has_a_name_and_every_name_a_role() {
        assert_eq!(Roles::ALL.names().count(), Roles::NAMES.len());
        for (role, name) in Roles::NAMES {
            assert_eq!(Roles::named(name), Some(role));
        }
        assert_eq!(Roles::named("root"), None);
    }

    proptest! {
        #[test]
        fn bent_bytes_give_no_right(at in 0usize..2000, bit in 0u8..8) {
            let mut bent = capability();
            let at = at % bent.len();
            bent[at] ^= 1 << bit;
            prop_assert!(check(&bent, 1, 2).is_err());
        }
    }
}
