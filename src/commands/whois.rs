//! `hivevpn whois`

use std::{net::SocketAddr, path::Path};

use anyhow::Result;

use super::Paint;
use crate::{
    cli::membership::WhoisArgs,
    control::{Request, ask, membership::Whois},
};

/// Prints whose an overlay address is.
pub fn run(args: &WhoisArgs, socket: &Path) -> Result<()> {
    // As programs write who is at the other end of a connection.
    let with_port = args.who.parse::<SocketAddr>();
    let who = with_port.map_or_else(|_| args.who.clone(), |address| address.ip().to_string());
    let whois: Whois = ask(socket, &Request::Whois { who })?;
    if args.json {
        return super::print_json(&whois);
    }
    super::print(&shown(&whois, Paint::for_stdout()))
}

fn shown(whois: &Whois, paint: Paint) -> String {
    let this = if whois.this { " (this node)" } else { "" };
    let ipv4 = whois
        .ipv4
        .map_or_else(|| "-".to_owned(), |ipv4| ipv4.to_string());
    let name = paint.strong(&whois.name);
    let rows = [
        ("name", format!("{name}{this}")),
        ("peer id", whois.peer_id.clone()),
        ("groups", super::listed(&whois.groups)),
        ("ipv4", ipv4),
        ("ipv6", whois.ipv6.to_string()),
    ];
    rows.iter()
        .map(|(what, value)| format!("{what:8} {value}\n"))
        .collect()
}
