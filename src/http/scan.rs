//! Finds the few words and numbers that matter in requests and answers that pass, without holding anything of them back.
//!
//! The readers here see a body once, byte by byte, in whatever pieces it comes, and keep no more than the latest word of it.

use hyper::{HeaderMap, header};

mod form;
mod json;
mod sse;
#[cfg(test)]
mod tests;

pub use form::Form;
pub(super) use json::Json;
use sse::Sse;

/// What was found so far. What is said twice counts as it was said last: streams report as they go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The model that is named.
    pub model: Option<String>,
    /// Tokens read.
    pub prompt_tokens: Option<u64>,
    /// Tokens written.
    pub completion_tokens: Option<u64>,
    /// Events of a stream that carry a piece of the answer.
    pub pieces: u64,
}

/// Reads an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scan {
    /// One value.
    Json(Json),
    /// Server-sent events.
    Sse(Sse),
}

impl Scan {
    /// What reads a body with these headers, if anything does.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let is_plain = match headers.get(header::CONTENT_ENCODING) {
            None => true,
            Some(encoding) => encoding.as_bytes().eq_ignore_ascii_case(b"identity"),
        };
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = kind.split(';').next()?.trim();
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        match () {
            () if !is_plain => None,
            () if is("application/json") => Some(Self::Json(Json::default())),
            () if is("text/event-stream") => Some(Self::Sse(Sse::default())),
            () => None,
        }
    }

    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) {
        match self {
            Self::Json(json) => json.read(bytes),
            Self::Sse(sse) => sse.read(bytes),
        }
    }

    /// Pieces of the answer so far.
    pub fn pieces(&self) -> u64 {
        match self {
            Self::Json(_) => 0,
            Self::Sse(sse) => sse.pieces(),
        }
    }

    /// What was found, now that the body is over.
    pub fn finish(&mut self) -> Found {
        match self {
            Self::Json(json) => std::mem::take(&mut json.found),
            Self::Sse(sse) => sse.finish(),
        }
    }
}

/// A model's id that may be kept and shown: not empty, not long, and nothing in it that a terminal would obey.
pub(super) fn model_id(text: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let text = text.trim();
    let is_plain = !text.is_empty() && text.len() <= LONGEST && !text.chars().any(is_unseen);
    is_plain.then(|| text.to_owned())
}

/// Control characters, and those that change the direction of what follows or take no room.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
