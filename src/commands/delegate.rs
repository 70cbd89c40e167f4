//! `hivevpn delegate`

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use super::{Paint, Table, authority};
use crate::{
    cli::{
        JsonArg,
        membership::{DelegateAddArgs, DelegateArgs, DelegateCommand, DelegateRemoveArgs, Power},
    },
    control::{
        Request, ask,
        membership::{Change, Delegate, Undelegated},
    },
};

/// Lends powers, takes them back, or lists who has some.
pub fn run(args: &DelegateArgs, state: &Path, socket: &Path) -> Result<()> {
    match &args.command {
        DelegateCommand::Add(args) => add(args, state, socket),
        DelegateCommand::Remove(args) => remove(args, state, socket),
        DelegateCommand::List(args) => list(args, socket),
    }
}

fn add(args: &DelegateAddArgs, state: &Path, socket: &Path) -> Result<()> {
    let change = Change::Delegate {
        node: args.node.clone(),
        powers: args.powers.iter().copied().map(name).collect(),
        groups: (args.no_groups || !args.groups.is_empty())
            .then(|| args.groups.iter().map(ToString::to_string).collect()),
        expires_s: args.expires.as_secs(),
        authority: authority::key(&args.authority, state)?,
    };
    let delegate: Delegate = ask(socket, &Request::Change(change))?;
    if args.json {
        return super::print_json(&delegate);
    }
    super::print(&format!(
        "{} may {} until its delegation ends {}\n",
        delegate.name,
        delegate.powers.join(", "),
        super::ahead(delegate.expires_at)
    ))
}

fn name(power: Power) -> String {
    let value = power.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn remove(args: &DelegateRemoveArgs, state: &Path, socket: &Path) -> Result<()> {
    let change = Change::Undelegate {
        node: args.node.clone(),
        authority: authority::key(&args.authority, state)?,
    };
    let removed: Undelegated = ask(socket, &Request::Change(change))?;
    if args.json {
        return super::print_json(&removed);
    }
    super::print(&format!("{} has no powers any more\n", removed.name))
}

fn list(args: &JsonArg, socket: &Path) -> Result<()> {
    let delegates: Vec<Delegate> = ask(socket, &Request::Delegates)?;
    if args.json {
        return super::print_json(&delegates);
    }
    let mut table = Table::new(&["NAME", "POWERS", "GROUPS", "ENDS", "PEER ID"]);
    for delegate in delegates {
        table.row(vec![
            delegate.name,
            super::listed(&delegate.powers),
            delegate
                .groups
                .map_or_else(|| "any".to_owned(), |groups| super::listed(&groups)),
            super::ahead(delegate.expires_at),
            delegate.peer_id,
        ]);
    }
    super::print(&table.render(Paint::for_stdout()))
}
