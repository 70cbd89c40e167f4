//! Rules that a node may add to those that all entries obey: when, how many, where, by whom, how long.
//!
//! A rule holds for the keys that a [`KeyPattern`] matches. All predicates of all rules that match a key must hold, for an
//! entry that arrives as for one that is read. A tombstone needs to obey none of them: whoever may not write any more may
//! still delete.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use super::validator::{Candidate, Validator};
use crate::membership::{Name, Rejection, UnixTime};

/// Bytes of a pattern.
const MAX_PATTERN: usize = 255;
/// What stands for the owner's name.
const OWNER: &str = "{owner}";
const DAY: u32 = 24 * 60 * 60;

/// Which keys are meant: `weather/*/today`, `sensors/**`, `homes/{owner}/**`.
///
/// `*` is any number of characters within a part, `**` any number of parts, none included. `{owner}` is the name in the
/// owner's certificate, if it is its own; else the pattern matches nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern(String);

/// A text is no [`KeyPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a pattern of keys: use parts of a-z, 0-9, '.', '_', '-', '*' and {{owner}}, or '**' alone, joined by '/'"
)]
pub struct InvalidPattern(String);

impl KeyPattern {
    /// The pattern that `text` spells.
    pub fn parse(text: &str) -> Result<KeyPattern, InvalidPattern> {
        let is_allowed = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '*')
        };
        let is_part = |part: &str| {
            let plain = part.replace(OWNER, "");
            !part.is_empty()
                && plain.chars().all(is_allowed)
                && (part == "**" || !part.contains("**"))
        };
        match text.len() <= MAX_PATTERN && text.split('/').all(is_part) {
            true => Ok(KeyPattern(text.to_owned())),
            false => Err(InvalidPattern(text.chars().take(80).collect())),
        }
    }

    /// Whether it matches `key`, kept by somebody of this name.
    pub fn matches(&self, key: &str, owner: Option<&Name>) -> bool {
        let pattern = match (self.0.contains(OWNER), owner) {
            (false, _) => Cow::Borrowed(self.0.as_str()),
            (true, Some(name)) => Cow::Owned(self.0.replace(OWNER, name.as_str())),
            (true, None) => return false,
        };
        let pattern: Vec<&str> = pattern.split('/').collect();
        let parts: Vec<&str> = key.split('/').collect();
        let is_part = |pattern: &&str, part: &&str| glob(pattern.as_bytes(), part.as_bytes());
        wild(&pattern, &parts, |pattern| *pattern == "**", is_part)
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    wild(pattern, text, |b| *b == b'*', |a, b| a == b)
}

/// Whether `pattern` matches the whole of `text`, where an item that is wild matches any number of items. Takes no more
/// steps than there are pairs of items: after a mismatch, only the last wild item needs to try again.
fn wild<P, T>(
    pattern: &[P],
    text: &[T],
    is_wild: impl Fn(&P) -> bool,
    is_same: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        if pattern.get(p).is_some_and(&is_wild) {
            retry = Some((p, t));
            p += 1;
        } else if pattern.get(p).is_some_and(|item| is_same(item, &text[t])) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            (p, t) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_wild)
}

impl fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for KeyPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        KeyPattern::parse(text)
    }
}

/// As a predicate: the keys of the rule must match this as well.
impl Validator for KeyPattern {
    fn name(&self) -> &str {
        "key-pattern"
    }

    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        match self.matches(candidate.entry.key.as_str(), candidate.owner_name()) {
            true => Ok(()),
            false => Err(Rejection::KeyForbidden),
        }
    }
}

/// When entries may be written, and are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeWindow {
    /// Every day between these seconds of the day, UTC, the second one not included; over midnight, if the second is
    /// the smaller one.
    Daily {
        /// Seconds after midnight.
        from: u32,
        /// Seconds after midnight.
        until: u32,
    },
    /// Once, the second moment not included.
    Once {
        /// From here on.
        from: UnixTime,
        /// Until here.
        until: UnixTime,
    },
}

impl TimeWindow {
    /// Whether it is open.
    pub fn is_open(&self, now: UnixTime) -> bool {
        match *self {
            TimeWindow::Daily { from, until } => {
                let second = (now.0 % u64::from(DAY)) as u32;
                match from <= until {
                    true => (from..until).contains(&second),
                    false => second >= from || second < until,
                }
            }
            TimeWindow::Once { from, until } => (from..until).contains(&now),
        }
    }
}

impl Validator for TimeWindow {
    fn name(&self) -> &str {
        "time-window"
    }

    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        match self.is_open(candidate.now) {
            true => Ok(()),
            false => Err(Rejection::OutsideWindow),
        }
    }

    fn depends_on_time(&self) -> bool {
        true
    }
}

/// How many entries one owner may have under a pattern at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Which entries count.
    pub keys: KeyPattern,
    /// So many.
    pub most: usize,
}

impl Validator for Quota {
    fn name(&self) -> &str {
        "quota"
    }

    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        let owner = candidate.owner_name();
        let matches = |key: &str| self.keys.matches(key, owner);
        if !matches(candidate.entry.key.as_str()) {
            return Ok(());
        }
        let others = candidate.others();
        let counted = others.filter(|entry| matches(entry.key.as_str()));
        match counted.count() < self.most {
            true => Ok(()),
            false => Err(Rejection::QuotaExceeded),
        }
    }
}

/// The owner's certificate must put it into this group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role(pub Name);

impl Validator for Role {
    fn name(&self) -> &str {
        "role"
    }

    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        match candidate.certificate.groups.contains(&self.0) {
            true => Ok(()),
            false => Err(Rejection::RoleMissing),
        }
    }
}

/// The longest value, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxBytes(pub usize);

impl Validator for MaxBytes {
    fn name(&self) -> &str {
        "max-bytes"
    }

    fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        match &candidate.entry.value {
            Some(value) if value.len() > self.0 => Err(Rejection::TooLarge { limit: self.0 }),
            Some(_) | None => Ok(()),
        }
    }
}

/// The rules of a node. Without any, all members may write whatever they like under their own name.
#[derive(Debug, Clone, Default)]
pub struct Rules(Vec<Rule>);

#[derive(Debug, Clone)]
struct Rule {
    keys: KeyPattern,
    predicates: Vec<Arc<dyn Validator>>,
}

impl Rules {
    /// No rules.
    pub fn new() -> Rules {
        Rules::default()
    }

    /// With one more rule: for these keys, all of these must hold.
    #[must_use]
    pub fn with(mut self, keys: KeyPattern, predicates: Vec<Arc<dyn Validator>>) -> Rules {
        self.0.push(Rule { keys, predicates });
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the passing of time alone may change what they say.
    pub fn depend_on_time(&self) -> bool {
        let mut predicates = self.0.iter().flat_map(|rule| &rule.predicates);
        predicates.any(|predicate| predicate.depends_on_time())
    }

    /// Whether all rules allow it; if not, the first that does not.
    pub fn validate(&self, candidate: &Candidate<'_>) -> Result<(), Rejection> {
        if candidate.entry.is_tombstone() {
            return Ok(());
        }
        let (key, owner) = (candidate.entry.key.as_str(), candidate.owner_name());
        let rules = self.0.iter().filter(|rule| rule.keys.matches(key, owner));
        for predicate in rules.flat_map(|rule| &rule.predicates) {
            predicate.validate(candidate)?;
        }
        Ok(())
    }
}
