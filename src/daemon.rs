//! `hivevpn up`: starts everything in order, runs the loops, undoes everything in reverse.
//!
//! One process serves any number of networks, which share nothing but it: each has a state directory, keys, sockets, a
//! swarm, an interface and a loop of its own ([`Launch`]). What goes wrong with one ends that one.
//!
//! All of them are set up together, because privileges are given up on the way, before there is a second thread:
//!
//! 1. **as root**, if it was root who started us: state directories are claimed and interfaces made ([`Ground`]);
//! 2. **as the service's user**, if there is one: ports are bound, keys loaded ([`Prepared`]);
//! 3. **with CAP_NET_ADMIN and CAP_NET_BIND_SERVICE alone**: databases are opened, networks joined, packets moved.
//!
//! What lives in the kernel (interface, addresses, routes) hangs on the interface, and the interface on this process:
//! it is gone however the process ends. What lies on the disk and may be stale after a crash, the control socket, is
//! replaced at the next start. A start that fails before this node is a member leaves nothing behind.

use std::{
    collections::BTreeSet,
    num::NonZeroU64,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::{
    node::{Node, Start},
    relay, session,
};
use hivevpn_platform::{
    open_files, priority,
    privileges::{self, ServiceUser},
    tun::{Tun, TunError},
};
use ipnet::IpNet;
use tokio::runtime::Handle;

use crate::{
    audit::Audit,
    commands::BadUsage,
    config::Config,
    event_loop::{EventLoop, now},
    identity::{self, Identity},
    membership::{self, Membership, OwnAddresses},
    names,
    store::Store,
    swarm::{DhtMode, addresses::Overlay},
};

mod convoy;
mod ground;
mod network_side;
mod runtime;

use convoy::Convoy;
use ground::{Claim, Ground};
use network_side::{NetworkSide, Ports};
use runtime::RuntimeThread;

/// Sockets, above all of connections to what is exposed and forwarded.
const OPEN_FILES: u64 = 16_384;

/// One network to bring up.
pub struct Launch {
    /// How it is told from its siblings, if it has any.
    pub name: Option<String>,
    /// Its options.
    pub config: Config,
    /// Its state directory.
    pub state: PathBuf,
    /// The directory above, if that is there for the state directories of networks and nothing else.
    pub home: Option<PathBuf>,
    /// Its control socket.
    pub socket: PathBuf,
}

/// Brings the networks up and runs until all of them were told to stop. One that fails does not keep the others from
/// running; it is named at once in the log and, as long as others run, in the error at the end.
pub fn run(launches: Vec<Launch>) -> Result<()> {
    ensure!(
        privileges::may_configure_interfaces(),
        "no permission to create a network interface: run as root (sudo hivevpn up …), or grant the program the \
         capability with 'setcap cap_net_admin+ep'"
    );
    no_core_dumps();
    if let Err(error) = open_files::raise_limit(OPEN_FILES) {
        tracing::debug!(%error, "the limit on open files stays as it is");
    }
    let user = service_user(&launches)?;
    let realtime = launches.iter().any(|launch| launch.config.realtime);
    let mut ports = Ports::wanted_by(launches.iter().map(|launch| &launch.config));
    let mut convoy = Convoy::of(launches.len());

    let grounds = convoy.advance(launches, |launch| Ground::claim(launch, user.as_ref()))?;
    if let Some(user) = &user {
        privileges::become_user(user)
            .with_context(|| format!("cannot become the user {}", user.name))?;
        tracing::debug!(user = %user.name, "root no more");
    }
    let prepared = convoy.advance(grounds, |ground| Prepared::new(ground, &mut ports))?;
    if realtime {
        priority::provide();
    }
    privileges::keep_only_network().context("cannot give up privileges")?;
    // The change of user and of capabilities has reset it.
    no_core_dumps();
    convoy.run(prepared)
}

fn no_core_dumps() {
    if let Err(error) = privileges::disable_core_dumps() {
        tracing::debug!(%error, "core dumps stay enabled");
    }
}

/// The user that root becomes.
fn service_user(launches: &[Launch]) -> Result<Option<ServiceUser>> {
    let named: BTreeSet<_> = launches
        .iter()
        .filter_map(|launch| launch.config.user.as_deref())
        .collect();
    ensure!(
        named.len() <= 1,
        BadUsage(format!(
            "one daemon is one user, but the files name several ({}): name one, or start a daemon for each",
            Vec::from_iter(named).join(", ")
        ))
    );
    if privileges::effective_uid() != 0 {
        return Ok(None);
    }
    match named.first() {
        Some(&"root") => Ok(None),
        Some(&name) => {
            let user = ServiceUser::named(name)?.ok_or_else(|| {
                BadUsage(format!(
                    "there is no user '{name}' here: make it with 'useradd --system --user-group --no-create-home \
                     {name}', or name another one"
                ))
            })?;
            Ok(Some(user))
        }
        None => {
            let user = ServiceUser::named(privileges::SERVICE)?;
            if user.is_none() {
                tracing::debug!(
                    "there is no user '{}': root without capabilities will do",
                    privileges::SERVICE
                );
            }
            Ok(user)
        }
    }
}

/// A network with everything that takes privileges.
struct Prepared {
    identity: Identity,
    network_side: NetworkSide,
    runtime: tokio::runtime::Runtime,
    ground: Ground,
}

impl Prepared {
    fn new(ground: Ground, ports: &mut Ports) -> Result<Self> {
        let Launch {
            config,
            state,
            socket,
            ..
        } = &ground.launch;
        ground::check_secrets(state)?;
        let identity = Identity::load_or_create(state)?;
        let audit = Audit::open(state)?;
        // Driven by one thread, which is made once nothing is left to give up.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the network side of this node")?;
        let network_side = NetworkSide::start(config, &identity, socket, audit, ports, &runtime)?;
        Ok(Self {
            identity,
            network_side,
            runtime,
            ground,
        })
    }

    /// Runs until told to stop. What a command that asked to stop waits for is the end of its connection, with which
    /// everything else is over.
    fn run(self, siblings: &Siblings) -> Result<()> {
        let Self {
            identity,
            network_side,
            runtime,
            ground: Ground { tun, claim, launch },
        } = self;
        // Everything that is logged on this network's threads says which it is, if there are several.
        let span = launch
            .name
            .as_ref()
            .map(|name| tracing::error_span!("network", %name));
        let _inside = span.as_ref().map(tracing::Span::enter);
        let runtime = RuntimeThread::start(runtime, "swarm", span.clone())?;
        let result = up(
            &launch,
            tun,
            &identity,
            network_side,
            &claim,
            runtime.handle(),
            siblings,
        );
        drop(claim);
        runtime.end();
        if let (Err(error), Some(name)) = (&result, &launch.name) {
            tracing::error!("network '{name}': {error:#}");
        }
        result
    }
}

fn up(
    launch: &Launch,
    mut tun: Tun,
    identity: &Identity,
    mut network_side: NetworkSide,
    claim: &Claim,
    runtime: &Handle,
    siblings: &Siblings,
) -> Result<()> {
    let Launch { config, state, .. } = launch;
    let store = Store::open(state)?;
    let way = membership::way(&store, config, state)?;
    let Some(membership) =
        network_side.become_member(way, identity, &store, config, claim.footprint())?
    else {
        return Ok(());
    };
    let own = membership.addresses(&identity.signer()?);
    siblings.take_addresses(&mut tun, &own)?;
    // What a founder made is of use from here on; what a joiner got is kept since it asked.
    claim.footprint().keep();
    let network = membership.network.genesis().name();
    tracing::info!(%network, interface = tun.name(), ipv4 = %own.ipv4.0, ipv6 = %own.ipv6.0, "up");
    let greet = membership.is_founded_now;
    let node = node(membership, identity, &store, config)?;
    let (parts, mut services, rest) =
        network_side.into_parts(node, tun, store, state, config, greet)?;
    services.names = names::Start {
        config: config.names.clone(),
        resolv_conf: claim.resolv_conf(),
    };
    let services = runtime::run_services(services)?;
    let result = EventLoop::new(parts).run();
    // The loop has dropped its end of the questions, which ends the services.
    if services.join().is_err() {
        tracing::error!("the services of this node panicked");
    }
    rest.end(runtime);
    result
}

/// What the networks of a daemon must know of each other.
struct Siblings {
    overlays: Vec<Overlay>,
    ranges: Mutex<Vec<IpNet>>,
}

impl Siblings {
    fn of(networks: &[Prepared]) -> Self {
        let overlay = |network: &Prepared| network.network_side.overlay.clone();
        Self {
            overlays: networks.iter().map(overlay).collect(),
            ranges: Mutex::default(),
        }
    }

    /// Gives the interface its addresses. One network at a time looks whether they clash with somebody's; and the others
    /// never take them for addresses of the underlay, which they would tell their members and be dialled at.
    fn take_addresses(&self, tun: &mut Tun, own: &OwnAddresses) -> Result<()> {
        // Whoever panicked with the lock held has added too much at worst.
        let mut ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        let others = ranges.len();
        ranges.extend(own.ranges());
        self.keep_out(&ranges);
        match tun.set_addresses(Some(own.ipv4), Some(own.ipv6)) {
            Err(error @ TunError::NoIpv6(_)) => {
                tracing::warn!("{error}; going on with IPv4 alone");
            }
            Err(error) => {
                ranges.truncate(others);
                self.keep_out(&ranges);
                return Err(error.into());
            }
            Ok(()) => {}
        }
        Ok(())
    }

    fn keep_out(&self, ranges: &[IpNet]) {
        for overlay in &self.overlays {
            overlay.set(ranges.to_vec());
        }
    }
}

fn node(
    membership: Membership,
    identity: &Identity,
    store: &Store,
    config: &Config,
) -> Result<Node> {
    let start = Start {
        signer: identity.signer()?,
        wireguard: session::Identity::new(*identity.wireguard),
        network: membership.network,
        credential: membership.credential,
        delegation: membership.delegation,
        name: membership.name,
        mtu: config.mtu,
        seed: u64::from_be_bytes(
            identity::random_bytes()[..8]
                .try_into()
                .context("eight bytes")?,
        ),
        secret_seed: identity::random_bytes(),
        random: identity::random_bytes(),
        descriptor_seq: store.descriptor_seq()?,
        time_floor: membership.time_floor,
        records: membership.records,
        notices: membership.notices,
        redemptions: membership.redemptions,
        password: membership.password,
        relay_terms: relay::Terms {
            bytes_per_second: config.relay_rate.map(NonZeroU64::get),
            members: config.relay_members.as_ref().map(|_| BTreeSet::new()),
        },
        bootstrap: config.bootstrap.clone(),
        entries: store.entries()?,
        rules: config.registry.clone(),
        registry_client: config.dht == DhtMode::Client,
    };
    let mut node = Node::new(start, now()).map_err(|rejection| {
        anyhow::anyhow!(
            "this node's certificate is not good any more ({rejection}): join again with a new invite and a new \
             --state directory"
        )
    })?;
    node.set_exposed(config.publish.clone());
    Ok(node)
}
