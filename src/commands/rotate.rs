//! `hivevpn rotate`

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use hivevpn_platform::{lock::InstanceLock, secret_file};

use crate::{
    cli::{
        JsonArg,
        membership::{RotateArgs, RotateIdentityArgs, RotateWhat},
    },
    control::{
        Request, ask,
        membership::{Change, Rotated},
    },
    identity::{self, Identity},
    store::Store,
};

/// What belongs to an identity and goes with it.
const OF_THE_IDENTITY: [&str; 3] = ["identity.key", "wg.key", "db"];

/// Replaces a key of this node.
pub fn run(args: &RotateArgs, state: &Path, socket: &Path) -> Result<()> {
    match &args.what {
        RotateWhat::Wg(args) => wireguard(args, socket),
        RotateWhat::Identity(args) => identity(args, state),
    }
}

fn wireguard(args: &JsonArg, socket: &Path) -> Result<()> {
    let rotated: Rotated = ask(socket, &Request::Change(Change::RotateWireguard))?;
    if args.json {
        return super::print_json(&rotated);
    }
    super::print(&format!(
        "this node's WireGuard key is now {}\n",
        rotated.wireguard_key
    ))
}

fn identity(args: &RotateIdentityArgs, state: &Path) -> Result<()> {
    let Some(old) = identity::load_keypair(state)? else {
        bail!(
            "{} holds no identity yet: 'hivevpn keygen' makes one",
            state.display()
        );
    };
    let old = old.public().to_peer_id();
    let _lock = InstanceLock::acquire(state)
        .context("stop this node first with 'hivevpn down': it runs under the old identity")?;
    if state.join("db").exists() {
        let membership = Store::open(state)?.membership()?;
        let is_delegate = membership.is_some_and(|kept| kept.delegation.is_some());
        ensure!(
            !is_delegate || args.give_up_powers,
            "this node is a delegate, and its powers belong to the old identity: lend them to another member first, \
             with 'hivevpn delegate add', or the network may be left without anybody who can admit members. Then repeat \
             this with --give-up-powers"
        );
    }
    let kept = set_aside(state, &old.to_string())?;
    let new = Identity::load_or_create(state)?;
    let new = new.keypair.public().to_peer_id();
    eprintln!(
        "The old identity {old} is in {}.\nWhat is left to do:\n  \
         a delegate$ sudo hivevpn revoke {old} --reason 'replaced by {new}'\n  \
         a delegate$ sudo hivevpn admit {new}          # or 'hivevpn invite'\n  \
         here$       sudo hivevpn up --join admit1…",
        kept.display()
    );
    super::print(&format!("{new}\n"))
}

/// Moves what belongs to the old identity into a directory of its own, below the state directory.
fn set_aside(state: &Path, old: &str) -> Result<PathBuf> {
    let kept = state.join(format!("old-{old}"));
    ensure!(
        !kept.exists(),
        "{} exists already: move it away first",
        kept.display()
    );
    secret_file::create_private_dir(&kept)?;
    for name in OF_THE_IDENTITY {
        let (from, to) = (state.join(name), kept.join(name));
        if from.exists() {
            fs::rename(&from, &to).with_context(|| format!("cannot move {}", from.display()))?;
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_identity_leaves_the_old_one_whole_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        secret_file::create_private_dir(&state).unwrap();
        let before = Identity::load_or_create(&state).unwrap();
        fs::create_dir(state.join("db")).unwrap();
        fs::write(state.join("authority.key"), b"stays").unwrap();
        let old = before.keypair.public().to_peer_id().to_string();
        let kept = set_aside(&state, &old).unwrap();
        let again = Identity::load_or_create(&kept).unwrap();
        assert_eq!(again.keypair.public(), before.keypair.public());
        assert!(kept.join("db").is_dir() && !state.join("db").exists());
        assert!(state.join("authority.key").exists());
        let after = Identity::load_or_create(&state).unwrap();
        assert_ne!(after.keypair.public(), before.keypair.public());
        assert_ne!(*after.wireguard, *before.wireguard);
    }
}
