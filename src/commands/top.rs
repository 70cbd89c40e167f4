//! `hivevpn top`

use std::io::IsTerminal;

use anyhow::Result;
use terminal_size::{Width, terminal_size_of};

use super::{BadUsage, Paint};
use crate::{
    cli::TopArgs,
    control::Daemon,
    top::{self, screen::Palette},
};

/// The width of a picture that is for no terminal.
const WIDTH: u16 = 100;

/// Shows the node live, or one picture of it.
pub fn run(args: &TopArgs, daemon: &Daemon) -> Result<()> {
    let stdout = std::io::stdout();
    if args.once {
        let width = terminal_size_of(&stdout).map(|(Width(columns), _)| columns);
        let width = width.filter(|columns| *columns > 0).unwrap_or(WIDTH);
        return super::print(&top::once(daemon, args.interval, width)?);
    }
    if !stdout.is_terminal() {
        return Err(BadUsage(
            "standard output is no terminal to draw on: 'hivevpn top --once' prints one picture as text, \
             'hivevpn status --json' is for programs"
                .to_owned(),
        )
        .into());
    }
    let Paint(has_colours) = Paint::for_stdout();
    top::run(daemon, args.interval, Palette::terminal(has_colours))
}
