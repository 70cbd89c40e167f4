//! The command line of the registry's entries, and of the DHT beneath it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};

use super::JsonArg;
use crate::config::parse_span;

pub(super) const DHT_HELP: &str = "\
Keep small values where all members find them, and look at what others keep.

A value lies under a key, such as weather/berlin. Under one key every member may keep a value of its own, and nobody \
another's: it is signed. Whatever is put later replaces what was there; nothing older comes back. It is gone when its \
lifetime is over, unless it is put again before, and everybody has it until then, also while its owner is away.

Every node keeps what all members say. The DHT keeps it a second time, for those that know nothing yet.

Keys: up to eight parts of a-z, 0-9, '.', '_' and '-', joined by '/'. Those that begin with svc/ are for 'expose'.";

const GET_HELP: &str = "\
Show what lies under a key, one value for each owner.

What is known here is shown at once while it is younger than half of its lifetime. Else, and with --network, the DHT is \
asked for a few seconds: for the owner's value, or without --owner for those of up to 64 members.";

/// Arguments of `dht`.
#[derive(Debug, Args)]
pub struct DhtArgs {
    /// What to do
    #[command(subcommand)]
    pub command: DhtCommand,
}

/// The commands of `dht`.
#[derive(Debug, Subcommand)]
pub enum DhtCommand {
    /// Keep a value under a key, in place of the one that this node has there
    Put(PutArgs),
    /// Show what lies under a key
    #[command(long_about = GET_HELP)]
    Get(GetArgs),
    /// Take back what this node has under a key
    Delete(DeleteArgs),
    /// Show the tree of keys, with who keeps something there
    Walk(WalkArgs),
    /// Show whom the DHT knows here, and how much it keeps
    Routes(JsonArg),
}

/// Arguments of `dht put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Such as weather/berlin
    #[arg(value_name = "KEY")]
    pub key: String,

    /// The value; `-` reads it from standard input
    #[arg(value_name = "VALUE", required_unless_present = "file")]
    pub value: Option<String>,

    /// The file that holds the value
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub file: Option<PathBuf>,

    /// How long it is kept, from 1m to 2d [default: 90m]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    pub lifetime: Option<Duration>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dht get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Such as weather/berlin
    #[arg(value_name = "KEY")]
    pub key: String,

    /// What this member has there: name, overlay address or peer id
    #[arg(long, value_name = "MEMBER")]
    pub owner: Option<String>,

    /// Ask the DHT, however young what is known here is
    #[arg(long)]
    pub network: bool,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dht delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Such as weather/berlin
    #[arg(value_name = "KEY")]
    pub key: String,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dht walk`.
#[derive(Debug, Args)]
pub struct WalkArgs {
    /// This key and those below it alone
    #[arg(value_name = "PREFIX")]
    pub prefix: Option<String>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}
