//! How this node becomes a member: it is one already, it joins, or it founds a network.
//!
//! With an invite or a bootstrap address a node never founds: two founders of one name are two networks. The network's
//! password decides nothing here: with a bootstrap address it is what to join with, else what others will join with.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::{
    membership::{
        Bundle, Credential, Founding, Joined, Name, Network, Notice, PasswordRecord, Redemption,
        Signer, UnixTime, address, genesis,
    },
    policy::Mode,
};
use ipnet::IpNet;

use crate::{
    commands::BadUsage,
    config::Config,
    event_loop::now,
    identity::{self, Identity},
    joining::{Outcome, Ticket},
    password::{self, Password},
    store::{Store, StoredMembership},
};

/// Which of the three it is.
pub enum Way {
    /// A member since an earlier run.
    Member(StoredMembership),
    /// Join with this.
    Join(Ticket),
    /// We were admitted by hand: begin with this.
    Admitted(Box<Bundle>),
    /// Found a network.
    Found {
        /// The authority's key goes into this directory.
        state: PathBuf,
        /// Others may join with this.
        password: Option<Password>,
    },
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
    /// Who was expelled, who may act for the authority, which policy is in force.
    pub notices: Vec<Vec<u8>>,
    /// Used invites.
    pub redemptions: Vec<Redemption>,
    /// What we keep of the password that admits others.
    pub password: Option<PasswordRecord>,
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

/// Decides by what there is: a stored membership, an invite, an admission, a bootstrap address with a password, or none
/// of these.
pub fn way(store: &Store, config: &Config, state: &Path) -> Result<Way> {
    if let Some(stored) = store.membership()? {
        check_same_network(&stored, config, state)?;
        return Ok(Way::Member(stored));
    }
    if config.invite.is_some() || config.admission.is_some() {
        ensure!(
            config.password.is_none(),
            BadUsage(
                "join with an invite or with the network's password, not with both".to_owned()
            )
        );
    }
    if let Some(invite) = &config.invite {
        invite.check_time(now().unix)?;
        return Ok(Way::Join(Ticket::Invite(Box::new(invite.clone()))));
    }
    if let Some(bundle) = &config.admission {
        return Ok(Way::Admitted(Box::new(bundle.clone())));
    }
    let password = match &config.password {
        Some(source) => Some(source.read()?),
        None => password::from_credential()?,
    };
    if config.bootstrap.is_empty() {
        // Nobody who replaces an identity wants a network of his own instead.
        ensure!(
            !identity::was_replaced(state)?,
            "this node's identity was replaced, and the new one is no member yet: 'hivevpn id' shows it; have it \
             admitted, and start with --join"
        );
        let state = state.to_owned();
        return Ok(Way::Found { state, password });
    }
    let password = password.ok_or_else(|| {
        BadUsage(format!(
            "there is a bootstrap address, but this node is no member: to join it needs the network's password as \
             well (--network {}:PASSWORD, or --password-file), or an invite instead (--join)",
            config.network
        ))
    })?;
    Ok(Way::Join(Ticket::Password {
        network: Name::parse(&config.network)?,
        password,
        bootstrap: config.bootstrap.clone(),
    }))
}

/// A member stays in its network, whatever it is given to join with.
fn check_same_network(stored: &StoredMembership, config: &Config, state: &Path) -> Result<()> {
    let network = Network::decode(&stored.network).context("the stored network is damaged")?;
    let (id, ours) = (network.id(), network.genesis().name());
    let (what, name, is_ours) = if let Some(invite) = &config.invite {
        let terms = invite.terms();
        ("invite", &terms.network_name, terms.network == id)
    } else if let Some(bundle) = &config.admission {
        let genesis = bundle.genesis();
        ("admission", genesis.name(), genesis.id() == id)
    } else if config.password.is_some() {
        let is_ours = config.network == ours.as_str();
        ("password", &Name::parse(&config.network)?, is_ours)
    } else {
        return Ok(());
    };
    ensure!(
        is_ours,
        BadUsage(format!(
            "the {what} is for the network '{name}', but {} belongs to '{ours}': choose another --state directory",
            state.display(),
        ))
    );
    // An admission may be newer than the certificate that is kept.
    if config.admission.is_none() {
        tracing::info!("already a member: the {what} is not used");
    }
    Ok(())
}

/// Goes that way. `None` when we were asked to stop meanwhile.
pub fn obtain(
    way: Way,
    name: &str,
    identity: &Identity,
    store: &Store,
    config: &Config,
    join: impl FnOnce(Ticket) -> Result<Outcome>,
) -> Result<Option<Membership>> {
    let mut membership = match way {
        Way::Member(mut stored) => {
            if let Some(bundle) = &config.admission {
                take_over(&mut stored, bundle, identity, store)?;
            }
            restore(&stored, identity, store)?
        }
        Way::Join(ticket) => {
            tracing::info!(network = %ticket.network(), "joining");
            let Outcome::Joined(joined) = join(ticket)? else {
                return Ok(None);
            };
            let membership = begin(*joined);
            save(&membership, store)?;
            membership
        }
        Way::Admitted(bundle) => {
            let joined = bundle.accept(&identity.signer()?.key(), now().unix)?;
            let network = joined.network.genesis().name();
            tracing::info!(%network, "admitted by hand");
            let membership = begin(joined);
            save(&membership, store)?;
            membership
        }
        Way::Found { state, password } => {
            let membership = found(name, identity, config, password.as_ref(), &state)?;
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

/// A member that was admitted by hand again, because it had been expelled or its certificate had run out, say, takes the
/// newer certificate over and keeps the rest.
fn take_over(
    stored: &mut StoredMembership,
    bundle: &Bundle,
    identity: &Identity,
    store: &Store,
) -> Result<()> {
    let own = identity.signer()?;
    let joined = match bundle.accept(&own.key(), now().unix) {
        Ok(joined) => joined,
        // It stands in a file that outlives it: what is kept may be good all the same.
        Err(reason) => {
            tracing::warn!(%reason, "the admission is not used");
            return Ok(());
        }
    };
    let serial = Credential::decode(&stored.credential)
        .and_then(|kept| kept.verify_untimed(bundle.genesis(), &own.peer_id()))
        .map(|kept| kept.serial);
    if serial.is_ok_and(|serial| serial >= joined.certificate.serial) {
        tracing::info!("already a member: the admission is not used");
        return Ok(());
    }
    tracing::info!("admitted again");
    stored.credential = joined.credential.encode();
    store.save_credential(&stored.credential)
}

fn begin(joined: Joined) -> Membership {
    Membership {
        name: joined.certificate.name.clone(),
        ipv4: joined.certificate.ipv4,
        network: joined.network,
        credential: joined.credential,
        delegation: None,
        records: joined.records,
        notices: joined.notices,
        redemptions: Vec::new(),
        password: None,
        time_floor: joined.time,
        is_founded_now: false,
    }
}

fn restore(stored: &StoredMembership, identity: &Identity, store: &Store) -> Result<Membership> {
    const DAMAGED: &str = "the stored membership is damaged: join again with a new invite and a new --state directory";
    let network = Network::decode(&stored.network).context(DAMAGED)?;
    let credential = Credential::decode(&stored.credential).context(DAMAGED)?;
    let time_floor = UnixTime(store.time_floor()?);
    // Whether it is still good is for the node to find out, which asks for a new one if not.
    let us = identity.signer()?.peer_id();
    let certificate = credential.verify_untimed(network.genesis(), &us).map_err(|rejection| {
        anyhow::anyhow!("this node's certificate cannot be used ({rejection}): join again with a new invite and a new --state directory")
    })?;
    // A redemption that cannot be read would let its invite be used twice: better not to start.
    let redemptions = store
        .redemptions()?
        .iter()
        .map(|bytes| Redemption::decode(bytes))
        .collect::<Result<_, _>>();
    let password = store.password()?;
    let password = password
        .map(|bytes| PasswordRecord::decode(&bytes))
        .transpose();
    Ok(Membership {
        name: certificate.name.clone(),
        ipv4: certificate.ipv4,
        network,
        credential,
        delegation: stored.delegation.clone(),
        records: store.records()?,
        notices: store.notices()?,
        redemptions: redemptions.context(
            "the list of used invites is damaged: restore the state directory from a backup",
        )?,
        password: password.context(
            "the record of the network's password is damaged: restore the state directory from a backup",
        )?,
        time_floor,
        is_founded_now: false,
    })
}

fn found(
    name: &str,
    identity: &Identity,
    config: &Config,
    password: Option<&Password>,
    state: &Path,
) -> Result<Membership> {
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
        policy_mode: Some(config.policy.unwrap_or(match password {
            Some(_) => Mode::Published,
            None => Mode::Open,
        })),
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
        notices: Vec::new(),
        redemptions: Vec::new(),
        password: password.map(Password::record).transpose()?,
        time_floor: unix,
        is_founded_now: true,
    })
}

fn save(membership: &Membership, store: &Store) -> Result<()> {
    store.save_time_floor(membership.time_floor.0)?;
    let password = membership.password.as_ref().map(PasswordRecord::encode);
    store.save_password(password.as_ref().map(|bytes| bytes.as_slice()))?;
    for notice in &membership.notices {
        store.save_notice(&Notice::id_of(notice), notice)?;
    }
    store.save_membership(&StoredMembership {
        network: membership.network.encode(),
        credential: membership.credential.encode(),
        delegation: membership.delegation.clone(),
    })
}
