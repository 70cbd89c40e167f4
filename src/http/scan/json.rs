//! A reader of JSON that keeps its place in a value, but not the value.
//!
//! It takes any bytes. What is not JSON means nothing to it, and it recovers with the next value.

use super::Found;

/// How deep keys are known. `choices[].delta.tool_calls[].function.arguments` lies at 7.
const DEPTH: usize = 8;
/// Bytes of a word that are kept. Names of models are shorter.
const WORD: usize = 256;
/// More than any context holds; what a server says beyond it is nonsense.
const MAX_TOKENS: u64 = 100_000_000;

/// Reads a JSON value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::http) struct Json {
    depth: usize,
    /// The latest key at each depth.
    keys: [Key; DEPTH + 1],
    place: Place,
    /// The string or literal that is being read, or was read last.
    word: Vec<u8>,
    /// More than fits was read of it.
    is_cut: bool,
    /// What was found so far.
    pub found: Found,
    /// A piece of an answer was among it.
    pub has_piece: bool,
}

/// Where in the text we are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Between,
    String,
    /// Behind a backslash.
    Escape,
    /// Behind a string: a key or a value, as the next sign says.
    AfterString,
    /// In a number, or in `true`, `false` or `null`.
    Literal,
}

/// The keys that matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Model,
    Usage,
    /// What newer interfaces wrap their answers in.
    Wrapper,
    Prompt,
    Completion,
    /// What is written.
    Piece,
}

impl Key {
    fn of(word: &[u8]) -> Self {
        match word {
            b"model" => Self::Model,
            b"usage" => Self::Usage,
            b"response" | b"message" => Self::Wrapper,
            b"prompt_tokens" | b"input_tokens" => Self::Prompt,
            b"completion_tokens" | b"output_tokens" => Self::Completion,
            b"content" | b"text" | b"delta" | b"reasoning" | b"reasoning_content" | b"refusal"
            | b"arguments" | b"partial_json" | b"thinking" => Self::Piece,
            _ => Self::Other,
        }
    }
}

impl Json {
    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    /// The next value begins; what was found is kept.
    pub fn restart(&mut self) {
        let found = std::mem::take(&mut self.found);
        let word = std::mem::take(&mut self.word);
        *self = Self {
            found,
            word,
            ..Self::default()
        };
        self.word.clear();
    }

    fn step(&mut self, byte: u8) {
        match self.place {
            Place::Escape => {
                self.keep(byte);
                self.place = Place::String;
            }
            Place::String => match byte {
                b'"' => self.place = Place::AfterString,
                b'\\' => {
                    self.keep(byte);
                    self.place = Place::Escape;
                }
                _ => self.keep(byte),
            },
            Place::Literal => match byte {
                b',' | b'}' | b']' | b':' | b'"' | b' ' | b'\t' | b'\r' | b'\n' => {
                    self.on_literal();
                    self.place = Place::Between;
                    self.step_between(byte);
                }
                _ => self.keep(byte),
            },
            Place::Between | Place::AfterString => self.step_between(byte),
        }
    }

    fn step_between(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return,
            b':' if self.place == Place::AfterString => {
                let key = match self.is_cut {
                    true => Key::Other,
                    false => Key::of(&self.word),
                };
                self.set_key(key);
            }
            b',' => {
                self.on_string();
                self.set_key(Key::Other);
            }
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                self.set_key(Key::Other);
            }
            b'}' | b']' => {
                self.on_string();
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {
                self.word.clear();
                self.is_cut = false;
                self.place = match byte {
                    b'"' => Place::String,
                    _ => {
                        self.keep(byte);
                        Place::Literal
                    }
                };
                return;
            }
        }
        self.place = Place::Between;
    }

    fn keep(&mut self, byte: u8) {
        match self.word.len() < WORD {
            true => self.word.push(byte),
            false => self.is_cut = true,
        }
    }

    fn set_key(&mut self, key: Key) {
        if let Some(slot) = self.keys.get_mut(self.depth) {
            *slot = key;
        }
    }

    fn key(&self, depth: usize) -> Key {
        self.keys.get(depth).copied().unwrap_or_default()
    }

    /// A string turned out to be a value.
    fn on_string(&mut self) {
        if self.place != Place::AfterString {
            return;
        }
        match self.key(self.depth) {
            Key::Model if self.depth == 1 && !self.is_cut => {
                if let Some(model) = decode(&self.word).and_then(|text| super::model_id(&text)) {
                    self.found.model = Some(model);
                }
            }
            Key::Piece => self.has_piece |= !self.word.is_empty(),
            Key::Model | Key::Usage | Key::Wrapper | Key::Prompt | Key::Completion | Key::Other => {
            }
        }
    }

    /// A literal has ended.
    fn on_literal(&mut self) {
        let in_usage = match self.depth {
            2 => self.key(1) == Key::Usage,
            3 => self.key(1) == Key::Wrapper && self.key(2) == Key::Usage,
            _ => false,
        };
        if !in_usage || self.is_cut {
            return;
        }
        let tokens = std::str::from_utf8(&self.word)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
            .map(|tokens| tokens.min(MAX_TOKENS));
        let Some(tokens) = tokens else {
            return;
        };
        match self.key(self.depth) {
            Key::Prompt => self.found.prompt_tokens = Some(tokens),
            Key::Completion => self.found.completion_tokens = Some(tokens),
            Key::Model | Key::Usage | Key::Wrapper | Key::Piece | Key::Other => {}
        }
    }
}

/// The text that a string without its quotes stands for.
fn decode(raw: &[u8]) -> Option<String> {
    let raw = std::str::from_utf8(raw).ok()?;
    match raw.contains('\\') {
        true => serde_json::from_str(&format!("\"{raw}\"")).ok(),
        false => Some(raw.to_owned()),
    }
}
