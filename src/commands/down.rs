//! `hivevpn down`

use std::path::Path;

use anyhow::Result;

use crate::control;

/// Stops the daemon and returns when everything is undone.
pub fn run(socket: &Path) -> Result<()> {
    control::stop(socket)
}
