//! `hivevpn admit`, `revoke` and `restore`: who is a member

use std::path::Path;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use libp2p::PeerId;

use super::BadUsage;
use crate::{
    cli::membership::{AdmitArgs, RestoreArgs, RevokeArgs},
    control::{
        Identity, Request, ask,
        membership::{Admission, Change, Restored, Revoked},
    },
};

/// Admits a node and prints what it joins with, alone on its line.
pub fn admit(args: &AdmitArgs, socket: &Path) -> Result<()> {
    let change = Change::Admit {
        id: id(&args.id)?.to_string(),
        name: args.name.as_ref().map(ToString::to_string),
        groups: args.groups.iter().map(ToString::to_string).collect(),
        address: args.address,
    };
    let admission: Admission = ask(socket, &Request::Change(change))?;
    if args.json {
        return super::print_json(&admission);
    }
    eprintln!(
        "Admitted {} as '{}' with {}. On that machine:\n  sudo hivevpn up --join {}…\n\
         It contains the network's discovery secret: keep it from others.",
        admission.peer_id,
        admission.name,
        admission.ipv4,
        admission.admission.get(..12).unwrap_or_default()
    );
    super::print(&format!("{}\n", admission.admission))
}

/// A peer id, or `id --base64`.
fn id(text: &str) -> Result<PeerId> {
    let text = text.trim();
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let identity = BASE64
        .decode(text)
        .ok()
        .and_then(|json| serde_json::from_slice::<Identity>(&json).ok());
    identity
        .and_then(|identity| identity.id.parse().ok())
        .with_context(|| {
            BadUsage(format!(
                "'{text}' is no peer id, nor what 'hivevpn id --base64' prints: run 'hivevpn keygen' or 'hivevpn id' on \
                 the machine that is to be admitted"
            ))
        })
}

/// Expels a node.
pub fn revoke(args: &RevokeArgs, socket: &Path) -> Result<()> {
    let change = Change::Revoke {
        node: args.node.clone(),
        reason: args.reason.clone(),
    };
    let revoked: Revoked = ask(socket, &Request::Change(change))?;
    if args.json {
        return super::print_json(&revoked);
    }
    let name = revoked.name.as_deref().unwrap_or(&revoked.peer_id);
    super::print(&format!(
        "revoked {name} ({}); 'hivevpn restore {name}' takes it back\n",
        revoked.peer_id
    ))
}

/// Takes a node back.
pub fn restore(args: &RestoreArgs, socket: &Path) -> Result<()> {
    let change = Change::Restore {
        node: args.node.clone(),
    };
    let restored: Restored = ask(socket, &Request::Change(change))?;
    if args.json {
        return super::print_json(&restored);
    }
    super::print(&format!(
        "restored {} ({}): it fetches its certificate by itself\n",
        restored.name, restored.peer_id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_peer_id_or_by_its_bootstrap_string() {
        let text = "12D3KooWBrVzpfetjgEdZjPxzQfb5oLKK2ZtFYYSpZ4vAAWkRCCN";
        let identity = Identity {
            id: text.to_owned(),
            addresses: vec!["/ip4/192.0.2.1/tcp/7777".to_owned()],
        };
        let base64 = BASE64.encode(serde_json::to_vec(&identity).unwrap());
        for given in [text, &base64, &format!(" {text}\n")] {
            assert_eq!(id(given).unwrap().to_string(), text);
        }
        assert!(id("laptop").unwrap_err().is::<BadUsage>());
    }
}
