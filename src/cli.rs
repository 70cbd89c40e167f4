//! The command line: clap types and their help, nothing else. One file in [`commands`](crate::commands) runs each.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand, ValueEnum};

mod admin;
mod audit;

pub use admin::{AdminArgs, AdminCommand, AppointArgs, LoginArgs, LogoutArgs, RemoveArgs};
pub use audit::AuditArgs;
pub use top::TopArgs;

use crate::{
    bench::{MAX_SECONDS, MAX_STREAMS},
    config::RelayMode,
};

pub mod dht;
pub mod membership;
pub mod models;
pub mod policy;
pub mod services;
mod top;

use membership::{
    ADMIT_HELP, AUTHORITY_HELP, AdmitArgs, AuthorityArgs, DELEGATE_HELP, DelegateArgs, INVITE_HELP,
    InviteArgs, KEYGEN_HELP, KeygenArgs, NodesArgs, RESTORE_HELP, REVOKE_HELP, RestoreArgs,
    RevokeArgs, RotateArgs, WHOIS_HELP, WhoisArgs,
};

pub mod password;

pub use password::NetworkArg;

/// Where state lives unless `--state` says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/hivevpn";
/// Made by the service (config/hivevpn.service), open to the group that may ask the daemon.
const RUN: &str = "/run/hivevpn";

const ABOUT: &str = "A WireGuard overlay over libp2p: reach machines behind NAT by plain IP.";

const EXAMPLES: &str = "\
Two machines, one command each:
  first$  sudo hivevpn up                      # founds a network and prints an invite
  second$ sudo hivevpn up --join hive1…        # joins with that one string
  second$ ping 10.77.x.y                       # or ssh, psql, an OpenAI client: plain IP

Exit codes:
  0  fine
  1  failed
  2  bad usage or configuration
  3  no daemon answers on the socket
  4  timed out waiting

Environment:
  HIVEVPN_STATE   same as --state
  HIVEVPN_SOCKET  same as --socket
  HIVEVPN_NET     same as --net
  HIVEVPN_INVITE, HIVEVPN_NETWORK, HIVEVPN_PASSWORD_FILE
                  same as --join, --network and --password-file of 'up'
  HIVEVPN_LOG     log filter, e.g. 'info,hivevpn=debug' (default: info for hivevpn, warnings for the rest)";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "hivevpn", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// Directory that holds this node's keys and what it knows of its network
    #[arg(long, global = true, env = "HIVEVPN_STATE", default_value = DEFAULT_STATE, value_name = "DIR")]
    pub state: PathBuf,

    /// The network that is meant, if this machine is in several: name of its file without .toml
    #[arg(long, global = true, env = "HIVEVPN_NET", value_name = "NAME", value_parser = parse_net)]
    pub net: Option<String>,

    /// Socket on which the daemon listens and the other commands find it [default: DIR/hivevpn.sock]
    #[arg(long, global = true, env = "HIVEVPN_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Act on this member instead of this machine, after 'hivevpn login': name, overlay address or peer id
    #[arg(long, global = true, value_name = "PEER")]
    pub on: Option<String>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// The state directory of the network that is meant.
    pub fn state(&self) -> PathBuf {
        match &self.net {
            Some(net) => self.state.join(net),
            None => self.state.clone(),
        }
    }

    /// The control socket's path.
    pub fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| socket_of(&self.state, self.net.as_deref()))
    }
}

/// Where a network's control socket is: in its state directory, or where the service has a directory for what runs.
pub fn socket_of(state: &Path, net: Option<&str>) -> PathBuf {
    let run = Path::new(RUN);
    if state == Path::new(DEFAULT_STATE) && run.is_dir() {
        return run.join(format!("{}.sock", net.unwrap_or("hivevpn")));
    }
    let directory = net.map_or_else(|| state.to_owned(), |net| state.join(net));
    directory.join("hivevpn.sock")
}

/// Names become names of directories.
pub fn parse_net(name: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if (1..=64).contains(&name.len()) && name.chars().all(is_plain) && !name.starts_with('.') {
        return Ok(name.to_owned());
    }
    Err(format!(
        "'{name}' cannot name a network's directory: use up to 64 of the characters A-Z a-z 0-9 _ . - and no '.' in front"
    ))
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bring this node up and stay in the foreground
    #[command(long_about = UP_HELP)]
    Up(UpArgs),
    /// Stop the daemon and undo what it did
    Down,
    /// Print an invite that lets one machine join
    #[command(long_about = INVITE_HELP)]
    Invite(InviteArgs),
    /// Set or clear the password by which machines join this network
    #[command(subcommand, long_about = password::HELP)]
    Password(password::PasswordCommand),
    /// Admit a node by its key, without an invite
    #[command(long_about = ADMIT_HELP)]
    Admit(AdmitArgs),
    /// Expel a node from the network
    #[command(long_about = REVOKE_HELP)]
    Revoke(RevokeArgs),
    /// Take back a node that was revoked
    #[command(long_about = RESTORE_HELP)]
    Restore(RestoreArgs),
    /// Say which nodes may admit, invite, revoke
    #[command(long_about = DELEGATE_HELP)]
    Delegate(DelegateArgs),
    /// Keep the network's authority key where it is safe
    #[command(long_about = AUTHORITY_HELP)]
    Authority(AuthorityArgs),
    /// Replace a key of this node
    Rotate(RotateArgs),
    /// Show this node, its peers and the paths to them, or wait for one of them
    Status(StatusArgs),
    /// Watch this node live: peers, paths, throughput, services, models
    #[command(long_about = top::HELP)]
    Top(TopArgs),
    /// List the members of the network
    Nodes(NodesArgs),
    /// List the names of nodes and services, and how they are found on this machine
    #[command(long_about = NAMES_HELP)]
    Names(JsonArg),
    /// Show which member an overlay address belongs to
    #[command(long_about = WHOIS_HELP)]
    Whois(WhoisArgs),
    /// Say who may reach what
    #[command(long_about = policy::POLICY_HELP)]
    Policy(policy::PolicyArgs),
    /// Offer what listens on this machine to the network
    #[command(long_about = services::EXPOSE_HELP, after_help = services::EXPOSE_EXAMPLES)]
    Expose(services::ExposeArgs),
    /// Take back what this node offers: its port closes, its connections are cut
    ///
    /// What members used of it stays in 'hivevpn usage' until that is reset.
    Unexpose(services::UnexposeArgs),
    /// List what this node offers
    #[command(long_about = services::EXPOSED_HELP)]
    Exposed(services::ListArgs),
    /// List what all members offer
    #[command(long_about = services::SERVICES_HELP, after_help = services::SERVICES_EXAMPLES)]
    Services(services::ServicesArgs),
    /// List what members used of the model servers that this node offers
    #[command(long_about = services::USAGE_HELP, after_help = services::USAGE_EXAMPLES)]
    Usage(services::UsageArgs),
    /// Make a member's service a port of this machine
    #[command(long_about = services::FORWARD_HELP, after_help = services::FORWARD_EXAMPLES)]
    Forward(services::ForwardArgs),
    /// Close such a port and cut its connections
    Unforward(services::UnforwardArgs),
    /// List the ports that lead to members' services
    Forwards(services::ListArgs),
    /// Keep small values where all members find them
    #[command(long_about = dht::DHT_HELP)]
    Dht(dht::DhtArgs),
    /// List the models that members offer
    #[command(long_about = models::MODELS_HELP)]
    Models(models::ModelsArgs),
    /// Show what a program needs to use a model of the network
    #[command(long_about = models::CONNECT_HELP)]
    Connect(models::ConnectArgs),
    /// Ask a peer for a sign of life and show by which path it came
    Ping(PingArgs),
    /// Explain the path to a peer: every way that was tried, and what came of it
    #[command(long_about = WHY_HELP)]
    Why(WhyArgs),
    /// Measure the tunnel to a peer: throughput, latency and loss
    #[command(long_about = BENCH_HELP)]
    Bench(BenchArgs),
    /// Show what the network lets this node do: UDP, NAT behaviour, relays, the path to expect to each peer
    #[command(long_about = NETCHECK_HELP)]
    Netcheck(JsonArg),
    /// Look for what keeps this node from working, and say how to mend it
    #[command(long_about = DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Prove to a member that you may act on it, for an hour
    #[command(long_about = admin::LOGIN_HELP)]
    Login(LoginArgs),
    /// Forget what 'login' gave
    Logout(LogoutArgs),
    /// Decide who may act on this node from others
    #[command(long_about = admin::ADMIN_HELP)]
    Admin(AdminArgs),
    /// Show this node's identity
    Id(IdArgs),
    /// Make a key, or bring one along
    #[command(long_about = KEYGEN_HELP)]
    Keygen(KeygenArgs),
    /// Show what was changed on this node, by whom, and who was refused
    Audit(AuditArgs),
    /// Show the version
    Version(JsonArg),
}

impl Command {
    /// Whether it can be done on another node. Everything else is about this machine's files, or would measure from here.
    pub fn can_act_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Status(_)
                | Self::Top(_)
                | Self::Nodes(_)
                | Self::Names(_)
                | Self::Ping(_)
                | Self::Why(_)
                | Self::Netcheck(_)
                | Self::Id(_)
                | Self::Invite(_)
                | Self::Expose(_)
                | Self::Unexpose(_)
                | Self::Exposed(_)
                | Self::Services(_)
                | Self::Usage(_)
                | Self::Forward(_)
                | Self::Unforward(_)
                | Self::Forwards(_)
                | Self::Dht(_)
                | Self::Down
        )
    }
}

/// `--json` alone.
#[derive(Debug, Args)]
pub struct JsonArg {
    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

const UP_HELP: &str = "\
Bring this node up and stay in the foreground.

Without a network and without an invite, `up` founds a new network and prints an invite for the next machine. \
With an invite it joins; with a bootstrap string and the network's name and password as well. Once a member, plain `up` is enough: identity, certificate and address are kept in the \
state directory.

With several files one daemon is in several networks at once, which share nothing: each has a directory named after \
its file (home.toml: DIR/home), which `--net home` chooses in the other commands, and takes its options from its file \
alone.

Started by root, the daemon keeps only the permission to change networks, and becomes the user hivevpn if there is \
one.

Options given here win over the configuration file. Ctrl-C or `hivevpn down` stops the node; the interface, its \
addresses and routes go with it.";

/// Arguments of `up`.
#[derive(Debug, Args, Default, PartialEq, Eq)]
pub struct UpArgs {
    /// Configuration file, or several, one for each network; config/network.toml documents every option
    #[arg(value_name = "NETWORK.TOML")]
    pub config: Vec<PathBuf>,

    /// Join with this invite or admission; `-` reads it from standard input
    #[arg(
        long,
        value_name = "INVITE",
        env = "HIVEVPN_INVITE",
        hide_env_values = true
    )]
    pub join: Option<String>,

    /// Name of the network to found; with its password, to found or (with --bootstrap) to join it
    #[arg(
        long,
        value_name = "NAME[:PASSWORD]",
        env = "HIVEVPN_NETWORK",
        hide_env_values = true
    )]
    pub network: Option<NetworkArg>,

    /// File that holds the network's password, readable by its owner only; `-` is standard input
    #[arg(long, value_name = "FILE", env = "HIVEVPN_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,

    /// IPv4 network of the overlay to found [default: 10.77.0.0/16]
    #[arg(long, value_name = "NETWORK")]
    pub prefix: Option<String>,

    /// The user that root becomes, who keeps CAP_NET_ADMIN and CAP_NET_BIND_SERVICE alone [default: hivevpn, if there is one]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Name of this node [default: host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Overlay IPv4 address to ask for, e.g. 10.77.0.4
    #[arg(long, value_name = "IPV4")]
    pub address: Option<Ipv4Addr>,

    /// One UDP and one TCP port for everything; 0 takes any [default: 7777]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,

    /// Public address under which this node is reached, when it cannot find out (repeatable)
    #[arg(long, value_name = "ADDRESS")]
    pub external: Vec<String>,

    /// Member to contact first: a multiaddress with /p2p/…, or what `id --base64` prints (repeatable)
    #[arg(long, value_name = "MULTIADDR")]
    pub bootstrap: Vec<String>,

    /// Whether to carry other members' traffic
    #[arg(long, value_name = "MODE", value_enum)]
    pub relay: Option<RelayMode>,

    /// File that names administrators of this node, as 'hivevpn admin hash' prints them
    #[arg(long, value_name = "FILE")]
    pub admin_file: Option<PathBuf>,

    /// How programs find names of the network where systemd-resolved does not run, and without their domain (repeatable)
    #[arg(long, value_name = "HOW", value_enum, value_delimiter = ',')]
    pub names: Vec<NamesArg>,

    /// Name of the overlay interface [default: hive0, or the next that is free]
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// MTU of the overlay interface in bytes [default: 1420]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,
}

/// What `up --names` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NamesArg {
    /// Stand in front of the servers in /etc/resolv.conf
    ResolvConf,
    /// Look for names without a dot in the network
    Search,
    /// Answer for no names, and leave port 53 of the overlay addresses to others
    Off,
}

/// Arguments of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Wait until the peer (or, for `online` without a peer, this node) is in this state
    #[arg(long, value_name = "STATE", value_enum)]
    pub wait: Option<WaitFor>,

    /// The peer to wait for: name, overlay address or peer id
    #[arg(long, value_name = "PEER", requires = "wait")]
    pub peer: Option<String>,

    /// Seconds to wait before giving up with exit code 4
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait", value_parser = clap::value_parser!(u64).range(..=31_536_000))]
    pub timeout: u64,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// What `status --wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// A direct UDP path is in use
    Direct,
    /// A stream over a direct connection is in use
    Stream,
    /// A relayed path is in use
    Relay,
    /// The peer is reached by any path
    Online,
}

/// Arguments of `ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "PEER")]
    pub peer: String,

    /// Stop after this many answers; 0 goes on until Ctrl-C
    #[arg(long, short, value_name = "COUNT", default_value_t = 5)]
    pub count: u32,

    /// Seconds between two pings
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1.0)]
    pub interval: f64,

    /// Print one JSON object a line for machines
    #[arg(long)]
    pub json: bool,
}

const NAMES_HELP: &str = "\
List the names of nodes and services, and how they are found on this machine.

Each node answers for the names of its network on its own overlay addresses, port 53, and only this machine:

  <node>.<net>.hive.internal            a node
  <service>.<node>.<net>.hive.internal  what it offers ('hivevpn services')
  <service>.svc.<net>.hive.internal     everybody who offers it and is well, in any order
  ai.<net>.hive.internal                the models of all nodes ('hivevpn models')

with SRV records (_<service>._tcp.<node>… and _<service>._tcp.svc…), TXT records for services, and PTR records for \
addresses. A node's name is the one that it was admitted under; what a node calls itself beside that does not resolve.

Where systemd-resolved runs, programs find these names by themselves. Elsewhere ask with 'dig @<address>', or let this node \
stand in front of the servers in /etc/resolv.conf: 'hivevpn up --names resolv-conf'. With '--names search', 'ssh gpu' is \
enough.";

const BENCH_HELP: &str = "\
Measure the tunnel to a peer: throughput, latency and loss.

Real packets go through the tunnel, over the path that is in use: first echoes on the idle tunnel, then TCP streams to \
the peer, then from it, with echoes meanwhile. The peer's daemon opens a port for this node, on the overlay and for \
this measurement only. Ctrl-C shows what was measured until then.";

const WHY_HELP: &str = "\
Explain the path to a peer: every way that was tried, and what came of it.

Packets go by the best way that answers: straight over UDP, else as a stream on a direct connection, else over UDP \
through a member that relays, else as a stream through it. Among equals the clearly faster one wins.

The kind says where an address comes from: one of the peer's interfaces (host), multicast on this site (lan), its \
router's port mapping (mapped), what other members see it as (reflexive), its own announcement (announced), or a \
datagram that came from there (heard).";

/// Arguments of `why`.
#[derive(Debug, Args)]
pub struct WhyArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "PEER")]
    pub peer: String,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "PEER")]
    pub peer: String,

    /// How long to measure each direction, up to 30 s
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_SECONDS)))]
    pub seconds: u8,

    /// TCP streams at once, up to 8
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_STREAMS)))]
    pub streams: u8,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

const NETCHECK_HELP: &str = "\
Show what the network lets this node do. Needs a running daemon, and a few seconds where filters drop what is sent to \
test them.

  UDP           whether datagrams get through to any member
  seen as       the endpoint at which members see this node's UDP port
  mapping       whether that is the same for every destination (RFC 4787: endpoint-independent) or
                not (a symmetric NAT); it takes two members at different addresses to tell
  port          whether the NAT keeps the port's number
  filtering     whether a datagram gets in from a member's port that this node never spoke to
  port mapping  the protocol by which the router forwards a port, if it does
  relays        members that offer to relay, with the round trip to each
  EXPECTED      the path to expect to each peer, from what is known of this node's side

All members have been spoken to. So a NAT that lets anybody in cannot be told from one that lets in any port of a known \
address, and a firewall of this machine counts like one of its router.";

const DOCTOR_HELP: &str = "\
Look for what keeps this node from working, and say how to mend it.

Works with and without a running daemon, and without root, when it says what it could not look at. Changes nothing. \
Exits with 1 when a check fails.

  daemon         answers on its socket
  tun            /dev/net/tun is there and may be opened
  capability     CAP_NET_ADMIN, to make the interface
  config         the configuration file is valid, and private while it holds an invite
  state          the state directory, its database and the keys in it are private
  user           a daemon that root starts becomes another user, who can change networks and nothing else
  disk           there is room for the state directory
  port           the UDP and TCP port are free, or our own daemon's
  overlay-range  no other interface or route uses addresses of the overlay
  ipv6           the system allows the interface an IPv6 address
  certificate    does not expire within a week
  clock          agrees with members' clocks, and is not earlier than what was signed or seen
  udp            members are reached over UDP
  mtu            every direct path carries packets as long as the interface's
  relay          a node that nobody can dial has a relay

With --json a list of {\"check\", \"ok\", \"message\", \"fix\"}; the fix is null when the check is ok. A check that could \
not be made is ok, and its message begins with 'skipped:'.";

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration file that `up` is given, if any
    #[arg(value_name = "NETWORK.TOML")]
    pub config: Option<PathBuf>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `id`.
#[derive(Debug, Args)]
pub struct IdArgs {
    /// Print identity and addresses as one base64 string, to be used as a bootstrap string
    #[arg(long)]
    pub base64: bool,

    /// Print JSON for machines
    #[arg(long, conflicts_with = "base64")]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_network_has_a_directory_and_a_socket_of_its_own() {
        let cli = Cli::parse_from(["hivevpn", "--state", "/s", "--net", "work", "status"]);
        assert_eq!(cli.state(), Path::new("/s/work"));
        assert_eq!(cli.socket(), Path::new("/s/work/hivevpn.sock"));
        let cli = Cli::parse_from(["hivevpn", "--state", "/s", "status"]);
        assert_eq!(cli.state(), Path::new("/s"));
        assert_eq!(cli.socket(), Path::new("/s/hivevpn.sock"));
    }

    #[test]
    fn a_network_s_name_cannot_lead_out_of_the_directory() {
        assert_eq!(parse_net("my-work.2"), Ok("my-work.2".to_owned()));
        for wrong in ["", ".", "..", ".hidden", "a/b", "ü", &"x".repeat(65)] {
            assert!(parse_net(wrong).is_err(), "{wrong}");
        }
    }
}
