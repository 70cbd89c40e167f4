//! `hivevpn keygen`

use std::path::Path;

use anyhow::{Context, Result};
use hivevpn_platform::secret_file;
use libp2p::identity::Keypair;
use zeroize::Zeroizing;

use crate::{
    cli::membership::{KeyFormat, KeyType, KeygenArgs},
    identity, key_file,
};

/// Makes a key or takes one over, writes it and prints its peer id.
pub fn run(args: &KeygenArgs, state: &Path) -> Result<()> {
    let keypair = match (&args.import, args.key_type) {
        (Some(file), _) => key_file::read(file, args.passphrase_file.as_deref())?,
        (None, KeyType::Ed25519) => Keypair::generate_ed25519(),
    };
    let content = match args.format {
        KeyFormat::Libp2p => key_file::to_libp2p(&keypair)?,
        KeyFormat::Pem => Zeroizing::new(key_file::to_pem(&keypair, None)?.as_bytes().to_vec()),
    };
    match &args.out {
        Some(path) => secret_file::create(path, &content)?,
        None => {
            secret_file::create_private_dir(state)?;
            secret_file::create(&identity::path(state), &content).context(
                "this node has an identity already; 'hivevpn rotate identity' replaces it",
            )?;
        }
    }
    super::print(&format!("{}\n", keypair.public().to_peer_id()))
}
