//! `hivevpn invite`

use anyhow::Result;

use crate::{
    cli::InviteArgs,
    control::{Daemon, Invite, Request, ask},
};

/// Prints an invite, alone on its line, so that it can be piped.
pub fn run(args: &InviteArgs, daemon: &Daemon) -> Result<()> {
    let request = Request::Invite {
        name: args.name.clone(),
        address: args.address,
        expires_s: args.expires.as_secs(),
    };
    let invite: Invite = ask(daemon, &request)?;
    if args.json {
        super::print_json(&invite)
    } else {
        super::print(&format!("{}\n", invite.invite))
    }
}
