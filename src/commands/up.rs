//! `hivevpn up`

use std::path::Path;

use anyhow::Result;

use crate::{cli::UpArgs, config::Config, daemon, password};

/// Brings this node up and stays until told to stop.
pub fn run(args: &UpArgs, state: &Path, socket: &Path) -> Result<()> {
    if let Some(network) = &args.network {
        password::hide(network.as_str());
    }
    daemon::run(&Config::load(args)?, state, socket)
}
