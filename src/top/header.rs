//! What stands above the tables: the node, what goes by, and what is wrong.

use std::time::{Duration, Instant};

use ratatui::text::Line;

use super::{
    known::Known,
    rates::{Growth, bars},
    screen::Palette,
    table::{Tone, width},
};
use crate::{
    commands::{self, bytes, span},
    control::Status,
};

/// After so long without an answer somebody may wonder.
const SILENCE: Duration = Duration::from_secs(3);

/// How much room there is for lines above the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Bars, and a line for what was dropped.
    Plenty,
    /// No bars.
    Little,
}

/// The lines above the tables. `now` is none in a picture, which does not wonder how long it has been so.
pub fn lines<'a>(
    known: &Known,
    now: Option<Instant>,
    columns: u16,
    room: Room,
    palette: Palette,
) -> Vec<Line<'a>> {
    let mut lines = vec![node(known, now, columns, palette)];
    lines.extend(warning(known, now).map(|text| palette.line(&[(Tone::Bad, text)])));
    if known.status.value.is_none() {
        return lines;
    }
    match room {
        Room::Plenty => lines.extend(throughput(known, columns, palette)),
        Room::Little => lines.push(rates(known, palette)),
    }
    let lost = lost(known);
    match (room, lost) {
        (_, Some(lost)) => lines.push(palette.line(&[(Tone::Fair, lost)])),
        (Room::Plenty, None) => {
            let nothing = "nothing dropped or refused in the last minute".to_owned();
            lines.push(palette.line(&[(Tone::Faint, nothing)]));
        }
        (Room::Little, None) => {}
    }
    lines
}

/// Network and node; the less there is room, the less of it.
fn node<'a>(known: &Known, now: Option<Instant>, columns: u16, palette: Palette) -> Line<'a> {
    let Some(status) = &known.status.value else {
        return palette.line(&[(Tone::Strong, "hivevpn".to_owned())]);
    };
    // In the order in which they are shown, with what goes first where there is no room for all.
    let mut pieces = pieces(status);
    if let (Some(began), Some(at)) = (known.began, now.or(known.told_at)) {
        let up = at.saturating_duration_since(began).as_secs();
        pieces.push((3, Tone::Plain, format!("up {}", span(up))));
    }
    let taken = |pieces: &[(u8, Tone, String)]| -> u16 {
        let widths = pieces
            .iter()
            .map(|(_, _, text)| width(text).saturating_add(2));
        widths.fold(0, u16::saturating_add).saturating_sub(2)
    };
    while taken(&pieces) > columns && pieces.len() > 1 {
        let last = pieces.iter().map(|(need, ..)| *need).max();
        pieces.retain(|(need, ..)| Some(*need) != last);
    }
    let mut shown = Vec::new();
    for (_, tone, text) in pieces {
        if !shown.is_empty() {
            shown.push((Tone::Plain, "  ".to_owned()));
        }
        shown.push((tone, text));
    }
    palette.line(&shown)
}

fn pieces(status: &Status) -> Vec<(u8, Tone, String)> {
    let node = &status.node;
    let mut pieces = vec![
        (1, Tone::Strong, status.network.name.clone()),
        (0, Tone::Strong, node.name.clone()),
    ];
    if let Some(ipv4) = node.ipv4 {
        pieces.push((2, Tone::Plain, ipv4.to_string()));
    }
    let reachability = match node.reachability.as_str() {
        "public" => Tone::Good,
        _ => Tone::Plain,
    };
    pieces.push((6, Tone::Plain, node.ipv6.to_string()));
    pieces.push((5, Tone::Plain, format!("on {}", node.interface)));
    pieces.push((4, reachability, node.reachability.clone()));
    let standing = match node.standing.as_str() {
        "member" => Tone::Good,
        _ => Tone::Bad,
    };
    pieces.push((4, standing, node.standing.clone()));
    pieces
}

/// What the user has to know before anything else.
fn warning(known: &Known, now: Option<Instant>) -> Option<String> {
    if let Some(trouble) = &known.status.trouble {
        return Some(trouble.clone());
    }
    let silence = now?.saturating_duration_since(known.told_at?);
    if silence > SILENCE.max(known.interval * 3) {
        return Some(format!("no answer for {} s", silence.as_secs()));
    }
    commands::status::standing(known.status.value.as_ref()?)
}

/// Both directions, each with a line of bars of the same scale.
fn throughput<'a>(known: &Known, columns: u16, palette: Palette) -> Vec<Line<'a>> {
    let directions = [
        ("in ", known.receiving(), &known.received),
        ("out", known.sending(), &known.sent),
    ];
    let figures = |rate| format!("{:>11}  ", per_second(rate));
    let before = width(directions[0].0) + width(&figures(None));
    let count = usize::from(columns.saturating_sub(before));
    let most = directions
        .iter()
        .flat_map(|(_, _, history)| history.rates(count))
        .fold(0.0, f64::max);
    directions
        .into_iter()
        .map(|(name, rate, history)| {
            palette.line(&[
                (Tone::Plain, name.to_owned()),
                (Tone::Strong, figures(rate)),
                (Tone::Good, bars(&history.rates(count), most)),
            ])
        })
        .collect()
}

fn rates<'a>(known: &Known, palette: Palette) -> Line<'a> {
    palette.line(&[
        (Tone::Plain, "in ".to_owned()),
        (Tone::Strong, per_second(known.receiving())),
        (Tone::Plain, "  out ".to_owned()),
        (Tone::Strong, per_second(known.sending())),
    ])
}

fn per_second(rate: Option<f64>) -> String {
    rate.map_or("-".to_owned(), |rate| format!("{}/s", bytes(rate as u64)))
}

/// What was dropped and refused in the last minute, if anything.
fn lost(known: &Known) -> Option<String> {
    let told = |what: &str, growth: &Growth| {
        let lately = growth.lately();
        let reasons: Vec<_> = lately
            .iter()
            .map(|(reason, count)| format!("{reason} +{count}"))
            .collect();
        let of = growth.total();
        (!reasons.is_empty()).then(|| format!("{what}: {} (of {of})", reasons.join(", ")))
    };
    let both = [
        told("dropped", &known.drops),
        told("refused", &known.rejections),
    ];
    let both: Vec<_> = both.into_iter().flatten().collect();
    (!both.is_empty()).then(|| format!("in the last minute {}", both.join("; ")))
}
