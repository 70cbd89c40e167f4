//! Looking, without changing anything.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use hivevpn_core::membership::{Credential, Network, UnixTime, genesis::DEFAULT_IPV4_PREFIX};
use hivevpn_platform::{
    addresses::{has_ipv6, local_addresses},
    disk_space,
    lock::InstanceLock,
    privileges::{self, ServiceUser},
    routes, secret_file, tun,
};
use ipnet::Ipv4Net;

use super::{Answers, ConfigFile, Daemon, Facts, Member, Port};
use crate::{
    cli::UpArgs,
    config::{Config, DEFAULT_PORT},
    control::{Clock, NoDaemon, Request, Starting, Status, ask},
    event_loop::now,
    identity,
    store::Store,
    swarm::addresses::is_public_ip,
};

/// Members whose clocks are asked for: enough for a median.
const CLOCKS: usize = 3;

/// Opening the database may write about as much.
const DATABASE_BYTES: u64 = 1_000_000;

/// Looks at everything, as far as it may.
pub fn gather(config: Option<&Path>, state: &Path, socket: &Path) -> Facts {
    let now = now().unix;
    let daemon = daemon(socket);
    let (config, settings) = config_file(config);
    let disk = disk_space::left_at(state);
    let is_full = disk.as_ref().is_ok_and(|room| room.bytes < DATABASE_BYTES);
    let (range, membership) = membership(&daemon, state, is_full, now);
    let interface = match &daemon {
        Daemon::Answers(answers) => answers.status.node.interface.clone(),
        Daemon::Starting(_) | Daemon::Absent(_) | Daemon::Forbidden(_) | Daemon::Broken(_) => {
            settings.interface.unwrap_or_else(|| "hive0".to_owned())
        }
    };
    Facts {
        is_root: privileges::effective_uid() == 0,
        may_configure_interfaces: privileges::may_configure_interfaces(),
        executable: std::env::current_exe().unwrap_or_else(|_| "hivevpn".into()),
        driver: tun::probe_driver(),
        state: state.to_owned(),
        secrets: secret_file::check_state(state),
        user: user(settings.user.as_deref()),
        disk,
        port: port(settings.port.unwrap_or(DEFAULT_PORT)),
        range: (range, routes::clash(range, &interface)),
        has_ipv6: has_ipv6(),
        underlay_ipv6: underlay_ipv6(&interface),
        now,
        membership,
        daemon,
        config,
    }
}

/// The file, and what `up` would make of it; the defaults if that is nothing.
fn config_file(path: Option<&Path>) -> (ConfigFile, Config) {
    let (valid, settings) = match Config::load(path, &UpArgs::default()) {
        Ok(settings) => (Ok(()), settings),
        Err(error) => (Err(error), Config::default()),
    };
    let file = ConfigFile {
        path: path.map(Path::to_owned),
        valid,
        holds_invite: settings.invite.is_some(),
    };
    (file, settings)
}

/// Whether a daemon that root starts finds the user to become.
fn user(name: Option<&str>) -> (String, bool) {
    let name = name.unwrap_or(privileges::SERVICE);
    let found = ServiceUser::named(name).is_ok_and(|user| user.is_some());
    (name.to_owned(), found)
}

/// Binds it in both families as `up` would, and lets it go again.
fn port(number: u16) -> Port {
    let any = [
        IpAddr::from(Ipv4Addr::UNSPECIFIED),
        IpAddr::from(Ipv6Addr::UNSPECIFIED),
    ];
    // A family that the system does not have takes no port at all.
    let families = || any.iter().filter(|ip| UdpSocket::bind((**ip, 0)).is_ok());
    Port {
        number,
        udp: families().try_for_each(|ip| UdpSocket::bind((*ip, number)).map(drop)),
        tcp: families().try_for_each(|ip| TcpListener::bind((*ip, number)).map(drop)),
    }
}

fn underlay_ipv6(overlay: &str) -> Vec<IpAddr> {
    let all = local_addresses().unwrap_or_default();
    all.into_iter()
        .filter(|(interface, _)| interface != overlay)
        .map(|(_, network)| network.addr())
        .filter(|ip| ip.is_ipv6() && is_public_ip(*ip))
        .collect()
}

// ---- the daemon --------------------------------------------------------------------------------------------

fn daemon(socket: &Path) -> Daemon {
    match answers(socket) {
        Ok(answers) => Daemon::Answers(Box::new(answers)),
        Err(error) if error.is::<NoDaemon>() => Daemon::Absent(error.to_string()),
        Err(error) if error.is::<Starting>() => Daemon::Starting(error.to_string()),
        Err(error) if is_forbidden(&error) => Daemon::Forbidden(format!("{error:#}")),
        Err(error) => Daemon::Broken(format!("{error:#}")),
    }
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<io::Error>();
    cause.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn answers(socket: &Path) -> Result<Answers> {
    let status: Status = ask(socket, &Request::Status)?;
    let nodes = ask(socket, &Request::Nodes)?;
    let underlay = ask(socket, &Request::Underlay)?;
    let online = status.peers.iter().filter(|peer| peer.online);
    let clocks = online.take(CLOCKS).filter_map(|peer| {
        let request = Request::Clock {
            peer: peer.peer_id.clone(),
        };
        // A member that does not answer is no help; others may.
        let clock: Clock = ask(socket, &request).ok()?;
        Some((peer.name.clone(), clock))
    });
    Ok(Answers {
        clocks: clocks.collect(),
        status,
        nodes,
        underlay,
    })
}

// ---- the membership ----------------------------------------------------------------------------------------

/// The overlay's range, the one that a founder would take if there is none yet; and what else is known.
fn membership(
    daemon: &Daemon,
    state: &Path,
    disk_is_full: bool,
    now: UnixTime,
) -> (Ipv4Net, Result<Option<Member>, String>) {
    match daemon {
        Daemon::Answers(answers) => {
            let underlay = &answers.underlay;
            let member = Member {
                certificate: Ok((
                    UnixTime(underlay.certificate_expires_at),
                    underlay.certificate_issuer.clone(),
                )),
                time_floor: UnixTime(underlay.time_floor),
            };
            let range = underlay.ipv4_prefix.parse();
            (range.unwrap_or(DEFAULT_IPV4_PREFIX), Ok(Some(member)))
        }
        Daemon::Starting(_) => (DEFAULT_IPV4_PREFIX, Ok(None)),
        Daemon::Forbidden(_) => {
            let why = "only root may read the state directory: run with sudo";
            (DEFAULT_IPV4_PREFIX, Err(why.to_owned()))
        }
        Daemon::Absent(_) | Daemon::Broken(_) if disk_is_full => {
            let why = "the database cannot be opened on a full disk";
            (DEFAULT_IPV4_PREFIX, Err(why.to_owned()))
        }
        Daemon::Absent(_) | Daemon::Broken(_) => match stored(state, now) {
            Ok(Some((range, member))) => (range, Ok(Some(member))),
            Ok(None) => (DEFAULT_IPV4_PREFIX, Ok(None)),
            Err(why) => (DEFAULT_IPV4_PREFIX, Err(format!("{why:#}"))),
        },
    }
}

/// What lies on the disk. Only its owner opens the database, under the daemon's own lock: it writes even to read, and
/// files of another user in it would lock the daemon out.
fn stored(state: &Path, now: UnixTime) -> Result<Option<(Ipv4Net, Member)>> {
    if !state.join("db").try_exists()? {
        return Ok(None);
    }
    let is_ours = fs::metadata(state)?.uid() == privileges::effective_uid();
    ensure!(is_ours, "only its owner may read {}", state.display());
    let _lock = InstanceLock::acquire(state)?;
    let store = Store::open(state)?;
    let Some(stored) = store.membership()? else {
        return Ok(None);
    };
    let network = Network::decode(&stored.network)?;
    let time_floor = UnixTime(store.time_floor()?);
    let keypair = identity::load_keypair(state)?.context("identity.key is missing")?;
    let us = keypair.public().to_peer_id();
    let verified = Credential::decode(&stored.credential)
        .and_then(|credential| credential.verify(network.genesis(), now.max(time_floor), &us));
    let certificate = verified
        .map(|certificate| {
            let issuer = certificate.issuer.peer_id().to_string();
            (certificate.not_after, issuer)
        })
        .map_err(|rejection| rejection.to_string());
    let member = Member {
        certificate,
        time_floor,
    };
    Ok(Some((network.genesis().ipv4_prefix(), member)))
}
