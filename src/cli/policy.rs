//! The command line of the access policy.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hivevpn_core::policy::Mode;

use super::JsonArg;

pub(super) const POLICY_HELP: &str = "\
Say who may reach what.

The policy is one signed object that all members follow: a mode, and rules that allow or deny by group, node, protocol \
and port. Rules are a set: what any of them denies is denied, whatever others allow. Each node enforces it for what comes \
in, live connections included; what its owner sends it refuses early.

  open        everything that no rule denies
  published   ping, DNS and what a node publishes ([node] publish in its configuration), and what rules allow
  closed      only what rules allow

Rules go by the name and the groups in a node's certificate, not by what a node calls itself.";

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What to do
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// The commands of `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show the policy in force
    Show(JsonArg),
    /// Edit the policy in force with $VISUAL or $EDITOR
    Edit,
    /// Set the policy that a file holds
    Set(PolicySetArgs),
    /// Set the mode and leave the rules as they are
    Mode(PolicyModeArgs),
    /// Run the tests of a policy, and change nothing
    Test(PolicyTestArgs),
    /// Show whether one node may reach a port of another, and the rule that decides
    Trace(PolicyTraceArgs),
}

/// Arguments of `policy set`.
#[derive(Debug, Args)]
pub struct PolicySetArgs {
    /// TOML, as 'policy show' prints it; `-` reads it from standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy mode`.
#[derive(Debug, Args)]
pub struct PolicyModeArgs {
    /// open, published or closed
    #[arg(value_name = "MODE")]
    pub mode: Mode,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy test`.
#[derive(Debug, Args)]
pub struct PolicyTestArgs {
    /// The policy whose tests to run; `-` reads it from standard input [default: the one in force]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `policy trace`.
#[derive(Debug, Args)]
pub struct PolicyTraceArgs {
    /// Who begins: name, overlay address, peer id, or group:NAME
    #[arg(value_name = "FROM")]
    pub from: String,

    /// With whom
    #[arg(value_name = "TO")]
    pub to: String,

    /// 22 (TCP), tcp/22, udp/53 or icmp
    #[arg(value_name = "PORT")]
    pub port: String,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}
