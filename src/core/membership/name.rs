//! Names of networks, members and groups: one DNS label each, lower case.
//!
//! What a person typed or a machine calls itself becomes a name by [`Name::sanitised`]; what
//! arrives in a signed object must be one already.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Length of a DNS label, RFC 1035 section 2.3.4.
const MAX_LEN: usize = 63;

/// 1 to 63 of `a-z`, `0-9` and `-`, neither starting nor ending with `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A string is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a name: use 1 to 63 of a-z, 0-9 and '-', and neither start nor end it with '-'"
)]
pub struct InvalidName(String);

impl Name {
    /// The name that `text` spells.
    pub fn parse(text: &str) -> Result<Name, InvalidName> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let valid = (1..=MAX_LEN).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if valid {
            Ok(Name(text.to_owned()))
        } else {
            Err(InvalidName(text.chars().take(MAX_LEN + 1).collect()))
        }
    }

    /// The nearest name to what a machine calls itself: the first label of a host name, in lower
    /// case, everything else turned into single dashes. None when nothing is left.
    pub fn sanitised(text: &str) -> Option<Name> {
        let label = text.trim().split('.').next().unwrap_or_default();
        let mut name = String::new();
        for c in label.chars() {
            if name.len() == MAX_LEN {
                break;
            }
            if c.is_ascii_alphanumeric() {
                name.push(c.to_ascii_lowercase());
            } else if !name.is_empty() && !name.ends_with('-') {
                name.push('-');
            }
        }
        Name::parse(name.trim_end_matches('-')).ok()
    }

    /// This name with `-suffix` behind it, shortened so that both fit.
    pub(super) fn with_suffix(&self, suffix: &str) -> Name {
        debug_assert!(suffix.len() < MAX_LEN / 2 && suffix.bytes().all(|b| b.is_ascii_hexdigit()));
        let room = MAX_LEN - 1 - suffix.len();
        let base = &self.0[..self.0.len().min(room)];
        Name(format!("{}-{suffix}", base.trim_end_matches('-')))
    }

    /// The characters of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Name, InvalidName> {
        Name::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<C> Encode<C> for Name {
    fn encode<W: encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Name {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        Name::parse(d.str()?).map_err(decode::Error::message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_one_dns_label_in_lower_case() {
        for good in ["a", "gpu", "gpu-2", "7", &"x".repeat(63)] {
            assert_eq!(Name::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "GPU", "a.b", "a b", "ü", &"x".repeat(64)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_become_names() {
        let sanitised = |text| Name::sanitised(text).map(|name| name.to_string());
        assert_eq!(sanitised("Gpu-Box.fritz.box").unwrap(), "gpu-box");
        assert_eq!(
            sanitised("Anna's MacBook Pro").unwrap(),
            "anna-s-macbook-pro"
        );
        assert_eq!(sanitised(" --x-- ").unwrap(), "x");
        assert_eq!(sanitised("日本"), None);
        assert_eq!(sanitised(""), None);
    }

    proptest! {
        #[test]
        fn whatever_is_sanitised_is_a_name(text in any::<String>()) {
            if let Some(name) = Name::sanitised(&text) {
                prop_assert!(Name::parse(name.as_str()).is_ok());
            }
        }

        #[test]
        fn a_suffixed_name_is_a_name(text in "[a-z0-9][a-z0-9-]{0,61}[a-z0-9]", n in any::<u32>()) {
            let name = Name::parse(&text).unwrap().with_suffix(&n.to_string());
            prop_assert!(Name::parse(name.as_str()).is_ok());
        }
    }
}
