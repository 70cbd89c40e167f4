//! A network as its members keep it: the genesis and the discovery secret.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, time::Duration};

use ipnet::Ipv4Net;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::{
    certificate::Credential,
    delegation::{Delegation, GroupGrant, Powers},
    directory::Directory,
    genesis::{Charter, Genesis, NetworkId},
    issuer::{Applicant, Issuer, TIER_INVITED},
    name::Name,
    refusal::JoinRefusal,
    rejection::Rejection,
    signer::Signer,
    time::{CLOCK_SKEW, UnixTime},
    wire,
};
use crate::{policy::Mode, session::Identity, tunnel_key::Keyring};

/// How long the founder's delegation is valid: the authority's key need not be found again for
/// as long as the founder's machine is likely to live.
const FOUNDERS_DELEGATION: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What every member knows and no stranger.
#[derive(Clone, PartialEq, Eq)]
pub struct Network {
    genesis: Genesis,
    discovery_secret: Zeroizing<[u8; 32]>,
}

/// What a founder decides.
#[derive(Debug)]
pub struct Founding {
    /// What people will call the network.
    pub name: Name,
    /// Where addresses come from; see [`DEFAULT_IPV4_PREFIX`](super::genesis::DEFAULT_IPV4_PREFIX).
    pub ipv4_prefix: Ipv4Net,
    /// See [`DEFAULT_CERTIFICATE_LIFETIME`](super::genesis::DEFAULT_CERTIFICATE_LIFETIME).
    pub certificate_lifetime: Duration,
    /// What the founding node will be called.
    pub founder_name: Name,
    /// The address the founding node wants; any, if none.
    pub founder_ipv4: Option<Ipv4Addr>,
    /// What members may reach of each other until a policy is set; everything, if none.
    pub policy_mode: Option<Mode>,
}

/// A network that has just been founded, with its first member.
#[derive(Debug)]
pub struct Founded {
    /// What all members will keep.
    pub network: Network,
    /// The founder's delegation, all powers and groups: what its [`Issuer`] is made with.
    pub delegation: Vec<u8>,
    /// The founder's own credential.
    pub credential: Credential,
}

/// A network could not be founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoundingError {
    /// The genesis breaks a rule.
    #[error("the network cannot be founded")]
    Genesis(#[from] Rejection),
    /// The founder cannot be what it asks to be.
    #[error("this node cannot be its first member")]
    Founder(#[from] JoinRefusal),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Kept {
    #[cbor(n(0), with = "minicbor::bytes")]
    genesis: Vec<u8>,
    #[cbor(n(1), with = "wire::secret")]
    discovery_secret: Zeroizing<[u8; 32]>,
}

impl Network {
    /// Founds a network. `salt` and `discovery_secret` must be random; the authority's key may be
    /// taken offline afterwards.
    pub fn found(
        founding: Founding,
        authority: &Signer,
        founder: &Signer,
        salt: [u8; 16],
        discovery_secret: Zeroizing<[u8; 32]>,
        now: UnixTime,
    ) -> Result<Founded, FoundingError> {
        let charter = Charter {
            name: founding.name,
            salt,
            created: now,
            authorities: vec![authority.key()],
            ipv4_prefix: founding.ipv4_prefix,
            certificate_lifetime_secs: founding.certificate_lifetime.as_secs(),
            policy_mode: founding.policy_mode,
        };
        let genesis = Genesis::seal(&charter, authority)?;
        let delegation = Delegation {
            network: genesis.id(),
            delegate: founder.key(),
            powers: Powers::ALL,
            groups: GroupGrant::Any,
            not_before: now.minus(CLOCK_SKEW),
            not_after: now.plus(FOUNDERS_DELEGATION),
        }
        .seal(authority);

        let issuer = Issuer::new(founder.clone(), delegation.clone(), genesis.clone())?;
        let applicant = Applicant {
            key: founder.key(),
            name: founding.founder_name,
            groups: BTreeSet::new(),
            ipv4: founding.founder_ipv4,
            tier: TIER_INVITED,
        };
        let nobody_else = &mut Directory::new(genesis.clone());
        let credential = issuer.admit(applicant, now, nobody_else)?;
        Ok(Founded {
            network: Network::new(genesis, discovery_secret),
            delegation,
            credential,
        })
    }

    pub(super) fn new(genesis: Genesis, discovery_secret: Zeroizing<[u8; 32]>) -> Network {
        Network {
            genesis,
            discovery_secret,
        }
    }

    /// The network's id.
    pub fn id(&self) -> NetworkId {
        self.genesis.id()
    }

    /// The founding document.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    pub(super) fn discovery_secret(&self) -> &Zeroizing<[u8; 32]> {
        &self.discovery_secret
    }

    /// What this network's tunnels are keyed with, for the node that has this WireGuard key. `seed` is random and secret.
    pub fn keyring(&self, identity: Identity, seed: Zeroizing<[u8; 32]>) -> Keyring {
        let network = *self.id().as_bytes();
        Keyring::new(identity, network, self.discovery_secret.clone(), seed)
    }

    /// For the store. Contains the secret.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(wire::encode(&Kept {
            genesis: self.genesis.envelope().to_vec(),
            discovery_secret: self.discovery_secret.clone(),
        }))
    }

    /// Reads what [`encode`](Network::encode) wrote.
    pub fn decode(bytes: &[u8]) -> Result<Network, Rejection> {
        let kept: Kept = wire::decode(bytes)?;
        Ok(Network::new(
            Genesis::open(&kept.genesis)?,
            kept.discovery_secret,
        ))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("name", self.genesis.name())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
