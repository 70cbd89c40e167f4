//! Which of it the user looks at, and how. Keys change it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    asking::Wanted,
    known::Known,
    panes::Pane,
    table::{Sort, Table},
};

/// How one pane is looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// What the selected row is about, once one was selected.
    pub selected: Option<String>,
    /// Where that was: its neighbour is selected when it goes.
    pub place: usize,
    /// The first row on the screen.
    pub top: usize,
    /// The order, unless it is the pane's own.
    pub sort: Option<Sort>,
    /// What rows must contain.
    pub filter: String,
}

/// What covers the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cover {
    /// The keys.
    Help,
    /// Everything about a row, by its id.
    Details(String),
}

/// What the user looks at.
#[derive(Debug, Clone)]
pub struct View {
    /// The pane.
    pub pane: Pane,
    looks: [Look; Pane::ALL.len()],
    /// What covers it.
    pub cover: Option<Cover>,
    /// Lines of the cover that are scrolled away.
    pub scrolled: usize,
    /// Whether keys are letters of the filter.
    pub is_typing: bool,
    /// Rows on the screen, as it was drawn last.
    pub page: usize,
    /// Columns on the screen, as it was drawn last.
    pub columns: Vec<usize>,
}

/// What a key leads to, beside another view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// On it goes.
    Go,
    /// Everything is to be drawn again.
    Redraw,
    /// The user has seen enough.
    Quit,
}

impl Default for View {
    fn default() -> Self {
        Self {
            pane: Pane::Peers,
            looks: Default::default(),
            cover: None,
            scrolled: 0,
            is_typing: false,
            page: 1,
            columns: Vec::new(),
        }
    }
}

impl View {
    /// How the pane is looked at.
    pub fn look(&self) -> &Look {
        &self.looks[self.pane.number()]
    }

    /// As [`Self::look`], to change it.
    pub fn look_mut(&mut self) -> &mut Look {
        &mut self.looks[self.pane.number()]
    }

    /// The pane's table as it is to be shown. The selection moves to a row that is there.
    pub fn table(&mut self, known: &Known) -> Table {
        let mut table = self.pane.table(known);
        let look = self.look_mut();
        table.arrange(look.sort, &look.filter);
        let found = look
            .selected
            .as_ref()
            .and_then(|id| table.rows.iter().position(|row| row.id == *id));
        look.place = found
            .unwrap_or(look.place)
            .min(table.rows.len().saturating_sub(1));
        if look.selected.is_some() {
            look.selected = table.rows.get(look.place).map(|row| row.id.clone());
        }
        table
    }

    /// What is to be asked for.
    pub fn wanted(&self) -> Wanted {
        let peer = match (&self.cover, self.pane) {
            (Some(Cover::Details(id)), Pane::Peers) => Some(id.clone()),
            (Some(Cover::Details(_) | Cover::Help) | None, _) => None,
        };
        Wanted {
            pane: self.pane,
            peer,
        }
    }

    /// What a key changes.
    pub fn press(&mut self, key: KeyEvent, known: &Known) -> Next {
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if with_control => Next::Quit,
            KeyCode::Char('l') if with_control => Next::Redraw,
            code if self.is_typing => self.type_filter(code, with_control),
            KeyCode::Char(_) if with_control => Next::Go,
            code if self.cover.is_some() => self.press_on_cover(code),
            code => self.press_on_table(code, known),
        }
    }

    fn type_filter(&mut self, code: KeyCode, with_control: bool) -> Next {
        let filter = &mut self.look_mut().filter;
        match code {
            KeyCode::Char('u') if with_control => filter.clear(),
            KeyCode::Char(letter) if !with_control => filter.push(letter),
            KeyCode::Backspace => drop(filter.pop()),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                filter.clear();
                self.is_typing = false;
            }
            _ => {}
        }
        Next::Go
    }

    fn press_on_cover(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Char('q' | '?') | KeyCode::Esc | KeyCode::Enter => self.cover = None,
            KeyCode::Down | KeyCode::Char('j') => self.scrolled = self.scrolled.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown | KeyCode::Char(' ') => {
                self.scrolled = self.scrolled.saturating_add(self.page);
            }
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(self.page),
            KeyCode::Home | KeyCode::Char('g') => self.scrolled = 0,
            KeyCode::End | KeyCode::Char('G') => self.scrolled = usize::MAX,
            _ => {}
        }
        Next::Go
    }

    fn press_on_table(&mut self, code: KeyCode, known: &Known) -> Next {
        let number = self.pane.number();
        let last = Pane::ALL.len() - 1;
        match code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char(digit @ '1'..='9') => {
                let number = digit as usize - '1' as usize;
                self.pane = Pane::ALL.get(number).copied().unwrap_or(self.pane);
            }
            KeyCode::Tab | KeyCode::Right => {
                self.pane = Pane::ALL[if number == last { 0 } else { number + 1 }];
            }
            KeyCode::BackTab | KeyCode::Left => {
                self.pane = Pane::ALL[number.checked_sub(1).unwrap_or(last)];
            }
            KeyCode::Down | KeyCode::Char('j') => self.select(known, |place| place + 1),
            KeyCode::Up | KeyCode::Char('k') => self.select(known, |place| place.saturating_sub(1)),
            KeyCode::PageDown | KeyCode::Char(' ') => {
                let page = self.page;
                self.select(known, |place| place.saturating_add(page));
            }
            KeyCode::PageUp => {
                let page = self.page;
                self.select(known, |place| place.saturating_sub(page));
            }
            KeyCode::Home | KeyCode::Char('g') => self.select(known, |_| 0),
            KeyCode::End | KeyCode::Char('G') => self.select(known, |_| usize::MAX),
            KeyCode::Char('s') => self.sort_by_next(),
            KeyCode::Char('r') => {
                if let Some(sort) = &mut self.look_mut().sort {
                    sort.is_reversed = !sort.is_reversed;
                }
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => self.look_mut().filter.clear(),
            KeyCode::Char('?') | KeyCode::F(1) => self.show(Cover::Help),
            KeyCode::Enter => {
                self.select(known, |place| place);
                if let Some(id) = self.look().selected.clone() {
                    self.show(Cover::Details(id));
                }
            }
            _ => {}
        }
        Next::Go
    }

    fn show(&mut self, cover: Cover) {
        self.cover = Some(cover);
        self.scrolled = 0;
    }

    fn select(&mut self, known: &Known, place: impl FnOnce(usize) -> usize) {
        let table = self.table(known);
        let look = self.look_mut();
        look.place = place(look.place).min(table.rows.len().saturating_sub(1));
        look.selected = table.rows.get(look.place).map(|row| row.id.clone());
    }

    /// From the pane's own order through all columns on the screen, and back to it.
    fn sort_by_next(&mut self) {
        let columns = &self.columns;
        let next = match self.look().sort {
            None => columns.first(),
            Some(sort) => columns.iter().find(|column| **column > sort.column),
        };
        let next = next.copied();
        self.look_mut().sort = next.map(|column| Sort {
            column,
            is_reversed: false,
        });
    }
}
