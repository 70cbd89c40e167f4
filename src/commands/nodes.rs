//! `hivevpn nodes`

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::membership::NodesArgs,
    control::{Daemon, Node, Request, ask, membership::Revoked},
};

/// Lists the members, or the keys that were revoked.
pub fn run(args: &NodesArgs, daemon: &Daemon) -> Result<()> {
    if args.revoked {
        return revoked(args, daemon);
    }
    let nodes: Vec<Node> = ask(daemon, &Request::Nodes)?;
    if args.json {
        return super::print_json(&nodes);
    }
    let mut table = Table::new(&[
        "NAME", "IPV4", "IPV6", "STATE", "GROUPS", "POWERS", "RELAYS", "PEER ID",
    ]);
    for node in nodes {
        let state = match (node.this, node.online) {
            (true, _) => "this node",
            (false, true) => "online",
            (false, false) => "offline",
        };
        table.row(vec![
            node.name,
            node.ipv4
                .map_or("-".to_owned(), |address| address.to_string()),
            node.ipv6.to_string(),
            state.to_owned(),
            super::listed(&node.groups),
            super::listed(&node.powers),
            if node.relays { "yes" } else { "no" }.to_owned(),
            node.peer_id,
        ]);
    }
    super::print(&table.render(Paint::for_stdout()))
}

fn revoked(args: &NodesArgs, daemon: &Daemon) -> Result<()> {
    let revoked: Vec<Revoked> = ask(daemon, &Request::Revoked)?;
    if args.json {
        return super::print_json(&revoked);
    }
    let mut table = Table::new(&["NAME", "REVOKED", "BY", "STATE", "REASON", "PEER ID"]);
    for key in revoked {
        table.row(vec![
            key.name.unwrap_or_else(|| "-".to_owned()),
            super::ago(key.revoked_at),
            key.by,
            if key.restored { "restored" } else { "revoked" }.to_owned(),
            if key.reason.is_empty() {
                "-".to_owned()
            } else {
                key.reason
            },
            key.peer_id,
        ]);
    }
    super::print(&table.render(Paint::for_stdout()))
}
