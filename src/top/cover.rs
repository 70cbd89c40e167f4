//! What covers a table: the keys, or everything about one row.

use ratatui::text::Line;

use super::{
    known::{Known, Latest},
    panes::Pane,
    screen::Palette,
    table::{Table, Tone, width},
};
use crate::{
    commands,
    control::{Candidate, Why},
};

const KEYS: &[(&str, &str)] = &[
    ("1 2 3 4", "peers, services, models, ports of this node"),
    ("Tab ← →", "the next pane, the one before"),
    ("↑ ↓ k j", "select a row; PgUp PgDn Home End too"),
    ("Enter", "everything about it; for a peer every way to it"),
    (
        "/",
        "show only rows that contain what is typed; Esc ends that",
    ),
    ("s", "sort by the next column; r the other way round"),
    ("Ctrl-L", "draw everything again"),
    ("q Ctrl-C", "quit"),
];

/// The keys.
pub fn help<'a>(palette: Palette) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for (keys, what) in KEYS {
        lines.push(palette.line(&[
            (Tone::Strong, format!("{keys:10}")),
            (Tone::Plain, (*what).to_owned()),
        ]));
    }
    lines.push(Line::default());
    for text in [
        "IN and OUT are what goes by now, RECEIVED and SENT all of it since the node is up.",
        "A bar stands for two seconds; both directions have the same scale.",
    ] {
        lines.push(palette.line(&[(Tone::Faint, text.to_owned())]));
    }
    lines
}

/// Everything about a row, wrapped at this width.
pub fn details<'a>(
    pane: Pane,
    id: &str,
    known: &Known,
    columns: u16,
    palette: Palette,
) -> Vec<Line<'a>> {
    let table = pane.table(known);
    let mut lines = row(&table, id, columns, palette);
    if pane == Pane::Peers {
        lines.push(Line::default());
        lines.extend(ways(known.why(id), columns, palette));
    }
    lines
}

fn row<'a>(table: &Table, id: &str, columns: u16, palette: Palette) -> Vec<Line<'a>> {
    let Some(row) = table.rows.iter().find(|row| row.id == id) else {
        return vec![palette.line(&[(Tone::Faint, "It is not there any more.".to_owned())])];
    };
    let cells = std::iter::zip(table.columns, &row.cells)
        .map(|(column, cell)| (column.heading.to_lowercase(), cell.tone, &cell.text));
    let more = row
        .more
        .iter()
        .map(|(name, text)| ((*name).to_owned(), Tone::Plain, text));
    let facts: Vec<_> = cells.chain(more).collect();
    let indent = facts
        .iter()
        .map(|(name, ..)| width(name))
        .max()
        .unwrap_or(0)
        + 2;
    let mut lines = Vec::new();
    for (name, tone, text) in facts {
        for (number, part) in wrapped(text.trim(), columns.saturating_sub(indent))
            .into_iter()
            .enumerate()
        {
            let name = if number == 0 { name.as_str() } else { "" };
            let name = format!("{name:indent$}", indent = usize::from(indent));
            lines.push(palette.line(&[(Tone::Faint, name), (tone, part)]));
        }
    }
    lines
}

/// Every way to a peer, as `why` tells them.
fn ways<'a>(why: Option<&Latest<Option<Why>>>, columns: u16, palette: Palette) -> Vec<Line<'a>> {
    let faint = |text: &str| vec![palette.line(&[(Tone::Faint, text.to_owned())])];
    let Some(why) = why else {
        return faint("asking for the ways to it …");
    };
    if let Some(trouble) = &why.trouble {
        return faint(trouble);
    }
    let Some(why) = &why.value else {
        return Vec::new();
    };
    let since = why.since_s.map(commands::why::span);
    let since = since.map_or_else(String::new, |since| format!(" for {since}"));
    let by = commands::by(why.relay.as_deref(), why.endpoint.as_deref());
    let mut lines = vec![palette.line(&[(Tone::Strong, format!("{}{by}{since}", why.path))])];
    if why.candidates.is_empty() {
        lines.extend(faint("no way to it is known"));
    }
    for candidate in &why.candidates {
        lines.extend(way(candidate, columns, palette));
    }
    lines
}

fn way<'a>(candidate: &Candidate, columns: u16, palette: Palette) -> Vec<Line<'a>> {
    const INDENT: u16 = 4;
    let tone = match candidate.state.as_str() {
        "in use" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Plain,
    };
    let rtt = candidate.rtt_ms.map(|rtt| format!("  {rtt:.1} ms"));
    let mut lines = vec![palette.line(&[
        (tone, format!("  {:8}", candidate.state)),
        (
            Tone::Plain,
            format!("  {} {}", candidate.kind, candidate.address),
        ),
        (Tone::Plain, rtt.unwrap_or_default()),
    ])];
    for part in wrapped(&candidate.reason, columns.saturating_sub(INDENT)) {
        let indent = " ".repeat(INDENT.into());
        lines.push(palette.line(&[(Tone::Faint, indent + &part)]));
    }
    lines
}

/// Words in lines of this width. A word that is longer has a line of its own.
fn wrapped(text: &str, columns: u16) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is one from the start");
        let room = columns.saturating_sub(width(line)).saturating_sub(1);
        if line.is_empty() {
            line.push_str(word);
        } else if width(word) <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn words_stay_whole() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("one two three", 2), ["one", "two", "three"]);
        assert_eq!(wrapped("日本 語", 7), ["日本 語"]);
        assert_eq!(wrapped("", 7), [""]);
    }
}
