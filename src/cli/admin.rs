//! `login`, `logout` and `admin`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::JsonArg;

pub(super) const LOGIN_HELP: &str = "\
Prove to a member that you may act on it, for an hour.

The password is asked for at the terminal, or read from standard input or a file. It reaches neither that node nor this \
machine's daemon: both only see that you know it (OPAQUE, RFC 9807). A member that the node's configuration lists needs \
none.

What the login gave stays in the memory of this machine's daemon, and is good for whoever may ask that daemon: \
'hivevpn --on PEER status', for example. 'hivevpn logout PEER' forgets it.";

pub(super) const ADMIN_HELP: &str = "\
Decide who may act on this node from others.

Membership gives no right on a node. An administrator has a name, a password and roles of this node alone. Of the \
password a record is kept, from which it cannot be read. Whenever an administrator is changed or removed, everybody \
who is logged in on this node must log in again.

Roles:
  metrics  look: status, nodes, ping, why, netcheck
  config   stop this node
  keys     invite members
  proxy, shell, update: for later versions";

/// Arguments of `login`.
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "PEER")]
    pub peer: String,

    /// Name of the administrator there [default: none if that node lists this one, else admin]
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Private file with the password; without, the terminal or standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `logout`.
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// Name, overlay address or peer id
    #[arg(value_name = "PEER")]
    pub peer: String,
}

/// Arguments of `admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// What to do
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// The commands of `admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Name an administrator, or give one another password
    SetPassword(AppointArgs),
    /// Print an administrator's line for 'up --admin-file'; needs no daemon
    Hash(AppointArgs),
    /// Take an administrator's rights away
    Remove(RemoveArgs),
    /// Show who may act on this node
    List(JsonArg),
}

/// Arguments of `admin set-password` and `admin hash`.
#[derive(Debug, Args)]
pub struct AppointArgs {
    /// Name of the administrator
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub user: String,

    /// What it may do (repeatable): metrics, config, keys, proxy, shell or update
    #[arg(long, value_name = "ROLE", default_value = "metrics")]
    pub role: Vec<String>,

    /// Private file with the password; without, the terminal or standard input
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Arguments of `admin remove`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Name of the administrator
    #[arg(value_name = "NAME")]
    pub user: String,
}
