//! The network's password on the command line.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

/// `--network`: a name, or `name:password`. Does not show itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NetworkArg(Zeroizing<String>);

impl NetworkArg {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for NetworkArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkArg(…)")
    }
}

pub(super) const HELP: &str = "\
Set or clear the password by which machines join this network.

Whoever knows the network's name and its password, and the bootstrap string of this node ('hivevpn id --base64'), joins \
with 'hivevpn up --network NAME:PASSWORD --bootstrap STRING'. It becomes a member of tier 0, in no groups. Works on nodes \
that may admit members, and for this node alone: each of them has a password of its own.

The password is neither stored nor sent: it is turned into OPAQUE's record of it (RFC 9807) right here, and the daemon \
is given that. Members that joined with an earlier password stay members.";

/// What to do about the password.
#[derive(Debug, Subcommand)]
pub enum PasswordCommand {
    /// Set the password; any earlier one admits nobody any more
    Set(SetPasswordArgs),
    /// From now on no password admits anybody
    Clear,
}

/// Arguments of `password set`.
#[derive(Debug, Args)]
pub struct SetPasswordArgs {
    /// File that holds it, readable by its owner only; `-` is standard input [default: ask on the terminal]
    #[arg(
        long,
        value_name = "FILE",
        default_value = "-",
        hide_default_value = true
    )]
    pub file: PathBuf,
}
