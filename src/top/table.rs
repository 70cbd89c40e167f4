//! Rows under headings, to be sorted, filtered, and fitted into any width.

use std::cmp::Ordering;

use ratatui::text::Span;

/// Between two columns.
pub const GAP: u16 = 2;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Its heading.
    pub heading: &'static str,
    /// Wide enough for values that change all the time, so that nothing beside them moves.
    pub least: u16,
    /// Wider than this only where there is room.
    pub most: u16,
    /// Where there is no room for all, the columns with the lowest numbers stay.
    pub need: u8,
    /// Numbers stand at the right, and begin with the highest when they are sorted by.
    pub is_number: bool,
}

impl Column {
    /// A column of words.
    pub const fn words(heading: &'static str, need: u8, most: u16) -> Self {
        Self {
            heading,
            least: 0,
            most,
            need,
            is_number: false,
        }
    }

    /// A column of numbers.
    pub const fn numbers(heading: &'static str, need: u8, least: u16) -> Self {
        Self {
            heading,
            least,
            most: 24,
            need,
            is_number: true,
        }
    }
}

/// How something is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// It will do.
    Fair,
    /// It should not be so.
    Bad,
    /// Not so important.
    Faint,
    /// What to see first.
    Strong,
}

/// By what a cell is sorted.
#[derive(Debug, Clone, PartialEq)]
pub enum Key {
    /// There is nothing in it: it comes last in any case.
    Nothing,
    /// By a number.
    Number(f64),
    /// By its text.
    Text,
}

/// What stands in a row under a heading.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// What is shown.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    /// By what it is sorted.
    pub key: Key,
}

impl Cell {
    /// A word.
    pub fn word(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            tone: Tone::Plain,
            key: Key::Text,
        }
    }

    /// A number, as it is shown.
    pub fn number(number: f64, text: String) -> Self {
        Self {
            text,
            tone: Tone::Plain,
            key: Key::Number(number),
        }
    }

    /// Nothing.
    pub fn nothing() -> Self {
        Self {
            text: "-".to_owned(),
            tone: Tone::Faint,
            key: Key::Nothing,
        }
    }

    /// A number, if it is known.
    pub fn maybe(number: Option<f64>, show: impl FnOnce(f64) -> String) -> Self {
        number.map_or_else(Self::nothing, |number| Self::number(number, show(number)))
    }

    /// The same in another tone.
    pub fn meant(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// A row.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is about: the selection stays with it wherever it moves.
    pub id: String,
    /// Rows of a lower rank are above the others, by whatever they are sorted.
    pub rank: u8,
    /// One for each column.
    pub cells: Vec<Cell>,
    /// What there is to say about it beside the cells.
    pub more: Vec<(&'static str, String)>,
}

/// The order of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// By this column.
    pub column: usize,
    /// The other way round.
    pub is_reversed: bool,
}

/// Rows under headings.
#[derive(Debug, Clone)]
pub struct Table {
    /// The headings.
    pub columns: &'static [Column],
    /// The rows.
    pub rows: Vec<Row>,
    /// What to say if there are none.
    pub nothing: String,
}

impl Table {
    /// Leaves the rows that contain `filter`, in this order.
    pub fn arrange(&mut self, sort: Option<Sort>, filter: &str) {
        let wanted = filter.to_lowercase();
        self.rows.retain(|row| row.contains(&wanted));
        let columns = self.columns;
        self.rows.sort_by(|one, other| {
            let by_column = sort.map_or(Ordering::Equal, |sort| {
                let is_number = columns
                    .get(sort.column)
                    .is_some_and(|column| column.is_number);
                let cells = (one.cells.get(sort.column), other.cells.get(sort.column));
                let (Some(one), Some(other)) = cells else {
                    return Ordering::Equal;
                };
                compare(one, other, is_number != sort.is_reversed)
            });
            one.rank.cmp(&other.rank).then(by_column)
        });
    }

    /// Which columns to show in this width, and how wide each.
    pub fn fit(&self, width: u16) -> Vec<(usize, u16)> {
        let natural: Vec<u16> = (0..self.columns.len())
            .map(|column| self.width(column))
            .collect();
        let mut by_need: Vec<_> = self.columns.iter().enumerate().collect();
        by_need.sort_by_key(|(_, column)| column.need);
        let mut left = width;
        let mut chosen = Vec::new();
        for (number, column) in by_need {
            let gap = if chosen.is_empty() { 0 } else { GAP };
            let wanted = natural[number].min(column.most);
            if chosen.is_empty() {
                chosen.push((number, wanted.min(width)));
                left -= wanted.min(width);
            } else if wanted + gap <= left {
                chosen.push((number, wanted));
                left -= wanted + gap;
            } else {
                break;
            }
        }
        for (number, width) in &mut chosen {
            let more = natural[*number].saturating_sub(*width).min(left);
            *width += more;
            left -= more;
        }
        chosen.sort_unstable();
        chosen
    }

    fn width(&self, column: usize) -> u16 {
        let Column { heading, least, .. } = self.columns[column];
        let cells = self.rows.iter().filter_map(|row| row.cells.get(column));
        let widest = cells.map(|cell| width(&cell.text)).max().unwrap_or(0);
        widest.max(width(heading)).max(least)
    }
}

impl Row {
    fn contains(&self, wanted: &str) -> bool {
        wanted.is_empty()
            || self
                .cells
                .iter()
                .any(|cell| cell.text.to_lowercase().contains(wanted))
            || self
                .more
                .iter()
                .any(|(_, text)| text.to_lowercase().contains(wanted))
    }
}

fn compare(one: &Cell, other: &Cell, highest_first: bool) -> Ordering {
    let ordering = match (&one.key, &other.key) {
        (Key::Nothing, Key::Nothing) => return Ordering::Equal,
        (Key::Nothing, Key::Number(_) | Key::Text) => return Ordering::Greater,
        (Key::Number(_) | Key::Text, Key::Nothing) => return Ordering::Less,
        (Key::Number(one), Key::Number(other)) => one.total_cmp(other),
        (Key::Text, Key::Text | Key::Number(_)) | (Key::Number(_), Key::Text) => {
            one.text.to_lowercase().cmp(&other.text.to_lowercase())
        }
    };
    if highest_first {
        ordering.reverse()
    } else {
        ordering
    }
}

/// How many cells of a terminal it takes.
pub fn width(text: &str) -> u16 {
    u16::try_from(Span::raw(text).width()).unwrap_or(u16::MAX)
}

/// As much of it as fits, with a sign where something is missing.
pub fn shortened(text: &str, most: u16) -> String {
    if width(text) <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    let span = Span::raw(text);
    for grapheme in span.styled_graphemes(span.style) {
        if width(&short) + width(grapheme.symbol) >= most {
            break;
        }
        short.push_str(grapheme.symbol);
    }
    if most > 0 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::words("NAME", 0, 8),
        Column::words("NOTE", 2, 30),
        Column::numbers("RATE", 1, 6),
    ];

    fn table() -> Table {
        let row = |name: &str, rank, note: &str, rate: Option<f64>| Row {
            id: name.to_owned(),
            rank,
            cells: vec![
                Cell::word(name),
                Cell::word(note),
                Cell::maybe(rate, |rate| rate.to_string()),
            ],
            more: vec![("tags", format!("tag-of-{name}"))],
        };
        Table {
            columns: COLUMNS,
            rows: vec![
                row("b", 0, "two", Some(9.0)),
                row("a", 0, "", None),
                row("C", 0, "three", Some(10.0)),
                row("off", 1, "", Some(100.0)),
            ],
            nothing: String::new(),
        }
    }

    fn arranged(sort: Option<(usize, bool)>, filter: &str) -> Vec<String> {
        let mut table = table();
        let sort = sort.map(|(column, is_reversed)| Sort {
            column,
            is_reversed,
        });
        table.arrange(sort, filter);
        table.rows.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn numbers_begin_with_the_highest_words_with_a_and_nothing_comes_last() {
        assert_eq!(arranged(None, ""), ["b", "a", "C", "off"]);
        assert_eq!(arranged(Some((0, false)), ""), ["a", "b", "C", "off"]);
        assert_eq!(arranged(Some((2, false)), ""), ["C", "b", "a", "off"]);
        assert_eq!(arranged(Some((2, true)), ""), ["b", "C", "a", "off"]);
        assert_eq!(arranged(Some((9, false)), ""), ["b", "a", "C", "off"]);
    }

    #[test]
    fn a_filter_looks_everywhere_and_at_no_case() {
        assert_eq!(arranged(None, "T"), ["b", "a", "C", "off"]);
        assert_eq!(arranged(None, "THREE"), ["C"]);
        assert_eq!(arranged(None, "tag-of-b"), ["b"]);
        assert!(arranged(None, "nowhere").is_empty());
    }

    #[test]
    fn what_is_needed_least_goes_first_and_no_width_is_too_small() {
        let widths = |width| table().fit(width);
        assert_eq!(widths(80), [(0, 4), (1, 5), (2, 6)]);
        assert_eq!(widths(19), [(0, 4), (1, 5), (2, 6)]);
        assert_eq!(widths(18), [(0, 4), (2, 6)]);
        assert_eq!(widths(11), [(0, 4)]);
        assert_eq!(widths(3), [(0, 3)]);
        assert_eq!(widths(0), [(0, 0)]);
    }

    #[test]
    fn a_long_name_takes_only_room_that_nobody_else_needs() {
        let mut table = table();
        table.rows[0].cells[0] = Cell::word("a-very-long-name");
        assert_eq!(table.fit(24), [(0, 9), (1, 5), (2, 6)]);
        assert_eq!(table.fit(60), [(0, 16), (1, 5), (2, 6)]);
    }

    #[test]
    fn wide_characters_are_counted_as_what_they_take() {
        assert_eq!(width("日本"), 4);
        assert_eq!(shortened("日本語", 6), "日本語");
        assert_eq!(shortened("日本語", 5), "日本…");
        assert_eq!(shortened("日本語", 4), "日…");
        assert_eq!(shortened("abc", 2), "a…");
        assert_eq!(shortened("abc", 1), "…");
        assert_eq!(shortened("abc", 0), "");
    }
}
