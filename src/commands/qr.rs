//! A text as a QR code made of half blocks, for a telephone to read off the terminal.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use terminal_size::{Height, Width, terminal_size_of};

/// White on black whatever the terminal's own colours are: readers want the quiet zone light.
const WHITE_ON_BLACK: &str = "\x1b[38;5;231;48;5;16m";
const PLAIN: &str = "\x1b[0m";

/// Shows `text` on standard error. Unless it was `asked` for, only where both outputs are one terminal that it fits.
pub fn show(text: &str, asked: bool) -> Result<()> {
    let err = std::io::stderr();
    if !asked && !(err.is_terminal() && std::io::stdout().is_terminal()) {
        return Ok(());
    }
    let code = draw(text);
    if !asked {
        let size = terminal_size_of(&err).map(|(Width(columns), Height(lines))| (columns, lines));
        let (Ok(code), Some(size)) = (&code, size) else {
            return Ok(());
        };
        if !fits(code, size) {
            return Ok(());
        }
    }
    let (before, after) = if err.is_terminal() {
        (WHITE_ON_BLACK, PLAIN)
    } else {
        ("", "")
    };
    let mut out = err.lock();
    for line in code?.lines() {
        // Nobody may be there to read it.
        let _ = writeln!(out, "{before}{line}{after}");
    }
    Ok(())
}

/// Light modules are drawn, dark ones left out.
fn draw(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .context("it is too long for a QR code")?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build())
}

/// With a line to spare for the prompt.
fn fits(code: &str, (columns, lines): (u16, u16)) -> bool {
    let width = code.lines().next().map_or(0, |line| line.chars().count());
    width <= usize::from(columns) && code.lines().count() < usize::from(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_square_with_a_light_border() {
        let code = draw("hive1abc").unwrap();
        let width = code.lines().next().unwrap().chars().count();
        assert!(code.lines().all(|line| line.chars().count() == width));
        // Two modules in each character's height.
        assert_eq!(code.lines().count(), width.div_ceil(2));
        let first = code.lines().next().unwrap();
        assert!(first.chars().all(|c| c == '█'), "the quiet zone: {first}");
    }

    #[test]
    fn an_invite_of_full_length_has_a_code_and_a_novel_has_none() {
        assert!(draw(&"x".repeat(800)).is_ok());
        assert!(draw(&"x".repeat(4000)).is_err());
    }

    #[test]
    fn a_code_that_is_larger_than_the_terminal_does_not_fit() {
        let code = draw(&"x".repeat(400)).unwrap();
        assert!(fits(&code, (200, 100)));
        assert!(!fits(&code, (80, 24)));
    }
}
