//! `hivevpn top`: this node as it is at the moment, on a screen that keeps up.
//!
//! 1. [`asking`]: a thread asks the daemon once an interval, and passes on what it heard.
//! 2. [`known`] puts that together. Counters become rates and a line of bars ([`rates`]).
//! 3. [`panes`] makes [tables](table) of it. [`view`] is which of them the user looks at, and how: keys change it.
//! 4. [`screen`] draws all that into cells, with what stands above the tables ([`header`]) or covers them ([`cover`]).
//! 5. [`terminal`] owns the terminal, and gives it back in every case.
//!
//! Only the first and the last of them touch anything outside. What is between is computed from answers and the moments at
//! which they came, so that tests drive it by hand.

use std::{thread, time::Duration};

use anyhow::Result;
use ratatui::{buffer::Buffer, layout::Rect};

use crate::control::Daemon;

pub mod asking;
pub mod cover;
pub mod header;
pub mod known;
pub mod panes;
pub mod rates;
pub mod screen;
pub mod table;
pub mod terminal;
pub mod view;

#[cfg(test)]
mod tests;

use asking::Asker;
use known::Known;
use screen::{Palette, Screen};

/// Another node lets nobody ask all the time, and a round is several questions.
const ELSEWHERE: Duration = Duration::from_secs(2);

/// Shows the daemon's node until the user has seen enough.
pub fn run(daemon: &Daemon, interval: Duration, palette: Palette) -> Result<()> {
    terminal::run(daemon, pace(daemon, interval), palette)
}

/// One picture as plain text: everything there is, as wide as that. It takes one interval, because rates do.
pub fn once(daemon: &Daemon, interval: Duration, width: u16) -> Result<String> {
    let asker = Asker::new(daemon.clone());
    let mut known = Known::default();
    known.hear(asker.status_or_error()?);
    thread::sleep(pace(daemon, interval));
    known.hear(asker.status_or_error()?);
    for heard in asker.everything_else() {
        known.hear(heard);
    }
    Ok(picture(&known, width))
}

/// All panes of what is known, one below the other.
fn picture(known: &Known, width: u16) -> String {
    let screen = Screen {
        known,
        palette: Palette::PLAIN,
    };
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, screen::full_height(known)));
    screen.draw_everything(&mut buffer);
    screen::text_of(&buffer)
}

fn pace(daemon: &Daemon, interval: Duration) -> Duration {
    match daemon.on {
        None => interval,
        Some(_) => interval.max(ELSEWHERE),
    }
}
