//! A reader of forms (multipart/form-data, RFC 7578) that keeps its place and two short fields, but no file.
//!
//! It takes any bytes. What is no form has no fields.

use std::ops::Range;

use hyper::{HeaderMap, header};

/// Longest boundary, RFC 2046 section 5.1.1.
const BOUNDARY: usize = 70;
/// Bytes of a part's header that are read.
const HEADER: usize = 1024;
/// Bytes of a field that are kept. Names of models are shorter.
const VALUE: usize = 256;

/// A form has no boundary between its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Content-Type 'multipart/form-data' names no 'boundary'")]
pub struct NoBoundary;

/// Reads a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Form {
    /// What stands before each part, its end of line included.
    delimiter: Vec<u8>,
    /// Bytes of it that were just read.
    matched: usize,
    place: Place,
    /// Of the part that is being read, if it matters.
    field: Option<Field>,
    /// The header or the field that is being read.
    text: Vec<u8>,
    /// Where the part's content begins.
    begin: usize,
    /// Bytes that were read.
    offset: usize,
    /// The model, and where in the form it stands. Of several the last, as it is for most servers.
    pub model: Option<(String, Range<usize>)>,
    /// Whether the answer is to be a stream.
    pub is_stream: bool,
}

/// Where in the form we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a part, or before the first one.
    Content,
    /// Behind a delimiter, on the same line.
    Border,
    /// In a part's headers.
    Head,
    /// Behind the last part.
    End,
}

/// The fields that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
}

impl Form {
    /// What reads a body with these headers, if that is a form.
    pub fn of(headers: &HeaderMap) -> Option<Result<Self, NoBoundary>> {
        let content = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let kind = content.split(';').next()?.trim();
        kind.eq_ignore_ascii_case("multipart/form-data").then(|| {
            let boundary = parameter(content, "boundary").ok_or(NoBoundary)?;
            let is_one = (1..=BOUNDARY).contains(&boundary.len())
                && boundary.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            is_one.then(|| Self::new(&boundary)).ok_or(NoBoundary)
        })
    }

    fn new(boundary: &str) -> Self {
        Self {
            delimiter: format!("\r\n--{boundary}").into_bytes(),
            // Before the first one there need not be a line.
            matched: b"\r\n".len(),
            place: Place::Content,
            field: None,
            text: Vec::new(),
            begin: 0,
            offset: 0,
            model: None,
            is_stream: false,
        }
    }

    /// Whether all of it was read.
    pub fn is_whole(&self) -> bool {
        self.place == Place::End
    }

    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            // Nothing in a file matters up to what may be a delimiter.
            if self.place == Place::Content && self.field.is_none() && self.matched == 0 {
                let skipped = rest.iter().position(|byte| *byte == b'\r');
                let skipped = skipped.unwrap_or(rest.len());
                if skipped > 0 {
                    self.offset += skipped;
                    rest = &rest[skipped..];
                    continue;
                }
            }
            self.step(*byte);
            self.offset += 1;
            rest = &rest[1..];
        }
    }

    fn step(&mut self, byte: u8) {
        match self.place {
            Place::Content => self.step_in_content(byte),
            Place::Border => {
                self.keep(byte, HEADER);
                if self.text == b"--" {
                    self.place = Place::End;
                } else if byte == b'\n' {
                    // Something else behind it, and it was none.
                    self.place = match self.text.trim_ascii().is_empty() {
                        true => Place::Head,
                        false => Place::Content,
                    };
                    self.text.clear();
                }
            }
            Place::Head if byte == b'\n' => {
                let text = std::mem::take(&mut self.text);
                let line = text.trim_ascii();
                if line.is_empty() {
                    self.place = Place::Content;
                    self.begin = self.offset + 1;
                } else {
                    self.field = Field::of(line).or(self.field);
                }
            }
            Place::Head => self.keep(byte, HEADER),
            Place::End => {}
        }
    }

    fn step_in_content(&mut self, byte: u8) {
        if self.field.is_some() {
            let longest = VALUE + self.delimiter.len();
            match self.text.len() < longest {
                true => self.text.push(byte),
                false => self.field = None,
            }
        }
        if self.delimiter.get(self.matched) == Some(&byte) {
            self.matched += 1;
        } else {
            // It begins with the only '\r' in it.
            self.matched = usize::from(byte == b'\r');
        }
        if self.matched == self.delimiter.len() {
            self.on_part();
            self.matched = 0;
            self.text.clear();
            self.place = Place::Border;
        }
    }

    fn keep(&mut self, byte: u8, longest: usize) {
        if self.text.len() < longest {
            self.text.push(byte);
        }
    }

    /// A part has ended.
    fn on_part(&mut self) {
        let Some(field) = self.field.take() else {
            return;
        };
        let value = self.text.strip_suffix(self.delimiter.as_slice());
        let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) else {
            return;
        };
        match field {
            Field::Model => {
                let place = self.begin..self.begin + value.len();
                self.model = Some((value.to_owned(), place));
            }
            Field::Stream => self.is_stream = value.eq_ignore_ascii_case("true"),
        }
    }
}

impl Field {
    /// The field whose part has this header.
    fn of(line: &[u8]) -> Option<Self> {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        if !name.trim().eq_ignore_ascii_case("content-disposition") {
            return None;
        }
        match parameter(value, "name")?.as_str() {
            "model" => Some(Self::Model),
            "stream" => Some(Self::Stream),
            _ => None,
        }
    }
}

/// A parameter of a header (RFC 9110 section 5.6.6).
fn parameter(header: &str, wanted: &str) -> Option<String> {
    let (_, mut rest) = header.split_once(';')?;
    loop {
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = match behind.trim_start().strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = behind.find(';').unwrap_or(behind.len());
                let (value, behind) = behind.split_at(end);
                (value.trim().to_owned(), behind)
            }
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = behind.trim_start().strip_prefix(';')?;
    }
}

/// The text up to the closing quotation mark, and what stands behind that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut signs = text.char_indices();
    loop {
        match signs.next()? {
            (at, '"') => return Some((value, &text[at + 1..])),
            (_, '\\') => value.push(signs.next()?.1),
            (_, sign) => value.push(sign),
        }
    }
}

#[cfg(test)]
mod tests;
