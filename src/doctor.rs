//! What keeps this node from working, and what would mend it.
//!
//! [`gather()`] looks at the machine, the state directory and the daemon, as far as it may, and changes nothing.
//! [`judge()`] makes [`Check`]s of what it saw: each says what was found, with numbers, and for what is wrong a command to
//! run or a line to write. What could not be looked at is neither fine nor wrong, and says why.

use std::{io, net::IpAddr, path::PathBuf};

use hivevpn_core::membership::UnixTime;
use hivevpn_platform::{
    disk_space::DiskSpace, routes::Clash, secret_file::SecretFileError, tun::TunError,
};
use ipnet::Ipv4Net;
use serde::Serialize;

use crate::{
    config::ConfigError,
    control::{Clock, Node, Status, Underlay},
};

mod gather;
mod local;
mod network;

pub use gather::gather;

/// One thing that was looked at; an element of `doctor --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, which scripts rely on.
    pub check: &'static str,
    /// Whether nothing is wrong, as far as it could be looked at.
    pub ok: bool,
    /// What was found.
    pub message: String,
    /// A command or a configuration line that mends it; none if nothing is wrong.
    pub fix: Option<String>,
    /// Whether it could not be looked at.
    #[serde(skip)]
    pub skipped: bool,
}

impl Check {
    fn fine(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            ok: true,
            message: message.into(),
            fix: None,
            skipped: false,
        }
    }

    fn skipped(check: &'static str, why: impl AsRef<str>) -> Self {
        Self {
            check,
            ok: true,
            message: format!("skipped: {}", why.as_ref()),
            fix: None,
            skipped: true,
        }
    }

    fn failed(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            ok: false,
            message: message.into(),
            fix: Some(fix.into()),
            skipped: false,
        }
    }
}

/// What was found.
#[derive(Debug)]
pub struct Facts {
    /// Whether this command may look at everything.
    pub is_root: bool,
    /// Whether this command may make interfaces.
    pub may_configure_interfaces: bool,
    /// This program.
    pub executable: PathBuf,
    /// Whether there is a TUN driver.
    pub driver: Result<(), TunError>,
    /// The configuration file.
    pub config: ConfigFile,
    /// The state directory.
    pub state: PathBuf,
    /// What is wrong with the directory, its database and each key in it.
    pub secrets: Vec<SecretFileError>,
    /// The user that a daemon started by root is to become, and whether there is one of that name.
    pub user: (String, bool),
    /// Room in the state directory.
    pub disk: io::Result<DiskSpace>,
    /// The port that the configuration names.
    pub port: Port,
    /// The daemon.
    pub daemon: Daemon,
    /// What makes this node a member; why not known, if it could not be read.
    pub membership: Result<Option<Member>, String>,
    /// The overlay's range, and who else uses it.
    pub range: (Ipv4Net, io::Result<Option<Clash>>),
    /// Whether interfaces may have IPv6 addresses.
    pub has_ipv6: bool,
    /// The machine's IPv6 addresses on the underlay.
    pub underlay_ipv6: Vec<IpAddr>,
    /// The system clock.
    pub now: UnixTime,
}

/// The configuration file that `up` would be given.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where, if there is one.
    pub path: Option<PathBuf>,
    /// Whether it is valid.
    pub valid: Result<(), ConfigError>,
    /// Whether there is an invite in it, if it is valid.
    pub holds_invite: bool,
}

/// Whether a port can be had.
#[derive(Debug)]
pub struct Port {
    /// Its number; 0 for any.
    pub number: u16,
    /// What came of binding it for UDP.
    pub udp: io::Result<()>,
    /// What came of binding it for TCP.
    pub tcp: io::Result<()>,
}

/// What the daemon says.
#[derive(Debug)]
pub enum Daemon {
    /// It answers.
    Answers(Box<Answers>),
    /// It is not a member yet.
    Starting(String),
    /// Nobody listens on the socket.
    Absent(String),
    /// We may not ask.
    Forbidden(String),
    /// It does not answer as it should.
    Broken(String),
}

/// What a running daemon tells.
#[derive(Debug)]
pub struct Answers {
    /// Its view of the network.
    pub status: Status,
    /// The members.
    pub nodes: Vec<Node>,
    /// Its view of the underlay.
    pub underlay: Underlay,
    /// Some members' clocks, by their names.
    pub clocks: Vec<(String, Clock)>,
}

/// What makes this node a member, of the daemon or from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// When its certificate expires and who renews it (a peer id), or why it cannot be used.
    pub certificate: Result<(UnixTime, String), String>,
    /// The latest moment that is known to have come.
    pub time_floor: UnixTime,
}

/// Judges everything, the daemon and the machine first.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let answers = network::answers(&facts.daemon);
    vec![
        local::daemon(facts),
        local::tun(facts),
        local::capability(facts),
        local::config(&facts.config, facts.is_root),
        local::state(&facts.secrets, &facts.state),
        local::user(facts),
        local::disk(&facts.disk, &facts.state),
        local::port(&facts.port, &facts.daemon),
        local::overlay_range(facts.range.0, &facts.range.1),
        local::ipv6(facts.has_ipv6, &facts.underlay_ipv6),
        network::certificate(&facts.membership, answers.ok(), facts.now),
        network::clock(&facts.membership, answers, facts.now),
        network::udp(answers),
        network::mtu(answers),
        network::relay(answers),
    ]
}

#[cfg(test)]
mod tests;
