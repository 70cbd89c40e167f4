//! `hivevpn authority`, and the authority's key for the commands that need it

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::membership::Network;
use hivevpn_platform::secret_file;
use libp2p::{PeerId, identity::Keypair};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    cli::{
        JsonArg,
        membership::{AuthorityArgs, AuthorityCommand, AuthorityFile, ExportArgs, ImportArgs},
    },
    control::{
        NoDaemon, Request, Starting, ask,
        membership::{Authorities, AuthorityKey},
    },
    identity, key_file,
    store::Store,
};

/// `authority show --json`.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    known: Authorities,
    /// Whether the key of one of them is in the state directory.
    here: bool,
}

/// Shows, exports or imports the authority's key.
pub fn run(args: &AuthorityArgs, state: &Path, socket: &Path) -> Result<()> {
    match &args.command {
        AuthorityCommand::Show(args) => show(args, state, socket),
        AuthorityCommand::Export(args) => export(args, state),
        AuthorityCommand::Import(args) => import(args, state, socket),
    }
}

/// The authority's key as the daemon takes it: from the file that was named, or the state directory.
pub fn key(file: &AuthorityFile, state: &Path) -> Result<AuthorityKey> {
    let keypair = match &file.authority {
        Some(path) => key_file::read(path, file.passphrase_file.as_deref())?,
        None => load(state)?.with_context(|| {
            format!(
                "the authority's key is not in {}: name the file that 'hivevpn authority export' wrote with --authority \
                 FILE. The node that founded the network had it first",
                state.display()
            )
        })?,
    };
    let encoded = key_file::to_libp2p(&keypair)?;
    Ok(AuthorityKey::new(Zeroizing::new(BASE64.encode(&*encoded))))
}

/// The key in the state directory, if it is there.
fn load(state: &Path) -> Result<Option<Keypair>> {
    let path = identity::authority_path(state);
    if !path
        .try_exists()
        .with_context(|| path.display().to_string())?
    {
        return Ok(None);
    }
    let content = secret_file::read(&path)?;
    let keypair = key_file::parse(&content, None).with_context(|| path.display().to_string())?;
    Ok(Some(keypair))
}

// ---- show ------------------------------------------------------------------------------------------------

fn show(args: &JsonArg, state: &Path, socket: &Path) -> Result<()> {
    let known = authorities(state, socket)?;
    let key = load(state)?.map(|key| peer_id(&key).to_string());
    let is_here = |authority: &String| key.as_ref() == Some(authority);
    let here = known.authorities.iter().any(is_here);
    if args.json {
        return super::print_json(&Shown { known, here });
    }
    let mut text = format!("network '{}' ({})\n", known.network, known.id);
    for authority in &known.authorities {
        let place = if is_here(authority) {
            "its key is on this machine"
        } else {
            "its key is not on this machine"
        };
        text.push_str(&format!("authority {authority}: {place}\n"));
    }
    super::print(&text)
}

/// Who has the last word, from the daemon or, without one, from what it left.
fn authorities(state: &Path, socket: &Path) -> Result<Authorities> {
    match ask(socket, &Request::Authorities) {
        Err(error) if error.is::<NoDaemon>() || error.is::<Starting>() => stored(state),
        asked => asked,
    }
}

fn stored(state: &Path) -> Result<Authorities> {
    let none = || format!("{} belongs to no network yet", state.display());
    ensure!(state.join("db").exists(), none());
    let membership = Store::open(state)?.membership()?.with_context(none)?;
    let network = Network::decode(&membership.network).context("the stored network is damaged")?;
    Ok(of(&network))
}

/// Who has the last word in a network.
pub fn of(network: &Network) -> Authorities {
    let genesis = network.genesis();
    Authorities {
        network: genesis.name().to_string(),
        id: network.id().to_string(),
        authorities: genesis
            .charter()
            .authorities
            .iter()
            .map(ToString::to_string)
            .collect(),
    }
}

fn peer_id(keypair: &Keypair) -> PeerId {
    keypair.public().to_peer_id()
}

// ---- export ----------------------------------------------------------------------------------------------

fn export(args: &ExportArgs, state: &Path) -> Result<()> {
    let Some(keypair) = load(state)? else {
        bail!(
            "the authority's key is not in {}: there is nothing to export",
            state.display()
        );
    };
    let passphrase = args.passphrase_file.as_deref().map(key_file::passphrase);
    let passphrase = passphrase.transpose()?;
    let passphrase = passphrase.as_ref().map(|text| text.as_str());
    let pem = key_file::to_pem(&keypair, passphrase)?;
    secret_file::create(&args.file, pem.as_bytes())?;
    verify(&args.file, &keypair, passphrase)?;
    let written = args.file.display();
    eprintln!("The authority's key {} is in {written}.", peer_id(&keypair));
    if passphrase.is_none() {
        eprintln!("It is not encrypted: whoever gets that file has the network.");
    }
    if args.remove {
        remove(&identity::authority_path(state))?;
        eprintln!(
            "It is not on this machine any more. 'hivevpn delegate add … --authority {written}' uses it from there."
        );
    }
    Ok(())
}

/// Reads the file back: a key that is about to be deleted must be in it.
fn verify(path: &Path, keypair: &Keypair, passphrase: Option<&str>) -> Result<()> {
    let content = secret_file::read(path);
    let content = content.with_context(|| "the file does not keep the key".to_owned())?;
    let read = key_file::parse(&content, passphrase).with_context(|| path.display().to_string())?;
    ensure!(
        *key_file::to_libp2p(&read)? == *key_file::to_libp2p(keypair)?,
        "{} holds another key than was written: is the medium damaged? The key on this machine was kept",
        path.display()
    );
    Ok(())
}

/// Returns when the file is gone from the directory on the disk. What the medium remembers beyond that is not ours to
/// know.
fn remove(path: &PathBuf) -> Result<()> {
    let failed = || format!("cannot delete {}", path.display());
    std::fs::remove_file(path).with_context(failed)?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory)
            .and_then(|directory| directory.sync_all())
            .with_context(failed)?;
    }
    Ok(())
}

// ---- import ----------------------------------------------------------------------------------------------

fn import(args: &ImportArgs, state: &Path, socket: &Path) -> Result<()> {
    let keypair = key_file::read(&args.file, args.passphrase_file.as_deref())?;
    let known = authorities(state, socket)?;
    let imported = peer_id(&keypair);
    ensure!(
        known.authorities.contains(&imported.to_string()),
        "{} holds the key {imported}, which is no authority of the network '{}': its authorities are {}",
        args.file.display(),
        known.network,
        known.authorities.join(", ")
    );
    let path = identity::authority_path(state);
    if load(state)?.is_some_and(|here| peer_id(&here) == imported) {
        eprintln!("The authority's key is in {} already.", path.display());
        return Ok(());
    }
    secret_file::create(&path, &key_file::to_libp2p(&keypair)?)?;
    eprintln!("The authority's key is in {}.", path.display());
    Ok(())
}
