//! `hivevpn invite`

use anyhow::Result;

use super::qr;
use crate::{
    cli::membership::InviteArgs,
    control::{Daemon, Invite, Request, ask},
};

/// Prints an invite, alone on its line, so that it can be piped.
pub fn run(args: &InviteArgs, daemon: &Daemon) -> Result<()> {
    let request = Request::Invite {
        name: args.name.clone(),
        groups: args.groups.iter().map(ToString::to_string).collect(),
        address: args.address,
        expires_s: args.expires.as_secs(),
    };
    let invite: Invite = ask(daemon, &request)?;
    if args.json {
        return super::print_json(&invite);
    }
    qr::show(&invite.invite, args.qr)?;
    super::print(&format!("{}\n", invite.invite))
}
