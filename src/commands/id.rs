//! `hivevpn id`

use std::path::Path;

use anyhow::{Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    cli::IdArgs,
    control::{Daemon, Identity, NoDaemon, Request, Starting, ask},
    identity,
};

/// Prints who this node is. Without a daemon its addresses are unknown, its identity is not.
pub fn run(args: &IdArgs, state: &Path, daemon: &Daemon) -> Result<()> {
    let identity = match ask(daemon, &Request::Id) {
        Ok(identity) => identity,
        Err(error) if daemon.on.is_none() && (error.is::<NoDaemon>() || error.is::<Starting>()) => {
            offline(state)?
        }
        Err(error) => return Err(error),
    };
    if args.base64 {
        super::print(&format!(
            "{}\n",
            BASE64.encode(serde_json::to_vec(&identity)?)
        ))
    } else if args.json {
        super::print_json(&identity)
    } else {
        super::print(&format!("{}\n", identity.id))
    }
}

fn offline(state: &Path) -> Result<Identity> {
    let Some(keypair) = identity::load_keypair(state)? else {
        bail!(
            "{} holds no identity yet: 'hivevpn keygen' makes one, and so does the first 'hivevpn up'",
            state.display()
        );
    };
    Ok(Identity {
        id: keypair.public().to_peer_id().to_string(),
        addresses: Vec::new(),
    })
}
