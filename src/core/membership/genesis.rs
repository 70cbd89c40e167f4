//! The founding document of a network, from which everything else follows.
//!
//! An authority signs it once; it never changes. Its hash is the network's id, so whoever knows the
//! id (an invite says it) can tell the one true genesis from any other, and with it knows the
//! authorities, whose delegations make every certificate.

use std::{fmt, time::Duration};

use ipnet::Ipv4Net;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use super::{
    address,
    envelope::{self, Domain},
    name::Name,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};
use crate::policy::Mode;

/// The IPv4 prefix of a network whose founder asked for none.
pub const DEFAULT_IPV4_PREFIX: Ipv4Net =
    Ipv4Net::new_assert(std::net::Ipv4Addr::new(10, 77, 0, 0), 16);

/// How long a certificate is valid unless the founder asked otherwise. Renewal begins at half of
/// it, so a node may be switched off for two weeks and come back by itself.
pub const DEFAULT_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A network is run by a few authorities; the list is in every verification's path.
const MAX_AUTHORITIES: usize = 8;

/// SHA-256("hivevpn/v1/network" ‖ genesis payload): the one name of a network that nobody else can
/// have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct NetworkId(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

impl NetworkId {
    fn of(genesis_payload: &[u8]) -> NetworkId {
        let hash = Sha256::new()
            .chain_update("hivevpn/v1/network")
            .chain_update(genesis_payload);
        NetworkId(hash.finalize().into())
    }

    /// The id with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> NetworkId {
        NetworkId(bytes)
    }

    /// All 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// 64 hexadecimal digits.
impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a founder decides about a network, once.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Charter {
    /// What people call it. Two founders may choose the same name; the ids differ.
    #[n(0)]
    pub name: Name,
    /// Random, so that no two networks have one id.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// When it was founded.
    #[n(2)]
    pub created: UnixTime,
    /// Who may delegate powers, one to eight of them.
    #[n(3)]
    pub authorities: Vec<SignerKey>,
    /// Where the members' IPv4 addresses come from; private, /8 to /30.
    #[cbor(n(4), with = "wire::prefix")]
    pub ipv4_prefix: Ipv4Net,
    /// The longest a certificate may be valid, in seconds.
    #[n(5)]
    pub certificate_lifetime_secs: u64,
    /// What members may reach of each other before anybody has set a policy; everything, if it is not said.
    #[n(6)]
    pub policy_mode: Option<Mode>,
}

/// A genesis whose signature and rules were checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    charter: Charter,
    id: NetworkId,
    envelope: Vec<u8>,
}

impl Genesis {
    /// Signs a charter by one of its authorities.
    pub fn seal(charter: &Charter, authority: &Signer) -> Result<Genesis, Rejection> {
        Genesis::open(&envelope::seal(authority, Domain::Genesis, charter))
    }

    /// Reads a genesis. That it is the right one, only its [`id`](Genesis::id) can tell.
    pub fn open(bytes: &[u8]) -> Result<Genesis, Rejection> {
        let opened = envelope::open::<Charter>(Domain::Genesis, bytes)?;
        let charter = opened.payload;
        if charter.authorities.len() > MAX_AUTHORITIES
            || !charter.authorities.contains(&opened.signer)
        {
            return Err(Rejection::NotAnAuthority);
        }
        if !address::is_usable_prefix(charter.ipv4_prefix) {
            return Err(Rejection::UnusablePrefix);
        }
        if charter.certificate_lifetime_secs == 0 {
            return Err(Rejection::Malformed("certificates without a lifetime"));
        }
        Ok(Genesis {
            charter,
            id: NetworkId::of(&opened.bytes),
            envelope: bytes.to_vec(),
        })
    }

    /// The network's id.
    pub fn id(&self) -> NetworkId {
        self.id
    }

    /// The network's name.
    pub fn name(&self) -> &Name {
        &self.charter.name
    }

    /// Where the members' IPv4 addresses come from.
    pub fn ipv4_prefix(&self) -> Ipv4Net {
        self.charter.ipv4_prefix
    }

    /// The longest a certificate may be valid.
    pub fn certificate_lifetime(&self) -> Duration {
        Duration::from_secs(self.charter.certificate_lifetime_secs)
    }

    /// What members may reach of each other before anybody has set a policy.
    pub fn policy_mode(&self) -> Mode {
        self.charter.policy_mode.unwrap_or_default()
    }

    /// All that the founder decided.
    pub fn charter(&self) -> &Charter {
        &self.charter
    }

    /// The signed bytes, to be handed to joiners and kept by members.
    pub fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Whether `key` may sign delegations.
    pub fn has_authority(&self, key: &SignerKey) -> bool {
        self.charter.authorities.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Signer {
        Signer::from_seed(&[1; 32])
    }

    fn charter() -> Charter {
        Charter {
            name: Name::parse("home").unwrap(),
            salt: [7; 16],
            created: UnixTime(1_000),
            authorities: vec![authority().key()],
            ipv4_prefix: DEFAULT_IPV4_PREFIX,
            certificate_lifetime_secs: DEFAULT_CERTIFICATE_LIFETIME.as_secs(),
            policy_mode: None,
        }
    }

    #[test]
    fn a_genesis_survives_its_encoding() {
        let genesis = Genesis::seal(&charter(), &authority()).unwrap();
        assert_eq!(genesis.charter(), &charter());
        assert_eq!(Genesis::open(genesis.envelope()), Ok(genesis));
    }

    #[test]
    fn a_founder_that_says_nothing_of_a_policy_leaves_everything_open() {
        let silent = Genesis::seal(&charter(), &authority()).unwrap();
        assert_eq!(silent.policy_mode(), Mode::Open);
        let charter = Charter {
            policy_mode: Some(Mode::Closed),
            ..charter()
        };
        let strict = Genesis::seal(&charter, &authority()).unwrap();
        assert_eq!(strict.policy_mode(), Mode::Closed);
        // What was signed before there were policies reads as before.
        assert!(silent.envelope().len() < strict.envelope().len());
    }

    #[test]
    fn two_networks_of_one_name_have_two_ids() {
        let other = Charter {
            salt: [8; 16],
            ..charter()
        };
        let ids = [charter(), other].map(|c| Genesis::seal(&c, &authority()).unwrap().id());
        assert_ne!(ids[0], ids[1]);
    }

    #[test]
    fn a_genesis_must_be_signed_by_its_own_authority() {
        let stranger = Signer::from_seed(&[2; 32]);
        assert_eq!(
            Genesis::seal(&charter(), &stranger),
            Err(Rejection::NotAnAuthority)
        );
    }

    #[test]
    fn a_network_cannot_claim_addresses_of_the_internet() {
        for (prefix, verdict) in [
            ("8.8.8.0/24", Err(Rejection::UnusablePrefix)),
            ("0.0.0.0/0", Err(Rejection::UnusablePrefix)),
            ("10.0.0.0/31", Err(Rejection::UnusablePrefix)),
            ("192.168.0.0/15", Err(Rejection::UnusablePrefix)),
            ("192.168.5.0/24", Ok(())),
            ("100.64.0.0/10", Ok(())),
        ] {
            let charter = Charter {
                ipv4_prefix: prefix.parse().unwrap(),
                ..charter()
            };
            let sealed = Genesis::seal(&charter, &authority());
            assert_eq!(sealed.map(|_| ()), verdict, "{prefix}");
        }
    }
}
