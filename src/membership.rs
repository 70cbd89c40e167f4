//! How this node becomes a member: it is one already, it joins, or it founds a network.
//!
//! With an invite or a bootstrap address a node never founds: two founders of one name are two networks.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::membership::{
    Credential, Founding, Invite, Name, Network, Redemption, Signer, UnixTime, address, genesis,
};
use ipnet::IpNet;

use crate::{
    commands::BadUsage,
    config::Config,
    event_loop::now,
    identity::{self, Identity},
    joining::Outcome,
    store::{Store, StoredMembership},
};

/// Which of the three it is.
pub enum Way {
    /// A member since an earlier run.
    Member(StoredMembership),
    /// Join with this invite.
    Join(Box<Invite>),
    /// Found a network; the authority's key goes into this directory.
    Found(PathBuf),
}

/// A membership with everything that a node starts from.
pub struct Membership {
    /// The network.
    pub network: Network,
    /// Our certificate.
    pub credential: Credential,
    /// Our delegation, if we may admit others.
    pub delegation: Option<Vec<u8>>,
    /// What we call ourselves.
    pub name: Name,
    /// Records of members.
    pub records: Vec<Vec<u8>>,
    /// Used invites.
    pub redemptions: Vec<Redemption>,
    /// The latest moment known.
    pub time_floor: UnixTime,
    /// We founded the network in this run.
    pub is_founded_now: bool,
    ipv4: Ipv4Addr,
}

/// Our overlay addresses, each with the length of the overlay's prefix.
pub struct OwnAddresses {
    /// From the certificate.
    pub ipv4: (Ipv4Addr, u8),
    /// Self-certifying.
    pub ipv6: (Ipv6Addr, u8),
}

impl OwnAddresses {
    /// The overlay's ranges, both families.
    pub fn ranges(&self) -> [IpNet; 2] {
        let range = |address: IpAddr, length| IpNet::new_assert(address, length).trunc();
        [
            range(self.ipv4.0.into(), self.ipv4.1),
            range(self.ipv6.0.into(), self.ipv6.1),
        ]
    }
}

impl Membership {
    /// What the interface gets.
    pub fn addresses(&self, signer: &Signer) -> OwnAddresses {
        let genesis = self.network.genesis();
        OwnAddresses {
            ipv4: (self.ipv4, genesis.ipv4_prefix().prefix_len()),
            ipv6: (
                address::ipv6(&genesis.id(), &signer.key()),
                address::ipv6_prefix(&genesis.id()).prefix_len(),
            ),
        }
    }
}

/// Decides by what there is: a stored membership, an invite, or neither.
pub fn way(store: &Store, config: &Config, state: &Path) -> Result<Way> {
    if let Some(stored) = store.membership()? {
        if let Some(invite) = &config.invite {
            let network =
                Network::decode(&stored.network).context("the stored network is damaged")?;
            ensure!(
                invite.terms().network == network.id(),
                BadUsage(format!(
                    "the invite is for the network '{}', but {} belongs to '{}': choose another --state directory",
                    invite.terms().network_name,
                    state.display(),
                    network.genesis().name(),
                ))
            );
            tracing::info!("already a member: the invite is not used");
        }
        return Ok(Way::Member(stored));
    }
    if let Some(invite) = &config.invite {
        invite.check_time(now().unix)?;
        return Ok(Way::Join(Box::new(invite.clone())));
    }
    ensure!(
        config.bootstrap.is_empty(),
        BadUsage(
            "underlay.bootstrap is set but this node is no member: it needs an invite as well"
                .to_owned()
        )
    );
    Ok(Way::Found(state.to_owned()))
}

/// Goes that way. `None` when we were asked to stop meanwhile.
pub fn obtain(
    way: Way,
    name: &str,
    identity: &Identity,
    store: &Store,
    config: &Config,
    join: impl FnOnce(&Invite) -> Result<Outcome>,
) -> Result<Option<Membership>> {
    let mut membership = match way {
        Way::Member(stored) => restore(&stored, identity, store)?,
        Way::Join(invite) => {
            tracing::info!(network = %invite.terms().network_name, "joining");
            let Outcome::Joined(joined) = join(&invite)? else {
                return Ok(None);
            };
            let membership = Membership {
                name: joined.certificate.name.clone(),
                ipv4: joined.certificate.ipv4,
                network: joined.network,
                credential: joined.credential,
                delegation: None,
                records: joined.records,
                redemptions: Vec::new(),
                time_floor: joined.time,
                is_founded_now: false,
            };
            save(&membership, store)?;
            membership
        }
        Way::Found(state) => {
            let membership = found(name, identity, config, &state)?;
            save(&membership, store)?;
            membership
        }
    };
    // A name given by hand is what this node calls itself from now on.
    if let Some(chosen) = &config.name {
        membership.name = Name::parse(chosen)?;
    }
    Ok(Some(membership))
}

fn restore(stored: &StoredMembership, identity: &Identity, store: &Store) -> Result<Membership> {
    const DAMAGED: &str = "the stored membership is damaged: join again with a new invite and a new --state directory";
    let network = Network::decode(&stored.network).context(DAMAGED)?;
    let credential = Credential::decode(&stored.credential).context(DAMAGED)?;
    let time_floor = UnixTime(store.time_floor()?);
    let unix = now().unix.max(time_floor);
    let certificate = credential.verify(network.genesis(), unix, &identity.signer()?.peer_id()).map_err(|rejection| {
        anyhow::anyhow!("this node's certificate cannot be used ({rejection}): join again with a new invite and a new --state directory")
    })?;
    // A redemption that cannot be read would let its invite be used twice: better not to start.
    let redemptions = store
        .redemptions()?
        .iter()
        .map(|bytes| Redemption::decode(bytes))
        .collect::<Result<_, _>>();
    Ok(Membership {
        name: certificate.name.clone(),
        ipv4: certificate.ipv4,
        network,
        credential,
        delegation: stored.delegation.clone(),
        records: store.records()?,
        redemptions: redemptions.context(
            "the list of used invites is damaged: restore the state directory from a backup",
        )?,
        time_floor,
        is_founded_now: false,
    })
}

fn found(name: &str, identity: &Identity, config: &Config, state: &Path) -> Result<Membership> {
    let signer = identity.signer()?;
    let authority = Signer::new(identity::load_or_create_authority(state)?)?;
    let founding = Founding {
        name: Name::parse(&config.network)?,
        ipv4_prefix: config.ipv4_prefix,
        certificate_lifetime: genesis::DEFAULT_CERTIFICATE_LIFETIME,
        founder_name: Name::sanitised(name).with_context(|| {
            format!("'{name}' cannot be this node's name: give one with --name")
        })?,
        founder_ipv4: config.address,
    };
    let random = identity::random_bytes();
    let mut salt = [0; 16];
    salt.copy_from_slice(&random[..16]);
    let unix = now().unix;
    if let Some(ipv4) = config.address {
        ensure!(
            address::is_usable(config.ipv4_prefix, ipv4),
            BadUsage(format!(
                "{ipv4} is no usable address of the overlay: choose one inside {}",
                config.ipv4_prefix
            ))
        );
    }
    let founded = Network::found(
        founding,
        &authority,
        &signer,
        salt,
        identity::random_bytes(),
        unix,
    )?;
    let certificate =
        founded
            .credential
            .verify(founded.network.genesis(), unix, &signer.peer_id())?;
    tracing::info!(network = %founded.network.genesis().name(), id = %founded.network.id(), "founded a network");
    Ok(Membership {
        name: certificate.name.clone(),
        ipv4: certificate.ipv4,
        network: founded.network,
        credential: founded.credential,
        delegation: Some(founded.delegation),
        records: Vec::new(),
        redemptions: Vec::new(),
        time_floor: unix,
        is_founded_now: true,
    })
}

fn save(membership: &Membership, store: &Store) -> Result<()> {
    store.save_time_floor(membership.time_floor.0)?;
    store.save_membership(&StoredMembership {
        network: membership.network.encode(),
        credential: membership.credential.encode(),
        delegation: membership.delegation.clone(),
    })
}
