//! The models of all members, and how busy they are.

use super::nothing;
use crate::{
    control::services::ListedModel,
    top::{
        known::Known,
        table::{Cell, Column, Key, Row, Table, Tone},
    },
};

/// Cells of a full load bar.
const BAR: usize = 8;

const COLUMNS: &[Column] = &[
    Column::words("MODEL", 0, 28),
    Column::words("NODE", 1, 16),
    Column::numbers("LOAD", 2, 14),
    Column::numbers("QUEUE", 3, 5),
    Column::numbers("RTT", 5, 8),
    Column::words("WARM", 6, 4),
    Column::numbers("TOKENS/S", 4, 8),
    Column::numbers("PRICE", 7, 5),
];

pub(super) fn table(known: &Known) -> Table {
    let models = known.models.value.iter().flat_map(|models| &models.models);
    let mut rows: Vec<_> = models.map(row).collect();
    rows.sort_by(|one, other| one.id.cmp(&other.id));
    Table {
        columns: COLUMNS,
        rows,
        nothing: nothing(known.models.trouble.as_ref(), "no member offers a model"),
    }
}

fn row(model: &ListedModel) -> Row {
    let warm = match model.loaded {
        Some(true) => Cell::word("warm").meant(Tone::Good),
        Some(false) => Cell::word("cold").meant(Tone::Faint),
        None => Cell::nothing(),
    };
    let mut more = vec![
        ("service", format!("{}.{}", model.service, model.node)),
        ("health", model.health.clone()),
    ];
    let context = model
        .context
        .map(|tokens| ("context", format!("{tokens} tokens")));
    more.extend(context);
    Row {
        id: format!("{} {} {}", model.id, model.node, model.service),
        rank: 0,
        cells: vec![
            Cell::word(&model.id),
            Cell::word(&model.node),
            load(model.load),
            Cell::number(model.queued.into(), model.queued.to_string()),
            Cell::maybe(model.rtt_ms, |rtt| format!("{rtt:.1} ms")),
            warm,
            Cell::number(model.tokens_per_s, format!("{:.1}", model.tokens_per_s)),
            price(model),
        ],
        more,
    }
}

/// A bar that is full at 1, with the percentage behind it.
fn load(load: f64) -> Cell {
    let eighths = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let filled = (load.clamp(0.0, 1.0) * (BAR * 8) as f64).round() as usize;
    let mut bar = "█".repeat(filled / 8);
    if let Some(part) = (filled % 8).checked_sub(1) {
        bar.push(eighths[part]);
    }
    let text = format!("{bar:BAR$} {:3.0} %", (load * 100.0).clamp(0.0, 999.0));
    let tone = match load {
        ..0.6 => Tone::Good,
        ..=1.0 => Tone::Fair,
        _ => Tone::Bad,
    };
    Cell::number(load, text).meant(tone)
}

/// Of a million tokens, read and written, in the currency's smallest unit.
fn price(model: &ListedModel) -> Cell {
    let (read, written) = (model.price_in, model.price_out);
    if read.is_none() && written.is_none() {
        return Cell::nothing();
    }
    let shown = |price: Option<u64>| price.map_or("-".to_owned(), |price| price.to_string());
    let currency = model.currency.as_deref().unwrap_or_default();
    let text = format!("{}/{} {currency}", shown(read), shown(written));
    let sum = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
    Cell {
        text: text.trim_end().to_owned(),
        tone: Tone::Plain,
        key: Key::Number(sum as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::load;

    #[test]
    fn a_load_bar_fills_up_and_no_further() {
        let shown = [0.0, 0.01, 0.5, 0.99, 1.0, 2.5, f64::NAN].map(|value| load(value).text);
        assert_eq!(
            shown,
            [
                "           0 %",
                "▏          1 %",
                "████      50 %",
                "███████▉  99 %",
                "████████ 100 %",
                "████████ 250 %",
                "         NaN %",
            ]
        );
    }
}
