//! The checks that are about this machine.

use std::{io, net::IpAddr, path::Path};

use hivevpn_platform::{
    disk_space::DiskSpace, privileges, routes::Clash, secret_file::SecretFileError, tun::TunError,
};
use ipnet::Ipv4Net;

use super::{Check, ConfigFile, Daemon, Facts, Port};
use crate::config::ConfigError;

/// Less room than this fills up soon: the database takes a few megabytes and keeps what it replaces for a while.
const LEAST_BYTES: u64 = 16_000_000;
/// Suggested when the port is taken.
const NEXT_PORT: u16 = 1;

pub(super) fn daemon(facts: &Facts) -> Check {
    const NAME: &str = "daemon";
    match &facts.daemon {
        Daemon::Answers(answers) => {
            let online = answers.status.peers.iter().filter(|peer| peer.online);
            Check::fine(
                NAME,
                format!(
                    "answers as '{}' of network '{}', {} of {} other members online",
                    answers.status.node.name,
                    answers.status.network.name,
                    online.count(),
                    answers.status.peers.len()
                ),
            )
        }
        Daemon::Starting(message) => {
            Check::failed(NAME, message, "hivevpn status --wait online --timeout 60")
        }
        Daemon::Absent(message) => {
            let config = facts.config.path.as_ref();
            let config = config.map_or(String::new(), |path| format!(" {}", path.display()));
            Check::failed(NAME, message, format!("sudo hivevpn up{config}"))
        }
        Daemon::Forbidden(message) => Check::skipped(NAME, message),
        Daemon::Broken(message) => Check::failed(
            NAME,
            message,
            "look at the daemon's log, then run 'hivevpn down' and 'sudo hivevpn up'",
        ),
    }
}

pub(super) fn tun(facts: &Facts) -> Check {
    const NAME: &str = "tun";
    match &facts.driver {
        Ok(()) => Check::fine(NAME, "/dev/net/tun opens"),
        Err(TunError::NoDriver) => Check::failed(
            NAME,
            "there is no TUN driver: /dev/net/tun is missing or has no device behind it",
            "modprobe tun (in a container: start it with --device /dev/net/tun)",
        ),
        Err(TunError::DriverForbidden) if is_running(&facts.daemon) => Check::fine(
            NAME,
            "the daemon has it; this command may not open /dev/net/tun",
        ),
        Err(TunError::DriverForbidden) => Check::failed(
            NAME,
            "/dev/net/tun is there but may not be opened",
            if facts.is_root {
                "start the container with --device /dev/net/tun"
            } else {
                "chmod 666 /dev/net/tun, or run hivevpn as root"
            },
        ),
        Err(error) => Check::failed(NAME, with_causes(error), "modprobe tun"),
    }
}

pub(super) fn capability(facts: &Facts) -> Check {
    const NAME: &str = "capability";
    if facts.may_configure_interfaces {
        Check::fine(NAME, "this user has CAP_NET_ADMIN")
    } else if is_running(&facts.daemon) {
        Check::fine(NAME, "the daemon has CAP_NET_ADMIN, this command has not")
    } else {
        let program = facts.executable.display();
        Check::failed(
            NAME,
            "CAP_NET_ADMIN is missing: 'hivevpn up' could not make its network interface",
            format!(
                "sudo hivevpn up, or once: sudo setcap cap_net_admin+ep {program} (in a container: --cap-add NET_ADMIN)"
            ),
        )
    }
}

fn is_running(daemon: &Daemon) -> bool {
    match daemon {
        Daemon::Answers(_) | Daemon::Starting(_) => true,
        Daemon::Absent(_) | Daemon::Forbidden(_) | Daemon::Broken(_) => false,
    }
}

pub(super) fn config(file: &ConfigFile, is_root: bool) -> Check {
    const NAME: &str = "config";
    let Some(path) = &file.path else {
        return Check::fine(NAME, "no file was named: defaults");
    };
    let shown = path.display();
    match &file.valid {
        Ok(()) => {}
        Err(ConfigError::Unreadable { error, .. })
            if error.kind() == io::ErrorKind::PermissionDenied && !is_root =>
        {
            return Check::skipped(NAME, format!("only root may read {shown}: run with sudo"));
        }
        Err(error @ ConfigError::Unreadable { .. }) => {
            return Check::failed(
                NAME,
                error.to_string(),
                format!("ls -l {shown}, or name another file"),
            );
        }
        Err(ConfigError::Exposed { what, mode, .. }) => {
            return Check::failed(
                NAME,
                format!("{shown} holds {what} and can be read by everybody (mode {mode:04o})"),
                format!("chmod 600 {shown}"),
            );
        }
        Err(error @ (ConfigError::Syntax { .. } | ConfigError::Value { .. })) => {
            return Check::failed(
                NAME,
                error.to_string(),
                "correct that line; config/network.toml of the sources documents every option",
            );
        }
    }
    if file.holds_invite {
        Check::fine(NAME, format!("{shown} is valid, and private"))
    } else {
        Check::fine(NAME, format!("{shown} is valid"))
    }
}

pub(super) fn user(facts: &Facts) -> Check {
    const NAME: &str = "user";
    let (name, exists) = &facts.user;
    if !facts.is_root {
        return Check::fine(NAME, "this user starts the daemon as itself");
    }
    if *exists {
        return Check::fine(
            NAME,
            format!(
                "a daemon that root starts becomes the user '{name}' with CAP_NET_ADMIN and CAP_NET_BIND_SERVICE alone"
            ),
        );
    }
    if name == privileges::SERVICE || name == "root" {
        return Check::fine(
            NAME,
            format!(
                "a daemon that root starts stays root, with CAP_NET_ADMIN and CAP_NET_BIND_SERVICE alone; to give it a user: useradd --system \
                 --user-group --no-create-home {}",
                privileges::SERVICE
            ),
        );
    }
    Check::failed(
        NAME,
        format!("there is no user '{name}' for the daemon to become"),
        format!("useradd --system --user-group --no-create-home {name}"),
    )
}

pub(super) fn state(secrets: &[SecretFileError], state: &Path) -> Check {
    const NAME: &str = "state";
    let shown = state.display();
    let mut found = Vec::new();
    let mut fixes = Vec::new();
    for error in secrets {
        match error {
            SecretFileError::Missing(path) if path == state => {
                return Check::fine(NAME, format!("{shown} is not there yet: 'up' makes it"));
            }
            // Made with the first start, or taken off-line.
            SecretFileError::Missing(_) => {}
            SecretFileError::Io { source, path, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                return Check::skipped(
                    NAME,
                    format!(
                        "only its owner may look at {}: run with sudo",
                        path.display()
                    ),
                );
            }
            SecretFileError::LooseFile { path, mode } => {
                found.push(format!(
                    "{} can be read or changed by others (mode {mode:04o})",
                    path.display()
                ));
                fixes.push(format!("chmod 600 {}", path.display()));
            }
            SecretFileError::LooseDirectory { path, mode } => {
                found.push(format!(
                    "{} is open to others (mode {mode:04o})",
                    path.display()
                ));
                fixes.push(format!("chmod 700 {}", path.display()));
            }
            SecretFileError::ForeignOwner { path, owner, us } => {
                found.push(format!("{} belongs to user {owner}", path.display()));
                fixes.push(format!("chown {us} {}", path.display()));
            }
            SecretFileError::WrongKind { .. }
            | SecretFileError::TooLarge(_)
            | SecretFileError::Exists(_)
            | SecretFileError::Io { .. } => {
                found.push(with_causes(error));
                fixes.push("ls -ld it, restore it from a backup, or choose another --state".into());
            }
        }
    }
    if found.is_empty() {
        return Check::fine(
            NAME,
            format!("{shown}, its database and the keys in it are private"),
        );
    }
    Check::failed(NAME, found.join("; "), fixes.join(" && "))
}

pub(super) fn disk(room: &io::Result<DiskSpace>, state: &Path) -> Check {
    const NAME: &str = "disk";
    let shown = state.display();
    let fix =
        || format!("make room on the disk of {shown} ('df -h {shown}'), or choose another --state");
    match room {
        Ok(room) if room.bytes < LEAST_BYTES => Check::failed(
            NAME,
            format!(
                "{} left for {shown}, which should have {}",
                megabytes(room.bytes),
                megabytes(LEAST_BYTES)
            ),
            fix(),
        ),
        Ok(DiskSpace { files: Some(0), .. }) => Check::failed(
            NAME,
            format!("no file can be made any more in {shown}: its disk has no inodes left"),
            format!(
                "delete files on the disk of {shown} ('df -i {shown}'), or choose another --state"
            ),
        ),
        Ok(room) => Check::fine(NAME, format!("{} left for {shown}", megabytes(room.bytes))),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Check::skipped(
            NAME,
            format!("only its owner may look at {shown}: run with sudo"),
        ),
        Err(error) => Check::failed(NAME, format!("{shown}: {error}"), fix()),
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

pub(super) fn port(port: &Port, daemon: &Daemon) -> Check {
    const NAME: &str = "port";
    let number = port.number;
    match daemon {
        Daemon::Answers(answers) => {
            let number = answers.underlay.port;
            return Check::fine(NAME, format!("UDP and TCP port {number} are our daemon's"));
        }
        Daemon::Starting(_) => {
            return Check::skipped(NAME, "the daemon that is starting may have it");
        }
        Daemon::Absent(_) | Daemon::Forbidden(_) | Daemon::Broken(_) => {}
    }
    for (protocol, list, outcome) in [("UDP", "-lunp", &port.udp), ("TCP", "-ltnp", &port.tcp)] {
        let Err(error) = outcome else { continue };
        if error.kind() == io::ErrorKind::AddrInUse
            && let Daemon::Forbidden(_) | Daemon::Broken(_) = daemon
        {
            return Check::skipped(
                NAME,
                format!(
                    "{protocol} port {number} is in use, perhaps by our daemon, which could not be asked"
                ),
            );
        }
        return Check::failed(
            NAME,
            taken(protocol, number, error),
            release(list, number, error),
        );
    }
    if number == 0 {
        return Check::fine(NAME, "any free port will do");
    }
    Check::fine(NAME, format!("UDP and TCP port {number} are free"))
}

fn taken(protocol: &str, number: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{protocol} port {number} is in use by another program")
        }
        io::ErrorKind::PermissionDenied => {
            format!("no permission to use {protocol} port {number}")
        }
        _ => format!("{protocol} port {number} cannot be used: {error}"),
    }
}

fn release(list: &str, number: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "port = 7777 under [underlay] in network.toml, or run as root".to_owned()
        }
        _ => format!(
            "stop the program that 'sudo ss {list} sport = :{number}' names, or write port = {} under [underlay] in \
             network.toml",
            number.checked_add(NEXT_PORT).unwrap_or(7777)
        ),
    }
}

pub(super) fn overlay_range(range: Ipv4Net, clash: &io::Result<Option<Clash>>) -> Check {
    const NAME: &str = "overlay-range";
    match clash {
        Ok(None) => Check::fine(NAME, format!("no other interface or route uses {range}")),
        Ok(Some(Clash { interface, network })) => Check::failed(
            NAME,
            format!("the overlay's {range} overlaps with {network} on interface {interface}"),
            format!(
                "ip link set dev {interface} down (or: ip route del {network} dev {interface}), or give that network \
                 addresses outside {range}"
            ),
        ),
        Err(error) => Check::skipped(NAME, format!("the routes cannot be read: {error}")),
    }
}

pub(super) fn ipv6(has_ipv6: bool, underlay: &[IpAddr]) -> Check {
    const NAME: &str = "ipv6";
    match (has_ipv6, underlay) {
        (false, _) => Check::failed(
            NAME,
            "IPv6 is turned off for new interfaces: members are not reached at their IPv6 addresses",
            "sudo sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 (in a container: --sysctl \
             with the same settings), then restart hivevpn",
        ),
        (true, []) => Check::fine(
            NAME,
            "works on the overlay; the underlay has IPv4 alone, 0 global IPv6 addresses",
        ),
        (true, [first, ..]) => Check::fine(
            NAME,
            format!("works on the overlay; the underlay has {first}"),
        ),
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<_> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}
