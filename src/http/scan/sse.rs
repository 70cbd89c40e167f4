//! A reader of server-sent events whose data is JSON.

use super::{Found, Json};

const DATA: &[u8] = b"data:";

/// Reads a stream of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::http) struct Sse {
    json: Json,
    line: Line,
    /// The latest byte was a carriage return: a line feed belongs to it.
    after_return: bool,
}

/// What the line is, as far as it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes of [`DATA`], and nothing else.
    Begins(usize),
    /// Data.
    Data,
    /// Something else.
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Self::Begins(0)
    }
}

impl Sse {
    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    /// Events so far that carry a piece of an answer.
    pub fn pieces(&self) -> u64 {
        self.json.found.pieces
    }

    /// What was found. An event that was not ended counts as well.
    pub fn finish(&mut self) -> Found {
        self.end_event();
        std::mem::take(&mut self.json.found)
    }

    fn step(&mut self, byte: u8) {
        let belongs_to_return = self.after_return && byte == b'\n';
        self.after_return = byte == b'\r';
        if belongs_to_return {
            return;
        }
        self.line = match (self.line, byte) {
            (line, b'\r' | b'\n') => {
                match line {
                    Line::Begins(0) => self.end_event(),
                    Line::Data => self.json.read(b"\n"),
                    Line::Begins(_) | Line::Other => {}
                }
                Line::default()
            }
            (Line::Begins(read), byte) if DATA.get(read) == Some(&byte) => match read + 1 {
                all if all == DATA.len() => Line::Data,
                some => Line::Begins(some),
            },
            (Line::Begins(_) | Line::Other, _) => Line::Other,
            (Line::Data, byte) => {
                self.json.read(&[byte]);
                Line::Data
            }
        };
    }

    fn end_event(&mut self) {
        if self.json.has_piece {
            self.json.found.pieces += 1;
        }
        self.json.restart();
    }
}
