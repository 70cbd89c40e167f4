//! Values as people write them: names, rates, spans of time.

use std::{num::NonZeroU64, ops::RangeInclusive, time::Duration};

use libp2p::PeerId;

use super::ConfigError;

/// Shorter ones would be renewed all the time; longer ones outlive what is known of their owner.
const RESERVATIONS: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);

pub(super) fn parse<T: std::str::FromStr>(
    text: &str,
    option: &'static str,
    place: &str,
    expected: &str,
) -> Result<T, ConfigError> {
    text.parse().map_err(|_| ConfigError::Value {
        place: place.to_owned(),
        option,
        message: format!("'{text}' is not {expected}"),
    })
}

/// `50 MB/s` in bytes a second.
pub(super) fn parse_rate(text: &str, place: &str) -> Result<NonZeroU64, ConfigError> {
    const UNITS: [(&str, u64); 4] = [
        ("GB/s", 1_000_000_000),
        ("MB/s", 1_000_000),
        ("kB/s", 1_000),
        ("B/s", 1),
    ];
    let rate = UNITS.iter().find_map(|(unit, factor)| {
        let count: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        NonZeroU64::new(count.checked_mul(*factor)?)
    });
    rate.ok_or_else(|| ConfigError::Value {
        place: place.to_owned(),
        option: "underlay.relay_rate",
        message: format!(
            "'{text}' is no rate: a whole number above 0 and one of B/s, kB/s, MB/s, GB/s, such as '50 MB/s'"
        ),
    })
}

pub(super) fn parse_reservation(text: &str, place: &str) -> Result<Duration, ConfigError> {
    let span = parse_span(text).and_then(|span| {
        let is_fit = RESERVATIONS.contains(&span);
        is_fit
            .then_some(span)
            .ok_or_else(|| format!("'{text}' is out of range: between 60s and 1d"))
    });
    span.map_err(|message| ConfigError::Value {
        place: place.to_owned(),
        option: "underlay.relay_reservation",
        message,
    })
}

/// A span of time such as `24h`: a whole number and s, m, h or d; from a second to a year.
pub fn parse_span(text: &str) -> Result<Duration, String> {
    let unit = |c| match c {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(60 * 60),
        'd' => Some(24 * 60 * 60),
        _ => None,
    };
    let wrong =
        || format!("'{text}' is no span of time: write a number and s, m, h or d, e.g. 24h");
    let last = text.chars().next_back().ok_or_else(wrong)?;
    let seconds_each: u64 = unit(last).ok_or_else(wrong)?;
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds_each) {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(format!("'{text}' is out of range: between 1s and 365d")),
    }
}

pub(super) fn checked_member(text: String, place: &str) -> Result<String, ConfigError> {
    let is_id = text.parse::<PeerId>().is_ok();
    if is_id || hivevpn_core::membership::Name::parse(&text).is_ok() {
        return Ok(text);
    }
    Err(ConfigError::Value {
        place: place.to_owned(),
        option: "underlay.relay_members",
        message: format!(
            "'{text}' is neither a member's name nor a peer id ('hivevpn nodes --json' shows both)"
        ),
    })
}

pub(super) fn check_name(name: &str, option: &'static str, place: &str) -> Result<(), ConfigError> {
    hivevpn_core::membership::Name::parse(name)
        .map(drop)
        .map_err(|error| ConfigError::Value {
            place: place.to_owned(),
            option,
            message: error.to_string(),
        })
}
