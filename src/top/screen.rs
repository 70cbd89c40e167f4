//! Drawing it all into cells.

use std::time::Instant;

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    cover,
    header::{self, Room},
    known::Known,
    panes::Pane,
    table::{Column, GAP, Row, Table, Tone, shortened, width},
    view::{Cover, View},
};

/// From so many lines on there is room for bars.
const TALL: u16 = 16;
/// Rows that a table should have before anything stands above it.
const ROWS: u16 = 3;

/// What tones look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Palette {
    /// In a text there is nothing but letters.
    is_text: bool,
    has_colours: bool,
}

impl Palette {
    /// Letters alone.
    pub const PLAIN: Self = Self {
        is_text: true,
        has_colours: false,
    };

    /// For a terminal.
    pub fn terminal(has_colours: bool) -> Self {
        Self {
            is_text: false,
            has_colours,
        }
    }

    /// How a tone looks.
    pub fn style(self, tone: Tone) -> Style {
        if self.is_text {
            return Style::new();
        }
        let colour = |colour| match self.has_colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => colour(Color::Green),
            Tone::Fair => colour(Color::Yellow),
            Tone::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Faint => Style::new().add_modifier(Modifier::DIM),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    fn selection(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A line of pieces.
    pub fn line<'a>(self, pieces: &[(Tone, String)]) -> Line<'a> {
        let span = |(tone, text): &(Tone, String)| Span::styled(text.clone(), self.style(*tone));
        Line::from_iter(pieces.iter().map(span))
    }
}

/// What is to be drawn.
#[derive(Debug, Clone, Copy)]
pub struct Screen<'a> {
    /// What is known.
    pub known: &'a Known,
    /// How it looks.
    pub palette: Palette,
}

impl Screen<'_> {
    /// The whole screen, as somebody looks at it at this moment.
    pub fn draw(&self, view: &mut View, buffer: &mut Buffer, now: Instant) {
        let area = buffer.area;
        let room = if area.height < TALL {
            Room::Little
        } else {
            Room::Plenty
        };
        let mut pen = Pen::new(buffer);
        let above = header::lines(self.known, Some(now), area.width, room, self.palette);
        // Tabs, headings, rows and footer come first; what stands above them gets the rest.
        let spare = area.height.saturating_sub(3 + ROWS);
        for line in above.iter().take(spare.into()) {
            pen.line(line);
        }
        if area.height > ROWS {
            pen.line(&self.tabs(view.pane, area.width));
        }
        let footer = u16::from(area.height > 2);
        let body = area.height.saturating_sub(pen.y).saturating_sub(footer);
        self.draw_body(view, &mut pen, body);
        if footer > 0 {
            pen.y = area.height - 1;
            pen.line(&self.footer(view, area.width));
        }
    }

    /// Everything, without anybody who looks at it.
    pub fn draw_everything(&self, buffer: &mut Buffer) {
        let area = buffer.area;
        let mut pen = Pen::new(buffer);
        for line in header::lines(self.known, None, area.width, Room::Plenty, self.palette) {
            pen.line(&line);
        }
        for pane in Pane::ALL {
            pen.y += 1;
            let title = format!("{} {}", pane.title(), pane.count(self.known));
            pen.line(&self.palette.line(&[(Tone::Strong, title)]));
            let mut table = pane.table(self.known);
            table.arrange(None, "");
            let fitted = table.fit(area.width);
            self.draw_rows(&table, &fitted, &mut pen, area.height, None, None);
        }
    }

    fn tabs<'a>(&self, open: Pane, columns: u16) -> Line<'a> {
        let palette = self.palette;
        // Where there is no room for all titles, numbers lead there too.
        let tab = |pane: Pane, with_title: bool| match with_title {
            true => format!(
                " {} {} {} ",
                pane.number() + 1,
                pane.title(),
                pane.count(self.known)
            ),
            false => format!(" {} ", pane.number() + 1),
        };
        let all: u16 = Pane::ALL
            .into_iter()
            .map(|pane| width(&tab(pane, true)))
            .sum();
        let tabs = Pane::ALL.into_iter().map(|pane| {
            let style = match pane == open {
                true => palette.style(Tone::Strong).patch(palette.selection()),
                false => Style::new(),
            };
            Span::styled(tab(pane, pane == open || all <= columns), style)
        });
        Line::from_iter(tabs)
    }

    fn draw_body(&self, view: &mut View, pen: &mut Pen<'_>, lines: u16) {
        let columns = pen.buffer.area.width;
        let covering = match &view.cover {
            None => None,
            Some(Cover::Help) => Some(cover::help(self.palette)),
            Some(Cover::Details(id)) => Some(cover::details(
                view.pane,
                id,
                self.known,
                columns,
                self.palette,
            )),
        };
        match covering {
            Some(covering) => {
                let page = usize::from(lines);
                view.page = page.max(1);
                view.scrolled = view.scrolled.min(covering.len().saturating_sub(page));
                for line in covering.iter().skip(view.scrolled).take(page) {
                    pen.line(line);
                }
            }
            None => self.draw_pane(view, pen, lines),
        }
    }

    fn draw_pane(&self, view: &mut View, pen: &mut Pen<'_>, lines: u16) {
        let mut table = view.table(self.known);
        if !view.look().filter.is_empty() && table.rows.is_empty() {
            table.nothing = "nothing here contains that".to_owned();
        }
        // Widths are those of all rows, so that columns stand still while rows scroll.
        let fitted = table.fit(pen.buffer.area.width);
        view.columns = fitted.iter().map(|(column, _)| *column).collect();
        view.page = usize::from(lines.saturating_sub(1)).max(1);
        let page = view.page;
        let look = view.look_mut();
        let last_top = table.rows.len().saturating_sub(page);
        look.top = look
            .top
            .min(look.place)
            .max((look.place + 1).saturating_sub(page))
            .min(last_top);
        let (top, sort) = (look.top, look.sort);
        let selected = look
            .selected
            .is_some()
            .then(|| look.place.saturating_sub(top));
        table.rows.drain(..top);
        table.rows.truncate(page);
        let sorted = sort.map(|sort| (sort.column, sort.is_reversed));
        self.draw_rows(&table, &fitted, pen, lines, selected, sorted);
    }

    fn draw_rows(
        &self,
        table: &Table,
        fitted: &[(usize, u16)],
        pen: &mut Pen<'_>,
        lines: u16,
        selected: Option<usize>,
        sorted: Option<(usize, bool)>,
    ) {
        if lines == 0 {
            return;
        }
        if table.rows.is_empty() {
            return pen.line(&self.palette.line(&[(Tone::Faint, table.nothing.clone())]));
        }
        if lines > 1 {
            pen.line(&self.headings(table.columns, fitted, sorted));
        }
        for (number, row) in table.rows.iter().enumerate() {
            let y = pen.y;
            pen.line(&self.row(table.columns, row, fitted));
            if selected == Some(number) {
                pen.set_style(y, self.palette.selection());
            }
        }
    }

    fn headings<'a>(
        &self,
        columns: &[Column],
        fitted: &[(usize, u16)],
        sorted: Option<(usize, bool)>,
    ) -> Line<'a> {
        let strong = self.palette.style(Tone::Strong);
        let headings = fitted.iter().map(|&(number, wide)| {
            let column = &columns[number];
            let style = match sorted {
                Some((by, _)) if by == number => strong.patch(Modifier::UNDERLINED),
                Some(_) | None => strong,
            };
            spaced(column.heading, wide, column.is_number, style)
        });
        Line::from_iter(headings.flatten())
    }

    fn row<'a>(&self, columns: &[Column], row: &Row, fitted: &[(usize, u16)]) -> Line<'a> {
        let cells = fitted.iter().filter_map(|&(number, wide)| {
            let cell = row.cells.get(number)?;
            let style = self.palette.style(cell.tone);
            Some(spaced(&cell.text, wide, columns[number].is_number, style))
        });
        Line::from_iter(cells.flatten())
    }

    fn footer<'a>(&self, view: &View, columns: u16) -> Line<'a> {
        let palette = self.palette;
        let look = view.look();
        if view.is_typing {
            return palette.line(&[
                (Tone::Strong, format!("/{}▏", look.filter)),
                (Tone::Faint, "  Enter keeps it, Esc shows all".to_owned()),
            ]);
        }
        let mut hints = Vec::new();
        if !look.filter.is_empty() && view.cover.is_none() {
            hints.push((Tone::Strong, format!("/{}", look.filter)));
            hints.push((Tone::Faint, " Esc shows all".to_owned()));
        }
        if let (Some(sort), None) = (look.sort, &view.cover) {
            let table = view.pane.table(self.known);
            let column = &table.columns[sort.column];
            let direction = if column.is_number == sort.is_reversed {
                "↑"
            } else {
                "↓"
            };
            hints.push((Tone::Strong, format!("by {} {direction}", column.heading)));
        }
        let keys: &[&str] = match view.cover {
            Some(_) => &["Esc back", "↑↓ scroll"],
            None => &[
                "q quit",
                "? help",
                "/ filter",
                "s sort",
                "Enter details",
                "Tab next pane",
            ],
        };
        hints.extend(keys.iter().map(|key| (Tone::Faint, (*key).to_owned())));
        let mut shown: Vec<(Tone, String)> = Vec::new();
        let mut left = columns;
        for (tone, text) in hints {
            let wide = width(&text).saturating_add(GAP);
            if wide > left.saturating_add(GAP) {
                break;
            }
            left = left.saturating_sub(wide);
            shown.push((tone, text + &" ".repeat(GAP.into())));
        }
        palette.line(&shown)
    }
}

/// A cell as wide as its column, and the gap behind it.
fn spaced<'a>(text: &str, wide: u16, at_the_right: bool, style: Style) -> [Span<'a>; 3] {
    let text = shortened(text, wide);
    let pad = " ".repeat(usize::from(wide.saturating_sub(width(&text))));
    let gap = Span::raw(" ".repeat(GAP.into()));
    let text = Span::styled(text, style);
    match at_the_right {
        true => [Span::raw(pad), text, gap],
        false => [text, Span::raw(pad), gap],
    }
}

/// Writes one line below the other, as long as there is room.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    y: u16,
}

impl<'a> Pen<'a> {
    fn new(buffer: &'a mut Buffer) -> Self {
        Self { buffer, y: 0 }
    }

    fn line(&mut self, line: &Line<'_>) {
        let area = self.buffer.area;
        if self.y < area.height {
            self.buffer.set_line(0, self.y, line, area.width);
        }
        self.y = self.y.saturating_add(1);
    }

    fn set_style(&mut self, y: u16, style: Style) {
        let area = self.buffer.area;
        let line = Rect::new(0, y, area.width, 1).intersection(area);
        self.buffer.set_style(line, style);
    }
}

/// How many lines [`Screen::draw_everything`] takes at most.
pub fn full_height(known: &Known) -> u16 {
    const HEADER: usize = 5;
    // A line between, the title, the headings.
    const AROUND: usize = 3;
    let rows = |pane: Pane| pane.table(known).rows.len().max(1) + AROUND;
    let lines = HEADER + Pane::ALL.into_iter().map(rows).sum::<usize>();
    u16::try_from(lines).unwrap_or(u16::MAX)
}

/// The letters of all cells, without what is empty at the ends of lines and below them.
pub fn text_of(buffer: &Buffer) -> String {
    let area = buffer.area;
    let mut text = String::new();
    for y in 0..area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // The cells behind a wide character belong to it.
            x += width(symbol).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}
