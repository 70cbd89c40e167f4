//! What one network stands on, and what only root may do about it: its state directory and its interface.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use hivevpn_platform::{
    hand_over::{hand_over, hand_over_empty},
    lock::InstanceLock,
    privileges::ServiceUser,
    secret_file::{self, SecretFileError},
    tun::{Tun, TunConfig, TunError},
};

use super::Launch;
use crate::{
    config::Config,
    footprint::Footprint,
    names::{
        self,
        resolv_conf::{self, ResolvConf},
    },
};

/// Interfaces are called `hive0`, `hive1`, … unless they are given names.
const INTERFACE: &str = "hive";
/// And no machine has so many.
const MAX_INTERFACES: u32 = 256;

/// A claimed directory and an interface without addresses.
pub(super) struct Ground {
    pub(super) tun: Tun,
    pub(super) claim: Claim,
    pub(super) launch: Launch,
}

impl Ground {
    /// Claims the state directory, gives it to `user` and makes the interface.
    pub(super) fn claim(launch: Launch, user: Option<&ServiceUser>) -> Result<Self> {
        let claim = Claim::of(&launch, user)?;
        // Before joining, so that a machine without TUN does not use up an invite.
        let tun = open_tun(&launch.config)?;
        Ok(Self { tun, claim, launch })
    }
}

/// Whoever holds the lock owns what is in the directory: only then is anything made there, or taken away again.
pub(super) struct Claim {
    footprint: Footprint,
    resolv_conf: Option<ResolvConf>,
    _lock: InstanceLock,
}

impl Claim {
    fn of(launch: &Launch, user: Option<&ServiceUser>) -> Result<Self> {
        let state = &launch.state;
        if let Some(home) = &launch.home {
            make_home(home, user)?;
        }
        let (is_new, is_a_node_s) = (!state.exists(), is_a_node_s(state));
        match (secret_file::create_private_dir(state), user) {
            (Err(SecretFileError::ForeignOwner { owner, .. }), Some(user)) if owner == user.uid => {
            }
            (result, _) => result?,
        }
        let lock = InstanceLock::acquire(state)?;
        let footprint = Footprint::before(state, is_new);
        if let Some(user) = user {
            ensure!(
                is_a_node_s,
                "{} holds other things than a node's state, which the user '{}' would get: choose another --state, or \
                 stay root with --user root",
                state.display(),
                user.name
            );
            hand_over(state, user).with_context(|| {
                format!(
                    "cannot give {} to the user '{}'",
                    state.display(),
                    user.name
                )
            })?;
        }
        Ok(Self {
            footprint,
            resolv_conf: resolv_conf(&launch.config.names),
            _lock: lock,
        })
    }

    /// The file that names the machine's name servers, if we are to change it.
    pub(super) fn resolv_conf(&self) -> Option<ResolvConf> {
        self.resolv_conf.clone()
    }

    pub(super) fn footprint(&self) -> &Footprint {
        &self.footprint
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock goes afterwards.
        self.footprint.undo();
    }
}

/// Puts the file back after a crash, and opens it if it is to be changed again: nobody but root can.
fn resolv_conf(config: &names::Config) -> Option<ResolvConf> {
    match names::repair() {
        Ok(Some(what)) => tracing::warn!("{what}"),
        Ok(None) => {}
        Err(error) => tracing::warn!("{error:#}"),
    }
    if !config.resolv_conf {
        return None;
    }
    let file = ResolvConf::open(resolv_conf::PATH.as_ref());
    file.inspect_err(|error| tracing::debug!("{error:#}")).ok()
}

/// Makes the directory above those of several networks, in which `user` must find its way.
fn make_home(home: &Path, user: Option<&ServiceUser>) -> Result<()> {
    if !home.exists() {
        secret_file::create_private_dir(home)?;
    }
    let Some(user) = user else { return Ok(()) };
    let mut entries = fs::read_dir(home)
        .with_context(|| home.display().to_string())?
        .flatten();
    // Else it is somebody's, and whether the user can pass through it will be seen.
    if entries.all(|entry| entry.path().is_dir() && is_a_node_s(&entry.path())) {
        hand_over_empty(home, user).with_context(|| {
            format!("cannot give {} to the user '{}'", home.display(), user.name)
        })?;
    }
    Ok(())
}

/// Whether a directory is there for a node and nothing else, so that it may be given away as a whole.
fn is_a_node_s(state: &Path) -> bool {
    let Ok(entries) = fs::read_dir(state) else {
        return !state.exists();
    };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.iter().all(|name| name == "lock") || names.iter().any(|name| name == "identity.key")
}

/// The interface of this name, or else the first that is free.
fn open_tun(config: &Config) -> Result<Tun> {
    let open = |name: String| {
        Tun::open(&TunConfig {
            name,
            ipv4: None,
            ipv6: None,
            mtu: config.mtu,
            offload: config.offload,
        })
    };
    if let Some(name) = &config.interface {
        return Ok(open(name.clone())?);
    }
    let mut number = 0;
    loop {
        match open(format!("{INTERFACE}{number}")) {
            Err(TunError::NameTaken(_)) if number < MAX_INTERFACES => number += 1,
            result => return Ok(result?),
        }
    }
}

/// Refuses a state directory in which something secret is open to others, and one that this user cannot work in.
pub(super) fn check_secrets(state: &Path) -> Result<()> {
    fs::read_dir(state).with_context(|| {
        format!(
            "the user that this daemon runs as cannot look into {0}: let it pass through the directories above (chmod \
             o+x), or choose another --state",
            state.display()
        )
    })?;
    let found = secret_file::check_state(state);
    let all: Vec<_> = found.iter().map(ToString::to_string).collect();
    ensure!(all.is_empty(), all.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_a_node_s_when_new_or_empty_or_with_an_identity_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        assert!(is_a_node_s(&state));
        fs::create_dir(&state).unwrap();
        assert!(is_a_node_s(&state));
        fs::write(state.join("lock"), "").unwrap();
        assert!(is_a_node_s(&state));
        fs::write(state.join("thesis.tex"), "").unwrap();
        assert!(!is_a_node_s(&state));
        fs::write(state.join("identity.key"), "").unwrap();
        assert!(is_a_node_s(&state));
    }
}
