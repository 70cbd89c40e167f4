//! What commands and daemon say to each other over the control socket, and the commands' end of it.
//!
//! One request a connection: a line of JSON there, a line of JSON back. The socket lies in the state directory,
//! which only its owner may enter; the daemon checks who asks as well.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use self::admin::{LoginStep, Sealed};
use crate::bench::Place;

pub mod admin;
pub mod membership;
pub mod names;
pub mod policy;
pub mod registry;
pub mod services;

use membership::{Change, Expulsion};

/// A request or reply longer than this is nobody's honest message.
pub const MAX_LINE: u64 = 16 << 20;

/// How long the daemon may take for an answer. Its own limits are shorter.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A question to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// [`Status`].
    Status,
    /// A list of [`Node`].
    Nodes,
    /// [`Invite`].
    Invite {
        /// Name for whoever joins.
        name: Option<String>,
        /// The groups that whoever joins will be in.
        groups: Vec<String>,
        /// Address for whoever joins.
        address: Option<Ipv4Addr>,
        /// Seconds until it expires.
        expires_s: u64,
    },
    /// [`Whois`](membership::Whois).
    Whois {
        /// Overlay address, name or peer id.
        who: String,
    },
    /// [`Authorities`](membership::Authorities).
    Authorities,
    /// A list of [`Delegate`](membership::Delegate).
    Delegates,
    /// A list of [`Revoked`](membership::Revoked).
    Revoked,
    /// A change of who may what.
    Change(Change),
    /// About the access policy.
    Policy(policy::Ask),
    /// [`Pong`], or a failure when nobody answered within a second.
    Ping {
        /// Name, address or peer id.
        peer: String,
    },
    /// [`Why`].
    Why {
        /// Name, address or peer id.
        peer: String,
    },
    /// [`Bench`].
    Bench {
        /// Name, address or peer id.
        peer: String,
        /// How long each direction will be measured.
        seconds: u8,
    },
    /// About services.
    Services(services::Ask),
    /// About entries of the registry, and the DHT beneath it.
    Dht(registry::Ask),
    /// Change the password that admits others, or clear it; nothing comes back.
    SetPassword {
        /// The record of the new one in base64, which is all that the daemon is ever told.
        record: Option<String>,
    },
    /// [`Identity`].
    Id,
    /// [`Underlay`].
    Underlay,
    /// [`Clock`] of a member.
    Clock {
        /// Name, address or peer id.
        peer: String,
    },
    /// [`Reflection`] from a member.
    Reflect {
        /// Name, address or peer id.
        peer: String,
        /// Our endpoint as that member sees it.
        endpoint: SocketAddr,
    },
    /// Stop. The end of the connection, with the process, is the answer.
    Down,
    /// What the daemon of a member on which we may act answers to this.
    On {
        /// Name, address or peer id.
        peer: String,
        /// The request.
        request: Box<Request>,
    },
    /// [`admin::LoginAnswer`]: a step towards acting on a member's node.
    Login {
        /// Name, address or peer id.
        peer: String,
        /// The step.
        step: LoginStep,
    },
    /// Nothing. What a login has given is forgotten.
    Logout {
        /// Name, address or peer id.
        peer: String,
    },
    /// A list of [`admin::AdminEntry`]: who may act on this node from others.
    Admins,
    /// [`admin::AdminEntry`]: from now on this administrator has this password and these roles.
    Appoint {
        /// Its name.
        user: String,
        /// What it may do.
        roles: Vec<String>,
        /// What is kept of its password.
        record: Sealed,
    },
    /// Nothing. This administrator is none any more.
    Dismiss {
        /// Its name.
        user: String,
    },
}

/// The daemon's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// What was asked for.
    Ok(serde_json::Value),
    /// Why not, for a person.
    Error(String),
    /// Not yet: the node is not a member so far.
    Starting(String),
}

impl Reply {
    /// A reply that carries `value`.
    pub fn of(value: &impl Serialize) -> Self {
        match serde_json::to_value(value) {
            Ok(value) => Self::Ok(value),
            Err(error) => Self::Error(error.to_string()),
        }
    }
}

/// `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The network we are in.
    pub network: Network,
    /// This node.
    pub node: Own,
    /// The other members.
    pub peers: Vec<Peer>,
    /// Packets and datagrams that went no further, by reason; only reasons that occurred.
    pub drops: BTreeMap<String, u64>,
    /// What others sent that broke a rule, by rule; only rules that were broken.
    #[serde(default)]
    pub rejections: BTreeMap<String, u64>,
}

/// The network in `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id, hexadecimal.
    pub id: String,
}

/// This node in `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Its name in the network.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
    /// Its overlay IPv4 address, unless an older member holds it.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The overlay interface.
    pub interface: String,
    /// Multiaddresses it listens on.
    pub listen: Vec<String>,
    /// `public`, `private` or `unknown`.
    pub reachability: String,
    /// Whether the others take it for a member: `member`, `lapsed` (its certificate has run out), `unsupported` (the
    /// delegation behind its certificate has ended) or `expelled`.
    pub standing: String,
    /// That it was expelled.
    pub expelled: Option<Expulsion>,
}

/// A peer in `status --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name in the network.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
    /// Its overlay IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Whether it is reached at the moment.
    pub online: bool,
    /// `direct`, `stream`, `relay` or `none`.
    pub path: String,
    /// Underlay address of a direct path or stream.
    pub endpoint: Option<String>,
    /// Name of the member that relays.
    pub relay: Option<String>,
    /// Smoothed round trip of the path in use, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Longest packet in bytes that the path carries.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Overlay bytes sent.
    pub tx_bytes: u64,
    /// Overlay bytes received.
    pub rx_bytes: u64,
    /// Age of the keys in use, in seconds.
    pub last_handshake_s: Option<u64>,
    /// Whether the keys in use rest on ML-KEM-768 beside X25519.
    #[serde(default)]
    pub post_quantum: bool,
}

/// A member in `nodes --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the network.
    pub name: String,
    /// Its libp2p identity.
    pub peer_id: String,
    /// Its overlay IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Whether it is this node.
    pub this: bool,
    /// Whether it is reached at the moment.
    pub online: bool,
    /// Whether it offers to relay.
    pub relays: bool,
    /// The groups that its certificate puts it in.
    #[serde(default)]
    pub groups: Vec<String>,
    /// What it may do for the network: `admit`, `invite`, `revoke`, `policy`, `update`.
    #[serde(default)]
    pub powers: Vec<String>,
    /// When it was admitted, in seconds since 1970.
    pub admitted_at: u64,
}

/// An answered ping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// Who answered.
    pub name: String,
    /// Its overlay address.
    pub address: String,
    /// `direct`, `stream` or `relay`.
    pub path: String,
    /// Underlay address of a direct path or stream.
    pub endpoint: Option<String>,
    /// Name of the member that relayed.
    pub relay: Option<String>,
    /// There and back, in milliseconds.
    pub rtt_ms: f64,
}

/// `why --json`: every way to a peer, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Who it is about.
    pub name: String,
    /// `direct`, `stream`, `relay` or `none`.
    pub path: String,
    /// Underlay address of a direct path or stream.
    pub endpoint: Option<String>,
    /// Name of the member that relays.
    pub relay: Option<String>,
    /// How long packets have gone this way, in seconds.
    pub since_s: Option<u64>,
    /// Every way that is known, the one in use first.
    pub candidates: Vec<Candidate>,
}

/// One way to a peer in `why --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Where it comes from: `host`, `lan`, `mapped`, `reflexive`, `announced`, `heard`; or how it goes: `relay` by UDP,
    /// `stream`, `relayed stream`.
    pub kind: String,
    /// Underlay address; with a relay, the relay's name.
    pub address: String,
    /// Smoothed round trip in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// `in use`, `standby`, `probing`, `failed` or `untried`.
    pub state: String,
    /// What came of it, for people.
    pub reason: String,
}

/// A peer that waits to be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// Who.
    pub peer: Peer,
    /// Where it waits.
    pub place: Place,
}

/// `invite --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invite {
    /// The string that lets one machine join.
    pub invite: String,
    /// When it expires, in seconds since 1970.
    pub expires_at: u64,
}

/// `id --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The libp2p identity.
    pub id: String,
    /// Where it is reached.
    pub addresses: Vec<String>,
}

/// What the daemon knows of the ground it stands on, for `doctor` and `netcheck` to judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// The UDP and TCP port.
    pub port: u16,
    /// MTU of the overlay interface in bytes.
    pub mtu: u16,
    /// The overlay's IPv4 network, such as `10.77.0.0/16`.
    pub ipv4_prefix: String,
    /// When our certificate expires, in seconds since 1970.
    pub certificate_expires_at: u64,
    /// Peer id of the member that signed it and renews it.
    pub certificate_issuer: String,
    /// The latest moment that is known to have come, in seconds since 1970.
    pub time_floor: u64,
    /// Peer ids of the relays that hold a reservation for us.
    pub reservations: Vec<String>,
    /// Which protocol had the router map a port to ours.
    pub port_mapping: Option<String>,
    /// Connections to members.
    pub connections: Vec<Connection>,
    /// What members see our UDP socket as.
    pub observations: Vec<Observation>,
    /// The machine's own addresses that packets of others can have, without those of the overlay.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What was sent beside packets.
    pub control_traffic: ControlTraffic,
}

/// What a node sends to be reachable and to know the others, beside the packets that it carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlTraffic {
    /// UDP payload sent so far, in bytes: signals inside the tunnels, and all of QUIC. While a path to a peer is a stream,
    /// the packets to it are in here too.
    pub sent_bytes: u64,
    /// For how many seconds that was counted.
    pub since_s: u64,
}

impl ControlTraffic {
    /// In less than a minute the start, when everything is said for the first time, is all there is.
    const TELLING_S: u64 = 60;

    /// Bytes a day at the rate so far, once there is one.
    pub fn per_day(self) -> Option<u64> {
        let seconds = u128::from(self.since_s);
        let bytes = (u128::from(self.sent_bytes) * 86_400).checked_div(seconds)?;
        u64::try_from(bytes)
            .ok()
            .filter(|_| self.since_s >= Self::TELLING_S)
    }
}

/// A connection to a member, in [`Underlay`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Who is at its other end.
    pub peer_id: String,
    /// How it gets there.
    pub transport: Transport,
    /// Where that is, if it is direct.
    pub endpoint: Option<SocketAddr>,
}

/// What a connection runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// UDP, directly.
    Quic,
    /// TCP, directly.
    Tcp,
    /// Another member.
    Relay,
}

/// What a member sees our UDP socket as, in [`Underlay`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Who sees it.
    pub peer_id: String,
    /// From where.
    pub from: SocketAddr,
    /// As what.
    pub endpoint: SocketAddr,
}

/// A member's clock, compared with ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// How far it is ahead of ours, in milliseconds.
    pub ahead_ms: i64,
    /// How exactly that is known, in milliseconds either way.
    pub within_ms: i64,
}

/// What came of a token that a member sent from a new port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reflection {
    /// Where it arrived from; none if it did not arrive.
    pub from: Option<String>,
}

/// No daemon answers on the socket.
#[derive(Debug, thiserror::Error)]
#[error("no daemon answers on {}: start one with 'hivevpn up', or say which with --state or --socket", .0.display())]
pub struct NoDaemon(pub PathBuf);

/// The daemon has started but is not a member yet.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Starting(pub String);

/// Where a command sends its requests. A plain path is the control socket of this machine's daemon.
pub trait Destination {
    /// The control socket.
    fn socket(&self) -> &Path;

    /// The member whose daemon is to answer, if it is not ours.
    fn on(&self) -> Option<&str> {
        None
    }
}

impl Destination for Path {
    fn socket(&self) -> &Path {
        self
    }
}

impl Destination for PathBuf {
    fn socket(&self) -> &Path {
        self
    }
}

/// The daemon that a command is for: ours, or through it that of a member on which we may act (`--on`).
#[derive(Debug, Clone)]
pub struct Daemon {
    /// The control socket of ours.
    pub socket: PathBuf,
    /// The member: name, address or peer id.
    pub on: Option<String>,
}

impl Destination for Daemon {
    fn socket(&self) -> &Path {
        &self.socket
    }

    fn on(&self) -> Option<&str> {
        self.on.as_deref()
    }
}

/// Asks the daemon and returns what it answered.
pub fn ask<T: DeserializeOwned>(
    daemon: &(impl Destination + ?Sized),
    request: &Request,
) -> Result<T> {
    let mut connection = connect(daemon.socket())?;
    match daemon.on() {
        None => converse(&mut connection, request),
        Some(peer) => {
            let request = Request::On {
                peer: peer.to_owned(),
                request: Box::new(request.clone()),
            };
            converse(&mut connection, &request)
        }
    }
}

/// Asks the daemon to stop and returns when its process is gone.
pub fn stop(socket: &Path) -> Result<()> {
    let mut connection = connect(socket)?;
    send(&mut connection, &Request::Down)?;
    let mut answer = String::new();
    // An error is the end of the connection too.
    let _ = connection.read_line(&mut answer);
    match serde_json::from_str(&answer) {
        Ok(Reply::Error(message)) => bail!(message),
        Ok(Reply::Ok(_) | Reply::Starting(_)) | Err(_) => {}
    }
    if connect(socket).is_ok() {
        bail!(
            "the daemon is still there after {} s: look at its log",
            ANSWER_LIMIT.as_secs()
        );
    }
    Ok(())
}

fn connect(socket: &Path) -> Result<BufReader<UnixStream>> {
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            anyhow::Error::new(NoDaemon(socket.to_owned()))
        }
        ErrorKind::PermissionDenied => anyhow::Error::new(error).context(format!(
            "{}: only the user who runs the daemon may ask it (try sudo)",
            socket.display()
        )),
        _ => anyhow::Error::new(error).context(socket.display().to_string()),
    })?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    Ok(BufReader::new(stream))
}

fn send(connection: &mut BufReader<UnixStream>, request: &Request) -> Result<()> {
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    connection
        .get_mut()
        .write_all(line.as_bytes())
        .context("the daemon hung up")
}

fn converse<T: DeserializeOwned>(
    connection: &mut BufReader<UnixStream>,
    request: &Request,
) -> Result<T> {
    send(connection, request)?;
    let mut answer = String::new();
    let read = connection.take(MAX_LINE).read_line(&mut answer);
    match read {
        Ok(0) => bail!("the daemon ended before it answered"),
        Ok(_) => {}
        Err(error) => return Err(error).context("the daemon does not answer"),
    }
    match serde_json::from_str(&answer)
        .context("the daemon's answer is damaged: is it another version?")?
    {
        Reply::Ok(value) => serde_json::from_value(value)
            .context("the daemon's answer has another shape: is it another version?"),
        Reply::Error(message) => Err(anyhow::Error::msg(message)),
        Reply::Starting(message) => Err(Starting(message).into()),
    }
}
