//! `hivevpn audit`

use std::path::Path;

use anyhow::Result;

use crate::{audit, cli::AuditArgs};

/// Prints the last lines of the audit log. Needs no daemon, and the right to read the state directory.
pub fn run(args: &AuditArgs, state: &Path) -> Result<()> {
    let entries = audit::read(state, args.lines)?;
    if args.json {
        return super::print_json(&entries);
    }
    if entries.is_empty() {
        return super::print("nothing was changed, and nobody was refused\n");
    }
    let mut table = super::Table::new(&["TIME", "WHO", "WHAT", "ABOUT", "OUTCOME"]);
    for entry in entries {
        // What others have chosen must not reach the terminal as it is.
        let cells = [
            super::ago(entry.time),
            entry.caller,
            entry.request,
            entry.subject.unwrap_or_default(),
            entry.outcome,
        ];
        table.row(cells.iter().map(|cell| printable(cell)).collect());
    }
    super::print(&table.render(super::Paint::for_stdout()))
}

fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}
