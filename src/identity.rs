//! The secret keys of this node: files of the state directory that only their owner may read.
//!
//! | file | key | used for |
//! |---|---|---|
//! | `identity.key` | ed25519, libp2p's protobuf encoding | the peer id; signs descriptors |
//! | `wg.key` | x25519, base64 as `wg genkey` writes it | WireGuard; bound to the identity by the signed descriptor |
//! | `authority.key` | ed25519, libp2p's protobuf encoding | founders only: signs delegations; may be taken off-line |

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::membership::Signer;
use hivevpn_platform::secret_file;
use libp2p::identity::Keypair;
use rand::Rng;
use zeroize::Zeroizing;

/// Directories that begin like this hold identities that were replaced.
const SET_ASIDE: &str = "old-";

/// This node's own keys.
pub struct Identity {
    /// Who we are on libp2p and in every signature.
    pub keypair: Keypair,
    /// Our WireGuard static secret.
    pub wireguard: Zeroizing<[u8; 32]>,
}

impl Identity {
    /// Loads the keys from `state`, or makes and saves them on the first start.
    pub fn load_or_create(state: &Path) -> Result<Self> {
        Ok(Self {
            keypair: load_or_create_keypair(&path(state))?,
            wireguard: load_or_create_wireguard(&state.join("wg.key"))?,
        })
    }

    /// The identity as the core signs with it.
    pub fn signer(&self) -> Result<Signer> {
        Signer::new(self.keypair.clone()).context("identity.key is no ed25519 key")
    }
}

/// Where this node's identity is.
pub fn path(state: &Path) -> PathBuf {
    state.join("identity.key")
}

/// Where the network authority's key is, if it is on this machine.
pub fn authority_path(state: &Path) -> PathBuf {
    state.join("authority.key")
}

/// Where an identity is kept that another one has replaced.
pub fn set_aside_path(state: &Path, peer_id: &str) -> PathBuf {
    state.join(format!("{SET_ASIDE}{peer_id}"))
}

/// Whether an identity was replaced in this directory.
pub fn was_replaced(state: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(state).with_context(|| state.display().to_string())?;
    for entry in entries {
        let name = entry
            .with_context(|| state.display().to_string())?
            .file_name();
        if name.to_string_lossy().starts_with(SET_ASIDE) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Loads the node's identity without making one, for commands that need no daemon.
pub fn load_keypair(state: &Path) -> Result<Option<Keypair>> {
    let path = path(state);
    if path
        .try_exists()
        .with_context(|| path.display().to_string())?
    {
        Ok(Some(load_or_create_keypair(&path)?))
    } else {
        Ok(None)
    }
}

/// Loads the network authority's key, or makes it: only a founder calls this.
pub fn load_or_create_authority(state: &Path) -> Result<Keypair> {
    load_or_create_keypair(&authority_path(state))
}

/// Puts another WireGuard secret in the place of the present one, whole or not at all.
pub fn replace_wireguard(state: &Path, secret: &[u8; 32]) -> Result<()> {
    let (path, new) = (state.join("wg.key"), state.join("wg.key.new"));
    // Left by a machine that lost power in the middle of this.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| new.display().to_string());
        }
        Ok(()) | Err(_) => {}
    }
    secret_file::create(&new, encode_wireguard(secret).as_bytes())?;
    let replaced =
        std::fs::rename(&new, &path).and_then(|()| std::fs::File::open(state)?.sync_all());
    replaced.with_context(|| format!("cannot replace {}", path.display()))
}

fn encode_wireguard(secret: &[u8; 32]) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(secret) + "\n")
}

/// Fresh random bytes for secrets, salts and nonces.
pub fn random_bytes() -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rng().fill_bytes(&mut *bytes);
    bytes
}

fn load_or_create_keypair(path: &Path) -> Result<Keypair> {
    if path
        .try_exists()
        .with_context(|| path.display().to_string())?
    {
        let bytes = secret_file::read(path)?;
        return Keypair::from_protobuf_encoding(&bytes).with_context(|| damaged(path));
    }
    let keypair = Keypair::generate_ed25519();
    let bytes = Zeroizing::new(
        keypair
            .to_protobuf_encoding()
            .context("an ed25519 key has an encoding")?,
    );
    secret_file::create(path, &bytes)?;
    Ok(keypair)
}

fn load_or_create_wireguard(path: &Path) -> Result<Zeroizing<[u8; 32]>> {
    if path
        .try_exists()
        .with_context(|| path.display().to_string())?
    {
        let text = secret_file::read(path)?;
        let trimmed = text.trim_ascii();
        let bytes = Zeroizing::new(BASE64.decode(trimmed).with_context(|| damaged(path))?);
        let mut secret = Zeroizing::new([0; 32]);
        if bytes.len() != secret.len() {
            bail!("{}", damaged(path));
        }
        secret.copy_from_slice(&bytes);
        return Ok(secret);
    }
    let secret = random_bytes();
    secret_file::create(path, encode_wireguard(&secret).as_bytes())?;
    Ok(secret)
}

fn damaged(path: &Path) -> String {
    format!(
        "{} is damaged: restore it from a backup, or delete the state directory and join with a new invite",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        secret_file::create_private_dir(&dir.path().join("state")).unwrap();
        dir
    }

    #[test]
    fn the_second_start_finds_the_keys_of_the_first() {
        let dir = private_dir();
        let state = dir.path().join("state");
        let first = Identity::load_or_create(&state).unwrap();
        let second = Identity::load_or_create(&state).unwrap();
        assert_eq!(first.keypair.public(), second.keypair.public());
        assert_eq!(*first.wireguard, *second.wireguard);
    }

    #[test]
    fn a_wireguard_key_is_replaced_whole_and_what_a_crash_left_is_in_nobodys_way() {
        let dir = private_dir();
        let state = dir.path().join("state");
        let first = Identity::load_or_create(&state).unwrap();
        std::fs::write(state.join("wg.key.new"), b"half").unwrap();
        replace_wireguard(&state, &[7; 32]).unwrap();
        let second = Identity::load_or_create(&state).unwrap();
        assert_eq!(*second.wireguard, [7; 32]);
        assert_eq!(first.keypair.public(), second.keypair.public());
        assert!(!state.join("wg.key.new").exists());
    }

    #[test]
    fn a_damaged_key_is_told_and_not_replaced() {
        let dir = private_dir();
        let state = dir.path().join("state");
        secret_file::create(&state.join("wg.key"), b"not base64!").unwrap();
        let error = Identity::load_or_create(&state).err().unwrap();
        assert!(format!("{error:#}").contains("wg.key is damaged"));
        assert_eq!(std::fs::read(state.join("wg.key")).unwrap(), b"not base64!");
    }
}
