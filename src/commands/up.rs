//! `hivevpn up`

use std::path::Path;

use anyhow::Result;

use crate::{cli::UpArgs, config::Config, daemon};

/// Brings this node up and stays until told to stop.
pub fn run(args: &UpArgs, state: &Path, socket: &Path) -> Result<()> {
    daemon::run(&Config::load(args)?, state, socket)
}
