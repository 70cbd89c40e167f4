//! What entries are found by.

use std::{borrow::Borrow, fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::membership::Name;

/// Bytes of a whole key.
const MAX_LEN: usize = 255;
/// Bytes of one part.
const MAX_PART: usize = 63;
/// Where services lie.
const SERVICES: &str = "svc";

/// One to eight parts of `a-z`, `0-9`, `.`, `_` and `-`, joined by `/`: `weather/berlin`. At most 255 bytes, and 63 a part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// A text is not a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a key: use up to eight parts of a-z, 0-9, '.', '_' and '-', joined by '/'")]
pub struct InvalidKey(String);

impl Key {
    /// The key that `text` spells.
    pub fn parse(text: &str) -> Result<Key, InvalidKey> {
        let is_allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
        let is_part =
            |part: &str| (1..=MAX_PART).contains(&part.len()) && part.bytes().all(is_allowed);
        let valid =
            text.len() <= MAX_LEN && text.split('/').count() <= 8 && text.split('/').all(is_part);
        if valid {
            Ok(Key(text.to_owned()))
        } else {
            Err(InvalidKey(text.chars().take(80).collect()))
        }
    }

    /// Where the service of this name lies.
    pub fn of_service(name: &Name) -> Key {
        Key(format!("{SERVICES}/{name}"))
    }

    /// The name of the service that lies here, if one does.
    pub fn service(&self) -> Option<Name> {
        let name = self.0.strip_prefix(SERVICES)?.strip_prefix('/')?;
        Name::parse(name).ok()
    }

    /// Whether only services may lie here.
    pub fn is_for_services(&self) -> bool {
        self.0.split('/').next() == Some(SERVICES)
    }

    /// As people write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Keys are in the order of their texts.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Key {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        Key::parse(text)
    }
}

impl<C> Encode<C> for Key {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Key {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Key::parse(d.str()?).map_err(|_| decode::Error::message("not a key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_few_plain_parts() {
        for good in ["a", "svc/llm", "weather/berlin/2026-11", "a.b_c-d/0"] {
            assert_eq!(Key::parse(good).unwrap().to_string(), good);
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "ä",
            "a b",
            "a/b/c/d/e/f/g/h/i",
            &long,
        ] {
            assert!(Key::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn services_have_a_place_of_their_own() {
        let llm = Name::parse("llm").unwrap();
        let key = Key::of_service(&llm);
        assert_eq!(key.as_str(), "svc/llm");
        assert_eq!(key.service(), Some(llm));
        assert!(key.is_for_services());
        let odd = Key::parse("svc/a/b").unwrap();
        assert_eq!(odd.service(), None);
        assert!(odd.is_for_services());
        assert!(!Key::parse("svcs/a").unwrap().is_for_services());
    }
}
