//! `hivevpn names`

use std::net::IpAddr;

use anyhow::Result;

use super::{Paint, Table};
use crate::{
    cli::JsonArg,
    control::{
        Daemon, Request, ask,
        names::{ListedName, Names},
        services::Ask,
    },
};

/// Lists what resolves, and how.
pub fn run(args: &JsonArg, daemon: &Daemon) -> Result<()> {
    let names: Names = ask(daemon, &Request::Services(Ask::Names))?;
    if args.json {
        return super::print_json(&names);
    }
    let mut table = Table::new(&["NAME", "KIND", "ADDRESSES"]);
    for name in &names.names {
        table.row(vec![name.name.clone(), name.kind.clone(), addresses(name)]);
    }
    let text = format!("{}\n{}", table.render(Paint::for_stdout()), how(&names));
    super::print(&text)
}

fn addresses(name: &ListedName) -> String {
    match &name.trouble {
        Some(trouble) => format!("- ({trouble})"),
        None => shown(&name.addresses, ", "),
    }
}

fn shown(addresses: &[IpAddr], between: &str) -> String {
    let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(between)
}

/// How programs come to these names, and how they could.
fn how(names: &Names) -> String {
    let trouble = names.trouble.as_ref();
    let trouble = trouble.map_or_else(String::new, |trouble| format!("{trouble}\n"));
    let Some(server) = names.servers.first() else {
        return format!("Nothing answers for them here.\n{trouble}");
    };
    let answering = match names.servers.as_slice() {
        [only] => format!("{only} answers"),
        several => format!("{} answer", shown(several, " and ")),
    };
    let domain = &names.domain;
    let search = match names.search {
        true => ", without the domain as well",
        false => "",
    };
    match names.through.as_str() {
        "none" => format!(
            "{answering}, but programs do not ask there by themselves.\n{trouble}\
             Ask yourself:   dig @{server} NAME\n\
             dnsmasq, or NetworkManager's (/etc/NetworkManager/dnsmasq.d/hivevpn.conf):\n\
             \x20               server=/{domain}/{server}\n\
             All programs:   hivevpn up --names resolv-conf\n"
        ),
        through => {
            format!("Programs find them through {through}{search}; {answering}.\n{trouble}")
        }
    }
}
