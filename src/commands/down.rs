//! `hivevpn down`

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::{
    cli::{self, Cli},
    control::{self, Daemon, NoDaemon, Request},
    names,
};

/// Ends the network that is meant, or, where none is named, all of this state directory. Returns when everything is
/// undone. Another node has answered then, and stops.
pub fn run(cli: &Cli, daemon: &Daemon) -> Result<()> {
    if daemon.on.is_some() {
        return control::ask(daemon, &Request::Down);
    }
    let outcome = stop(cli);
    // Only after a crash there is anything left to undo.
    let Some(what) = names::repair()? else {
        return outcome;
    };
    eprintln!("hivevpn: {what}");
    match is_nobody(&outcome) {
        true => Ok(()),
        false => outcome,
    }
}

fn stop(cli: &Cli) -> Result<()> {
    let socket = cli.socket();
    let outcome = control::stop(&socket);
    if cli.net.is_some() || cli.socket.is_some() || !is_nobody(&outcome) {
        return outcome;
    }
    let mut ended = Vec::new();
    for (name, socket) in networks(&cli.state) {
        match control::stop(&socket) {
            Ok(()) => ended.push(name),
            stopped if is_nobody(&stopped) => {}
            Err(error) => return Err(error.context(format!("network '{name}'"))),
        }
    }
    if ended.is_empty() {
        return outcome;
    }
    super::print(&format!("ended: {}\n", ended.join(", ")))
}

fn is_nobody(outcome: &Result<()>) -> bool {
    matches!(outcome, Err(error) if error.is::<NoDaemon>())
}

/// The networks that have a directory below this one, with their sockets.
fn networks(state: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(state).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let socket = |name: String| {
        let socket = cli::socket_of(state, Some(&name));
        (name, socket)
    };
    names.into_iter().map(socket).collect()
}
