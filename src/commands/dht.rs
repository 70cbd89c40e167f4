//! `hivevpn dht`

use std::{
    fs::File,
    io::{self, Read},
};

use anyhow::{Context, Result, bail, ensure};
use hivevpn_core::registry::entry::MAX_VALUE;

use super::{BadUsage, Paint, Table, span};
use crate::{
    cli::{
        JsonArg,
        dht::{DeleteArgs, DhtArgs, DhtCommand, GetArgs, PutArgs, WalkArgs},
    },
    control::{
        Daemon, Request, ask,
        registry::{Ask, Entry, Leaf, Routes, Value, Written},
    },
};

/// Writes or reads entries, or shows the DHT.
pub fn run(args: &DhtArgs, daemon: &Daemon) -> Result<()> {
    match &args.command {
        DhtCommand::Put(args) => put(args, daemon),
        DhtCommand::Get(args) => get(args, daemon),
        DhtCommand::Delete(args) => delete(args, daemon),
        DhtCommand::Walk(args) => walk(args, daemon),
        DhtCommand::Routes(args) => routes(args, daemon),
    }
}

fn put(args: &PutArgs, daemon: &Daemon) -> Result<()> {
    let value = match (&args.file, args.value.as_deref()) {
        (Some(file), _) => {
            let name = file.display().to_string();
            let open = File::open(file).with_context(|| name.clone())?;
            read(open, &name)?
        }
        (None, Some("-")) => read(io::stdin(), "standard input")?,
        (None, Some(value)) => value.as_bytes().to_vec(),
        (None, None) => bail!(BadUsage("name a value, '-' or --file".to_owned())),
    };
    let put = Ask::Put {
        key: args.key.clone(),
        value: Value::of(&value),
        lifetime_s: args.lifetime.map(|lifetime| lifetime.as_secs()),
    };
    let written: Written = ask(daemon, &Request::Dht(put))?;
    if args.json {
        return super::print_json(&written);
    }
    super::print(&format!("put {} as number {}\n", written.key, written.seq))
}

fn read(from: impl Read, name: &str) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    from.take(MAX_VALUE as u64 + 1)
        .read_to_end(&mut value)
        .with_context(|| name.to_owned())?;
    ensure!(
        value.len() <= MAX_VALUE,
        BadUsage(format!(
            "{name}: longer than a value may be ({MAX_VALUE} bytes)"
        ))
    );
    Ok(value)
}

fn delete(args: &DeleteArgs, daemon: &Daemon) -> Result<()> {
    let delete = Ask::Delete {
        key: args.key.clone(),
    };
    let written: Written = ask(daemon, &Request::Dht(delete))?;
    if args.json {
        return super::print_json(&written);
    }
    super::print(&format!("deleted {}\n", written.key))
}

fn get(args: &GetArgs, daemon: &Daemon) -> Result<()> {
    let get = Ask::Get {
        key: args.key.clone(),
        owner: args.owner.clone(),
        network: args.network,
    };
    let entries: Vec<Entry> = ask(daemon, &Request::Dht(get))?;
    if args.json {
        return super::print_json(&entries);
    }
    ensure!(!entries.is_empty(), "nothing lies under '{}'", args.key);
    let paint = Paint::for_stdout();
    let shown: Vec<_> = entries.iter().map(|entry| shown(entry, paint)).collect();
    super::print(&shown.join("\n"))
}

fn shown(entry: &Entry, paint: Paint) -> String {
    let value = match &entry.value {
        Value::Text(text) => text.trim_end().replace('\n', "\n      "),
        Value::Hex(digits) => format!("0x{digits}"),
    };
    let rows = [
        ("owner", paint.strong(&entry.owner)),
        ("seq", entry.seq.to_string()),
        ("age", span(entry.age_s)),
        ("left", span(entry.left_s)),
        ("value", value),
    ];
    rows.iter()
        .map(|(what, value)| format!("{what:5} {value}\n"))
        .collect()
}

fn walk(args: &WalkArgs, daemon: &Daemon) -> Result<()> {
    let walk = Ask::Walk {
        prefix: args.prefix.clone(),
    };
    let leaves: Vec<Leaf> = ask(daemon, &Request::Dht(walk))?;
    if args.json {
        return super::print_json(&leaves);
    }
    super::print(&tree(&leaves, Paint::for_stdout()))
}

/// The parts of the keys, each below the one before it, and behind the last one its owners. The leaves come in order.
fn tree(leaves: &[Leaf], paint: Paint) -> String {
    let mut text = String::new();
    let mut before: Vec<&str> = Vec::new();
    for of_key in leaves.chunk_by(|one, other| one.key == other.key) {
        let Some(first) = of_key.first() else {
            continue;
        };
        let parts: Vec<_> = first.key.split('/').collect();
        let common = std::iter::zip(&parts, &before);
        let common = common.take_while(|(part, before)| part == before).count();
        for (depth, part) in parts.iter().enumerate().skip(common) {
            text.push_str(&"  ".repeat(depth));
            text.push_str(part);
            if depth + 1 < parts.len() {
                text.push_str("/\n");
            }
        }
        let owners: Vec<_> = of_key.iter().map(|leaf| leaf.owner.as_str()).collect();
        text.push_str(&format!("  {}\n", paint.strong(&owners.join(", "))));
        before = parts;
    }
    text
}

fn routes(args: &JsonArg, daemon: &Daemon) -> Result<()> {
    let routes: Routes = ask(daemon, &Request::Dht(Ask::Routes))?;
    if args.json {
        return super::print_json(&routes);
    }
    super::print(&table(&routes, Paint::for_stdout()))
}

fn table(routes: &Routes, paint: Paint) -> String {
    let Routes {
        mode,
        buckets,
        records,
    } = routes;
    let mut table = Table::new(&["BUCKET", "PEER", "STATE", "ADDRESSES"]);
    for bucket in buckets {
        for peer in &bucket.peers {
            let state = if peer.connected { "online" } else { "offline" };
            table.row(vec![
                bucket.distance.to_string(),
                peer.name.clone().unwrap_or_else(|| peer.peer_id.clone()),
                state.to_owned(),
                super::listed(&peer.addresses),
            ]);
        }
    }
    format!(
        "{mode}: {} records of ours, {} of others ({} of them entries of the registry)\n{}",
        records.ours,
        records.others,
        records.entries_of_others,
        table.render(paint)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(key: &str, owner: &str) -> Leaf {
        Leaf {
            key: key.to_owned(),
            owner: owner.to_owned(),
            owner_id: String::new(),
            seq: 1,
            age_s: 2,
            left_s: 3,
            bytes: 4,
        }
    }

    #[test]
    fn keys_are_a_tree_with_owners_at_its_leaves() {
        let leaves = [
            leaf("a", "x"),
            leaf("a/b/c", "x"),
            leaf("a/b/c", "y"),
            leaf("a/b/d", "x"),
            leaf("e/b", "z"),
        ];
        assert_eq!(
            tree(&leaves, Paint(false)),
            "a  x\n  b/\n    c  x, y\n    d  x\ne/\n  b  z\n"
        );
        assert_eq!(tree(&[], Paint(false)), "");
    }

    #[test]
    fn an_entry_is_shown_with_whose_and_how_old_it_is() {
        let entry = Entry {
            key: "a".to_owned(),
            owner: "gpu".to_owned(),
            owner_id: String::new(),
            seq: 7,
            age_s: 3,
            left_s: 7200,
            value: Value::Text("one\ntwo\n".to_owned()),
        };
        assert_eq!(
            shown(&entry, Paint(false)),
            "owner gpu\nseq   7\nage   3 s\nleft  2 h\nvalue one\n      two\n"
        );
    }
}
