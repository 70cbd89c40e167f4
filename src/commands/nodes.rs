//! `hivevpn nodes`

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::JsonArg,
    control::{Daemon, Node, Request, ask},
};

/// Lists the members.
pub fn run(args: &JsonArg, daemon: &Daemon) -> Result<()> {
    let nodes: Vec<Node> = ask(daemon, &Request::Nodes)?;
    if args.json {
        return super::print_json(&nodes);
    }
    let mut table = Table::new(&["NAME", "IPV4", "IPV6", "STATE", "RELAYS", "PEER ID"]);
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
            if node.relays { "yes" } else { "no" }.to_owned(),
            node.peer_id,
        ]);
    }
    super::print(&table.render(Paint::for_stdout()))
}
