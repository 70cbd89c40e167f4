//! `hivevpn logout`

use std::path::Path;

use anyhow::Result;

use crate::{
    cli::LogoutArgs,
    control::{Request, ask},
};

/// Has the daemon forget what a login gave.
pub fn run(args: &LogoutArgs, socket: &Path) -> Result<()> {
    let peer = args.peer.clone();
    ask(socket, &Request::Logout { peer })
}
