//! `[registry]`: what entries must obey on this node, beside what they must everywhere.

use std::{ops::Range, sync::Arc};

use hivevpn_core::{
    membership::{Name, UnixTime},
    registry::{
        Rules,
        entry::MAX_VALUE,
        predicates::{KeyPattern, MaxBytes, Quota, Role, TimeWindow},
        validator::Validator,
    },
};
use serde::Deserialize;
use toml::value::{Date, Datetime, Offset, Time};

use super::{ConfigError, file::Spanned, values::worded};

/// Entries of one owner that a quota may allow: more than anybody may have.
const MAX_QUOTA: u64 = 65_536;
const HOUR: u32 = 60 * 60;

/// As it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RegistrySection {
    rule: Vec<RuleSection>,
}

/// All that it says must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSection {
    keys: Spanned<String>,
    within: Option<Spanned<String>>,
    #[serde(default, alias = "roles")]
    groups: Vec<Spanned<String>>,
    hours: Option<Spanned<String>>,
    from: Option<Spanned<Datetime>>,
    until: Option<Spanned<Datetime>>,
    quota: Option<Spanned<u64>>,
    max_bytes: Option<Spanned<u64>>,
}

impl RegistrySection {
    /// What it means; `place` tells where in the file something is.
    pub(super) fn rules(
        self,
        place: impl Fn(Range<usize>) -> String,
    ) -> Result<Rules, ConfigError> {
        let mut rules = Rules::new();
        for rule in self.rule {
            let keys = pattern(&rule.keys, "registry.rule.keys", &place)?;
            let predicates = rule.predicates(&keys, &place)?;
            rules = rules.with(keys, predicates);
        }
        Ok(rules)
    }
}

impl RuleSection {
    fn predicates(
        self,
        keys: &KeyPattern,
        place: &impl Fn(Range<usize>) -> String,
    ) -> Result<Vec<Arc<dyn Validator>>, ConfigError> {
        let mut predicates: Vec<Arc<dyn Validator>> = Vec::new();
        for group in &self.groups {
            let at = place(group.span());
            let group: Name = worded(group.get_ref(), "registry.rule.groups", &at)?;
            predicates.push(Arc::new(Role(group)));
        }
        if let Some(within) = &self.within {
            let within = pattern(within, "registry.rule.within", place)?;
            predicates.push(Arc::new(within));
        }
        if let Some(hours) = &self.hours {
            let wrong = |message| wrong("registry.rule.hours", place(hours.span()), message);
            predicates.push(Arc::new(daily(hours.get_ref()).map_err(wrong)?));
        }
        if let Some(window) = self.once(place)? {
            predicates.push(Arc::new(window));
        }
        if let Some(quota) = &self.quota {
            let most = bounded(quota, 0..=MAX_QUOTA, "registry.rule.quota", place)?;
            let keys = keys.clone();
            predicates.push(Arc::new(Quota { keys, most }));
        }
        if let Some(bytes) = &self.max_bytes {
            let range = 0..=MAX_VALUE as u64;
            let most = bounded(bytes, range, "registry.rule.max_bytes", place)?;
            predicates.push(Arc::new(MaxBytes(most)));
        }
        if predicates.is_empty() {
            let message = "the rule asks for nothing: add groups, within, hours, from, until, quota or max_bytes";
            return Err(wrong(
                "registry.rule",
                place(self.keys.span()),
                message.to_owned(),
            ));
        }
        Ok(predicates)
    }

    fn once(
        &self,
        place: &impl Fn(Range<usize>) -> String,
    ) -> Result<Option<TimeWindow>, ConfigError> {
        let moment = |at: &Option<Spanned<Datetime>>, option, without| match at {
            None => Ok(without),
            Some(at) => {
                unix_time(at.get_ref()).map_err(|message| wrong(option, place(at.span()), message))
            }
        };
        let from = moment(&self.from, "registry.rule.from", UnixTime(0))?;
        let until = moment(&self.until, "registry.rule.until", UnixTime(u64::MAX))?;
        match (&self.from, &self.until) {
            (None, None) => Ok(None),
            (Some(_), Some(end)) if until <= from => Err(wrong(
                "registry.rule.until",
                place(end.span()),
                "it is over before it begins".to_owned(),
            )),
            (Some(_), _) | (_, Some(_)) => Ok(Some(TimeWindow::Once { from, until })),
        }
    }
}

fn wrong(option: &'static str, place: String, message: String) -> ConfigError {
    ConfigError::Value {
        place,
        option,
        message,
    }
}

fn pattern(
    text: &Spanned<String>,
    option: &'static str,
    place: &impl Fn(Range<usize>) -> String,
) -> Result<KeyPattern, ConfigError> {
    worded(text.get_ref(), option, &place(text.span()))
}

fn bounded(
    number: &Spanned<u64>,
    range: std::ops::RangeInclusive<u64>,
    option: &'static str,
    place: &impl Fn(Range<usize>) -> String,
) -> Result<usize, ConfigError> {
    let fit = range.contains(number.get_ref());
    let fit = fit.then(|| usize::try_from(*number.get_ref()).ok());
    fit.flatten().ok_or_else(|| {
        let (value, most) = (number.get_ref(), range.end());
        let message = format!("{value} is out of range: at most {most}");
        wrong(option, place(number.span()), message)
    })
}

/// `08:00-18:00`, UTC; `22:00-06:00` is over midnight.
fn daily(text: &str) -> Result<TimeWindow, String> {
    let moment = |text: &str| {
        let (hours, minutes) = text.split_once(':')?;
        let number = |text: &str, below: u32| {
            let number: u32 = (text.len() == 2).then(|| text.parse().ok())??;
            (number < below).then_some(number)
        };
        let seconds = number(hours, 25)? * HOUR + number(minutes, 60)? * 60;
        (seconds <= 24 * HOUR).then_some(seconds)
    };
    let window = text.split_once('-').and_then(|(from, until)| {
        let (from, until) = (moment(from)?, moment(until)?);
        (from != until).then_some(TimeWindow::Daily { from, until })
    });
    window.ok_or_else(|| {
        format!(
            "'{text}' is no part of the day: write two different moments (UTC) such as 08:00-18:00"
        )
    })
}

/// TOML knows dates (midnight UTC), moments without an offset (UTC), and moments with one.
fn unix_time(moment: &Datetime) -> Result<UnixTime, String> {
    let Datetime { date, time, offset } = moment;
    let Some(date) = date else {
        return Err(format!(
            "'{moment}' has no date: write one such as 2027-01-31 or 2027-01-31T08:00:00Z"
        ));
    };
    let Time {
        hour,
        minute,
        second,
        ..
    } = time.unwrap_or(Time {
        hour: 0,
        minute: 0,
        second: Some(0),
        nanosecond: Some(0),
    });
    let minutes = match offset {
        Some(Offset::Custom { minutes }) => i64::from(*minutes),
        Some(Offset::Z) | None => 0,
    };
    let of_day = (i64::from(hour) * 60 + i64::from(minute) - minutes) * 60;
    let seconds = days_since_1970(*date) * i64::from(24 * HOUR)
        + of_day
        + i64::from(second.unwrap_or_default());
    u64::try_from(seconds)
        .map(UnixTime)
        .map_err(|_| format!("'{moment}' is before 1970"))
}

/// Of the Gregorian calendar.
fn days_since_1970(date: Date) -> i64 {
    let (year, month, day) = (
        i64::from(date.year),
        i64::from(date.month),
        i64::from(date.day),
    );
    // The year begins in March, so that the leap day is its last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let to_march = (153 * month + 2) / 5;
    365 * year + leap_days + to_march + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn from_text(text: &str) -> Result<Rules, String> {
        let config = Config::of_text(Path::new("network.toml"), text);
        config
            .map(|config| config.registry)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_asks_for_all_that_it_says() {
        let rules = from_text(
            "[[registry.rule]]\nkeys = \"weather/**\"\ngroups = [\"sensors\", \"roof\"]\nhours = \"08:00-18:00\"\n\
             from = 2026-01-01\nuntil = 2027-01-01T00:00:00+01:00\nquota = 10\nmax_bytes = 1024\n\
             [[registry.rule]]\nkeys = \"homes/**\"\nwithin = \"homes/{owner}/**\"\nroles = [\"people\"]\n",
        );
        let shown = format!("{:?}", rules.unwrap());
        for part in [
            "sensors",
            "roof",
            "Daily { from: 28800, until: 64800 }",
            "Once { from: UnixTime(1767225600), until: UnixTime(1798758000) }",
            "most: 10",
            "MaxBytes(1024)",
            "homes/{owner}/**",
            "people",
        ] {
            assert!(shown.contains(part), "no {part} in {shown}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (line, part) in [
            ("keys = \"Weather\"\nquota = 1", "2: registry.rule.keys"),
            ("keys = \"a\"", "asks for nothing"),
            (
                "keys = \"a\"\ngroups = [\"My Group\"]",
                "3: registry.rule.groups",
            ),
            ("keys = \"a\"\nhours = \"8-18\"", "3: registry.rule.hours"),
            (
                "keys = \"a\"\nhours = \"08:00-08:00\"",
                "3: registry.rule.hours",
            ),
            ("keys = \"a\"\nfrom = 08:00:00", "has no date"),
            (
                "keys = \"a\"\nfrom = 2027-01-01\nuntil = 2026-01-01",
                "4: registry.rule.until",
            ),
            (
                "keys = \"a\"\nmax_bytes = 100000",
                "3: registry.rule.max_bytes",
            ),
            ("keys = \"a\"\nquota = 1\nunknown = 1", "network.toml:4"),
        ] {
            let why = from_text(&format!("[[registry.rule]]\n{line}\n")).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
        }
    }

    #[test]
    fn days_are_counted_through_leap_years() {
        for (year, month, day, days) in [
            (1970, 1, 1, 0),
            (2000, 2, 29, 11_016),
            (2000, 3, 1, 11_017),
            (2100, 3, 1, 47_541),
        ] {
            assert_eq!(days_since_1970(Date { year, month, day }), days);
        }
    }
}
