//! The secret keys of this node: files of the state directory that only their owner may read.
//!
//! | file | key | used for |
//! |---|---|---|
//! | `identity.key` | ed25519, libp2p's protobuf encoding | the peer id; signs descriptors |
//! | `wg.key` | x25519, base64 as `wg genkey` writes it | WireGuard; bound to the identity by the signed descriptor |
//! | `authority.key` | ed25519, libp2p's protobuf encoding | founders only: signs delegations; may be taken off-line |

use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::membership::Signer;
use hivevpn_platform::secret_file;
use libp2p::identity::Keypair;
use rand::Rng;
use zeroize::Zeroizing;

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
            keypair: load_or_create_keypair(&state.join("identity.key"))?,
            wireguard: load_or_create_wireguard(&state.join("wg.key"))?,
        })
    }

    /// The identity as the core signs with it.
    pub fn signer(&self) -> Result<Signer> {
        Signer::new(self.keypair.clone()).context("identity.key is no ed25519 key")
    }
}

/// Loads the node's identity without making one, for commands that need no daemon.
pub fn load_keypair(state: &Path) -> Result<Option<Keypair>> {
    let path = state.join("identity.key");
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
    load_or_create_keypair(&state.join("authority.key"))
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
    let text = Zeroizing::new(BASE64.encode(*secret) + "\n");
    secret_file::create(path, text.as_bytes())?;
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
    fn a_damaged_key_is_told_and_not_replaced() {
        let dir = private_dir();
        let state = dir.path().join("state");
        secret_file::create(&state.join("wg.key"), b"not base64!").unwrap();
        let error = Identity::load_or_create(&state).err().unwrap();
        assert!(format!("{error:#}").contains("wg.key is damaged"));
        assert_eq!(std::fs::read(state.join("wg.key")).unwrap(), b"not base64!");
    }
}
