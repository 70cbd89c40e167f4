//! From counters that only grow to what happened lately.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// A counter, and how fast it grows.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    last: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Meter {
    /// Takes the counter's value of a moment. Returns by how much it has grown: by nothing, if it was never read before or
    /// has begun anew.
    pub fn read(&mut self, count: u64, at: Instant) -> u64 {
        let grown = self.last.and_then(|(since, before)| {
            let seconds = at.saturating_duration_since(since).as_secs_f64();
            let grown = count.checked_sub(before)?;
            (seconds > 0.0).then_some((grown, seconds))
        });
        self.last = Some((at, count));
        self.rate = grown.map(|(grown, seconds)| grown as f64 / seconds);
        grown.map_or(0, |(grown, _)| grown)
    }

    /// What was read before says nothing about what will be.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// How much it grew in a second between the last two readings.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

/// How much time a bar stands for.
pub const BAR: Duration = Duration::from_secs(2);
/// Bars that are kept: ten minutes.
const BARS: u64 = 300;

/// What went by in the last minutes.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Where the first bar begins.
    start: Option<Instant>,
    /// Until when it is told.
    end: Option<Instant>,
    /// What went by in each bar's time, by its number.
    bars: BTreeMap<u64, f64>,
}

impl History {
    /// So much went by between two moments, evenly for all that is known.
    pub fn add(&mut self, from: Instant, to: Instant, amount: u64) {
        let start = *self.start.get_or_insert(from);
        self.end = Some(to);
        let length = BAR.as_secs_f64();
        let begin = from.saturating_duration_since(start).as_secs_f64() / length;
        let end = to.saturating_duration_since(start).as_secs_f64() / length;
        let newest = end as u64;
        let oldest = (newest + 1).saturating_sub(BARS);
        for bar in (begin as u64).max(oldest)..=newest {
            let overlap = end.min((bar + 1) as f64) - begin.max(bar as f64);
            if overlap > 0.0 {
                *self.bars.entry(bar).or_default() += amount as f64 * overlap / (end - begin);
            }
        }
        self.bars = self.bars.split_off(&oldest);
    }

    /// What went by in a second during each of the last bars, the newest last.
    pub fn rates(&self, count: usize) -> Vec<f64> {
        let (Some(start), Some(end)) = (self.start, self.end) else {
            return vec![0.0; count];
        };
        let told = end.saturating_duration_since(start).as_secs_f64() / BAR.as_secs_f64();
        // A moment on the border has begun nothing yet.
        let newest = (told.ceil() as u64).saturating_sub(1);
        let rate = |back: usize| {
            let Some(bar) = newest.checked_sub(back as u64) else {
                return 0.0;
            };
            let length = (told - bar as f64).min(1.0) * BAR.as_secs_f64();
            let amount = self.bars.get(&bar).copied().unwrap_or(0.0);
            if length > 0.0 { amount / length } else { 0.0 }
        };
        (0..count).rev().map(rate).collect()
    }
}

/// A line of bars, the highest of which stands for `most`. What is there at all is seen.
pub fn bars(rates: &[f64], most: f64) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let level = |&rate: &f64| {
        if rate <= 0.0 || most <= 0.0 {
            return ' ';
        }
        let level = (rate / most * LEVELS.len() as f64).ceil() as usize;
        LEVELS[level.clamp(1, LEVELS.len()) - 1]
    };
    rates.iter().map(level).collect()
}

/// For how long an event counts as one of late.
pub const LATELY: Duration = Duration::from_secs(60);

/// Counters by reason, and which of them have grown lately.
#[derive(Debug, Clone, Default)]
pub struct Growth {
    readings: VecDeque<(Instant, BTreeMap<String, u64>)>,
}

impl Growth {
    /// Takes the counters' values of a moment.
    pub fn read(&mut self, counts: &BTreeMap<String, u64>, at: Instant) {
        if let Some((_, before)) = self.readings.back() {
            let has_begun_anew = before
                .iter()
                .any(|(reason, before)| counts.get(reason).is_none_or(|count| count < before));
            if has_begun_anew {
                self.readings.clear();
            }
        }
        self.readings.push_back((at, counts.clone()));
        // The one before that minute is what the minute began with.
        while self.readings.len() > 2 && at.saturating_duration_since(self.readings[1].0) >= LATELY
        {
            self.readings.pop_front();
        }
    }

    /// All of them together, since the counting began.
    pub fn total(&self) -> u64 {
        let newest = self.readings.back();
        newest.map_or(0, |(_, counts)| {
            counts
                .values()
                .fold(0, |sum, count| sum.saturating_add(*count))
        })
    }

    /// What has grown in the last minute, and by how much, the most first.
    pub fn lately(&self) -> Vec<(&str, u64)> {
        let (Some((_, before)), Some((_, now))) = (self.readings.front(), self.readings.back())
        else {
            return Vec::new();
        };
        let mut grown: Vec<_> = now
            .iter()
            .map(|(reason, count)| {
                let before = before.get(reason).copied().unwrap_or(0);
                (reason.as_str(), count.saturating_sub(before))
            })
            .filter(|(_, grown)| *grown > 0)
            .collect();
        grown.sort_by_key(|(_, grown)| std::cmp::Reverse(*grown));
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_rate_takes_two_readings_and_is_not_negative_after_a_restart() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert_eq!((meter.read(1000, start), meter.rate()), (0, None));
        assert_eq!(meter.read(2000, start + seconds(0.5)), 1000);
        assert_eq!(meter.rate(), Some(2000.0));
        assert_eq!(meter.read(5, start + seconds(1.5)), 0);
        assert_eq!(meter.rate(), None, "the daemon counts from zero again");
        assert_eq!(meter.read(25, start + seconds(2.5)), 20);
        meter.forget();
        assert_eq!(meter.rate(), None);
    }

    #[test]
    fn two_readings_of_the_same_moment_are_no_rate() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.read(1, start);
        assert_eq!((meter.read(2, start), meter.rate()), (0, None));
    }

    #[test]
    fn a_steady_flow_is_a_level_line_however_often_it_is_read() {
        for step in [0.3, 1.0, 1.7, 5.0] {
            let (mut history, start) = (History::default(), Instant::now());
            let mut at = start;
            while at < start + seconds(60.0) {
                history.add(at, at + seconds(step), (step * 1000.0) as u64);
                at += seconds(step);
            }
            for (bar, rate) in history.rates(20).into_iter().enumerate() {
                assert!((rate - 1000.0).abs() < 1.0, "{step} s: bar {bar} is {rate}");
            }
        }
    }

    #[test]
    fn a_line_begins_empty_ends_with_now_and_is_not_kept_for_ever() {
        let (mut history, start) = (History::default(), Instant::now());
        assert_eq!(history.rates(2), [0.0, 0.0]);
        history.add(start, start + BAR, 10);
        history.add(start + BAR, start + 2 * BAR, 20);
        assert_eq!(history.rates(4), [0.0, 0.0, 5.0, 10.0]);
        let late = start + 10_000 * BAR;
        history.add(late, late + BAR, 20);
        assert!(history.bars.len() as u64 <= BARS);
        assert_eq!(history.rates(2), [0.0, 10.0]);
    }

    #[test]
    fn bars_show_the_least_there_is() {
        assert_eq!(bars(&[0.0, 0.1, 50.0, 100.0], 100.0), " ▁▄█");
        assert_eq!(bars(&[0.0], 0.0), " ");
    }

    #[test]
    fn what_has_grown_in_the_last_minute_is_named_the_most_first() {
        let (mut growth, start) = (Growth::default(), Instant::now());
        let counts = |policy: u64, replayed: u64| {
            [
                ("policy".to_owned(), policy),
                ("replayed".to_owned(), replayed),
            ]
            .into()
        };
        growth.read(&counts(7, 1), start);
        assert!(growth.lately().is_empty(), "that was before");
        growth.read(&counts(8, 9), start + seconds(10.0));
        assert_eq!(growth.lately(), [("replayed", 8), ("policy", 1)]);
        assert_eq!(growth.total(), 17);
        for later in 1..10 {
            growth.read(&counts(8, 9), start + seconds(10.0 * f64::from(later)));
        }
        assert!(growth.lately().is_empty(), "a minute has passed");
        growth.read(&counts(1, 0), start + seconds(100.0));
        assert!(growth.lately().is_empty(), "the daemon counts anew");
        assert_eq!(growth.total(), 1);
    }
}
