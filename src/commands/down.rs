//! `hivevpn down`

use anyhow::Result;

use crate::control::{self, Daemon, Request};

/// Stops the daemon and returns when everything is undone. Another node's has answered then, and stops.
pub fn run(daemon: &Daemon) -> Result<()> {
    match daemon.on {
        None => control::stop(&daemon.socket),
        Some(_) => control::ask(daemon, &Request::Down),
    }
}
