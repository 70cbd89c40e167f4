//! The command line of membership: who may join, who is who, who must go, and whose word counts.

use std::{net::Ipv4Addr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use hivevpn_core::membership::Name;

use crate::config::parse_span;

pub(super) const INVITE_HELP: &str = "\
Print an invite that lets one machine join.

The invite stands alone on standard output, so that it can be piped: hivevpn invite | ssh box sudo hivevpn up --join -

It is a secret until it is used: whoever has it first is in. It is used at this node, which must run and be reachable \
then. The groups are for policies to tell members apart; this node's delegation says which ones it may give.";

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub struct InviteArgs {
    /// Group that the machine will be in (repeatable)
    #[arg(long = "group", value_name = "GROUP", value_parser = Name::parse)]
    pub groups: Vec<Name>,

    /// Name for the machine that joins [default: it chooses]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Overlay IPv4 address for the machine that joins
    #[arg(long, value_name = "IPV4")]
    pub address: Option<Ipv4Addr>,

    /// How long the invite is good for, e.g. 30m, 24h, 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse_span)]
    pub expires: Duration,

    /// Show a QR code on standard error [default: if it fits the terminal]
    #[arg(long, conflicts_with = "json")]
    pub qr: bool,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const WHOIS_HELP: &str = "\
Show which member an overlay address belongs to, with its groups.

A packet under an overlay address comes from the node that this command names: nobody else's certificate holds the \
address, and packets under a foreign one are dropped. So a service that sees a connection from 10.77.3.4 can ask who \
that is. An address with a port, as in a log, is taken too.

Exits with 1 when the address, name or peer id is nobody's.";

/// Arguments of `whois`.
#[derive(Debug, Args)]
pub struct WhoisArgs {
    /// Overlay address, name or peer id
    #[arg(value_name = "WHO")]
    pub who: String,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// List the keys that were revoked instead
    #[arg(long)]
    pub revoked: bool,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const ADMIT_HELP: &str = "\
Admit a node by its key, without an invite and without it being there.

  new box$   sudo hivevpn keygen               # makes the key and prints its peer id
  this box$  sudo hivevpn admit 12D3KooW…      # prints an admission
  new box$   sudo hivevpn up --join admit1…    # takes it in place of an invite

Only the node with that key can use the admission, as often as it likes and for as long as a certificate is valid in \
this network (30 days); from then on it is renewed like any other member's. This node need not be reachable for it.

The admission contains the network's discovery secret, by which members recognise each other: keep it from others.";

/// Arguments of `admit`.
#[derive(Debug, Args)]
pub struct AdmitArgs {
    /// The node's peer id, or what `id --base64` prints there
    #[arg(value_name = "ID")]
    pub id: String,

    /// Name of the node [default: the first digits of its key]
    #[arg(long, value_name = "NAME", value_parser = Name::parse)]
    pub name: Option<Name>,

    /// Group that the node will be in (repeatable)
    #[arg(long = "group", value_name = "GROUP", value_parser = Name::parse)]
    pub groups: Vec<Name>,

    /// Overlay IPv4 address of the node
    #[arg(long, value_name = "IPV4")]
    pub address: Option<Ipv4Addr>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const REVOKE_HELP: &str = "\
Expel a node from the network, for good until it is restored.

Every certificate that its key was given so far dies, wherever a member learns of it: at once on those that are \
connected, from any of them on those that come back later. They end its tunnels and connections, relay nothing for it, \
and let it in no more. It keeps what it knew; revoking cannot take that back.

Takes the power to revoke; to revoke a delegate, the authority's key: 'hivevpn delegate remove' first.";

/// Arguments of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "NODE")]
    pub node: String,

    /// Why, for those who look later
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const RESTORE_HELP: &str = "\
Take back a node that was revoked.

Its key is given a new certificate, under the name, groups and address it had. The node itself fetches it from any \
member; nothing is to be done there. 'hivevpn nodes --revoked' lists who can be restored. Takes the power to admit.";

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The name it had, or its peer id
    #[arg(value_name = "NODE")]
    pub node: String,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const DELEGATE_HELP: &str = "\
Say which nodes may act for the network: admit and invite members, revoke them, set its policy, release updates.

The network's authority lends these powers, for a time. Its key is made by the founder; 'hivevpn authority export' takes \
it off the machine. Adding and removing delegates is all it is needed for.";

/// Arguments of `delegate`.
#[derive(Debug, Args)]
pub struct DelegateArgs {
    /// What to do
    #[command(subcommand)]
    pub command: DelegateCommand,
}

/// What can be done about delegates.
#[derive(Debug, Subcommand)]
pub enum DelegateCommand {
    /// Lend powers to a node; what it was lent before is replaced
    Add(DelegateAddArgs),
    /// Take back all powers from a node; members that it admitted stay
    Remove(DelegateRemoveArgs),
    /// List the nodes that have powers
    List(super::JsonArg),
}

/// Where the authority's key is.
#[derive(Debug, Args)]
pub struct AuthorityFile {
    /// File with the authority's key, as `authority export` writes it [default: authority.key in the state directory]
    #[arg(long, value_name = "FILE")]
    pub authority: Option<PathBuf>,

    /// File whose first line is the passphrase of that key; `-` reads it from standard input
    #[arg(long, value_name = "FILE", requires = "authority")]
    pub passphrase_file: Option<PathBuf>,
}

/// Arguments of `delegate add`.
#[derive(Debug, Args)]
pub struct DelegateAddArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "NODE")]
    pub node: String,

    /// Power to lend (repeatable)
    #[arg(long = "power", value_name = "POWER", value_enum, required = true)]
    pub powers: Vec<Power>,

    /// Group that the delegate may put members into (repeatable) [default: every group]
    #[arg(
        long = "group",
        value_name = "GROUP",
        value_parser = Name::parse,
        conflicts_with = "no_groups"
    )]
    pub groups: Vec<Name>,

    /// The delegate may put members into no group
    #[arg(long)]
    pub no_groups: bool,

    /// For how long, e.g. 24h, 90d
    #[arg(long, value_name = "TIME", default_value = "90d", value_parser = parse_span)]
    pub expires: Duration,

    /// The authority's key
    #[command(flatten)]
    pub authority: AuthorityFile,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// A power that can be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Power {
    /// Sign members' certificates: renew them, admit by hand
    Admit,
    /// Make invites; takes `admit` too
    Invite,
    /// Expel members
    Revoke,
    /// Set the network's policy
    Policy,
    /// Release updates
    Update,
}

/// Arguments of `delegate remove`.
#[derive(Debug, Args)]
pub struct DelegateRemoveArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "NODE")]
    pub node: String,

    /// The authority's key
    #[command(flatten)]
    pub authority: AuthorityFile,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const AUTHORITY_HELP: &str = "\
Keep the network's authority key where it is safe.

Whoever has this key has the network: it lends every power there is, and nothing takes it away. The network runs without \
it. So write it to a medium that you lock away, and take it off the machine:

  sudo hivevpn authority export /media/stick/home.authority.pem --remove

The file is PEM with PKCS#8, which other tools read as well; with a passphrase it is encrypted (PBES2 with scrypt and \
AES-256). 'hivevpn delegate add … --authority FILE' uses it from there.";

/// Arguments of `authority`.
#[derive(Debug, Args)]
pub struct AuthorityArgs {
    /// What to do
    #[command(subcommand)]
    pub command: AuthorityCommand,
}

/// What can be done about the authority's key.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Show the network's authorities, and whether the key of one is on this machine
    Show(super::JsonArg),
    /// Write the key to a file that only you may read
    Export(ExportArgs),
    /// Bring the key back to this machine
    Import(ImportArgs),
}

/// Arguments of `authority export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The file to write; never replaced
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// File whose first line is the passphrase to encrypt it with; `-` reads it from standard input [default: not encrypted]
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Then delete the key from this machine, once the file was read back and holds the same key
    #[arg(long)]
    pub remove: bool,
}

/// Arguments of `authority import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The file that `authority export` wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// File whose first line is its passphrase; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

pub(super) const KEYGEN_HELP: &str = "\
Make a key, or bring one along, and print its peer id.

Without --out it becomes this node's identity, which 'hivevpn up' would otherwise make. Files are made for their owner \
alone and never replaced.

--import takes an ed25519 key as libp2p encodes it (binary, or in base64 as in IPFS's configuration) or as PEM with \
PKCS#8 (openssl genpkey -algorithm ed25519), encrypted or not. The node then has the peer id that it has elsewhere; two \
programs must not run under it at once in one network.

Keys of other types, RSA among them, are refused: a member's certificate, its addresses and every signature go by the \
key that an ed25519 peer id contains, and a peer id made from an RSA key contains only a hash.";

/// Arguments of `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Type of the key
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value_t = KeyType::Ed25519)]
    pub key_type: KeyType,

    /// File to write [default: identity.key in the state directory]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Encoding of the file; a node's identity is in libp2p's
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = KeyFormat::Libp2p, requires = "out")]
    pub format: KeyFormat,

    /// Bring along the key in this file instead of making one
    #[arg(long, value_name = "FILE")]
    pub import: Option<PathBuf>,

    /// File whose first line is the passphrase of the imported key; `-` reads it from standard input
    #[arg(long, value_name = "FILE", requires = "import")]
    pub passphrase_file: Option<PathBuf>,
}

/// Types of keys that members may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyType {
    /// RFC 8032
    Ed25519,
}

/// Encodings of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyFormat {
    /// libp2p's protobuf message
    Libp2p,
    /// PEM with PKCS#8
    Pem,
}

/// Arguments of `rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// What to replace
    #[command(subcommand)]
    pub what: RotateWhat,
}

pub(super) const ROTATE_IDENTITY_HELP: &str = "\
Replace this node's identity: the key that it is known by.

A new identity is a new member. The daemon must be stopped; the old keys and what was known are moved to a directory \
beside them, new keys are made, and this prints what is left to do: have the new key admitted, by an invite or by \
'hivevpn admit', and the old one revoked by a delegate. Until that is done, whoever has a copy of the old key is still \
a member.

Its name and IPv4 address can be given to it again once the old key is revoked; its IPv6 address and peer id change.";

/// Which key to replace.
#[derive(Debug, Subcommand)]
pub enum RotateWhat {
    /// This node's WireGuard key, at once and without anybody's help
    Wg(super::JsonArg),
    /// This node's identity, which needs a new admission
    #[command(long_about = ROTATE_IDENTITY_HELP)]
    Identity(RotateIdentityArgs),
}

/// Arguments of `rotate identity`.
#[derive(Debug, Args)]
pub struct RotateIdentityArgs {
    /// Even though this node is a delegate, whose powers its identity takes along
    #[arg(long)]
    pub give_up_powers: bool,
}
