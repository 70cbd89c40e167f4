//! How long a packet one direct path carries: datagram path MTU discovery in the spirit of RFC 8899.
//!
//! Nobody tells us when a datagram was too long: it is lost like any other. So we ask, with probes of the length in
//! question, and what comes back is known to fit. A path is proven with [`MIN_PACKET`]; less would be no path for IPv6.
//! Then the *search* tries the interface's whole MTU, and if that fails halves the window between what fits and what
//! does not. Search probes say nothing about whether the path lives, only about lengths.
//!
//! Until a full-size probe was lost the path is *trusted* with full-size packets, because nearly every path carries
//! them. Later the route may change to a narrower one: then the path in use, whose heartbeats are as long as its
//! packets, misses one, while short ones come back. That is *doubt*, and one more lost probe of that length confirms
//! it: back to the proven minimum, and search again.
//!
//! Driving it: [`PathMtu::due`] says which length to ask for ([`PathMtu::next_due`] when), [`PathMtu::asked`], [`PathMtu::answered`],
//! [`PathMtu::passed`], [`PathMtu::expire`], [`PathMtu::doubt`] and [`PathMtu::forget`] say what happened.

use std::time::{Duration, Instant};

use super::Ask;
use crate::signal;

/// Every path must carry packets of this length: the smallest MTU that IPv6 allows (RFC 8200 §5).
pub const MIN_PACKET: u16 = 1280;
/// A search ends when it knows the MTU this well: the last few bytes are not worth the time of their probes.
const GRANULARITY: u16 = 8;
/// So often a length is asked for before it counts as too long: once could be chance.
const ATTEMPTS: u8 = 2;
/// A path that carries less than the interface could send is tried again this often (RFC 8899 §5.1.1).
const RAISE_AFTER: Duration = Duration::from_secs(600);

/// What is known of the lengths that one path carries. All are lengths of packets, in bytes.
#[derive(Debug)]
pub struct PathMtu {
    /// The interface's MTU: more is never asked for.
    limit: u16,
    /// The longest that came back, or what the first proof asks for.
    carries: u16,
    /// Nothing longer is tried.
    ceiling: u16,
    trusted: bool,
    doubted: bool,
    outstanding: Option<Ask>,
    /// The probe that was given up last: if it comes back all the same, so much the better.
    late: Option<Ask>,
    /// Probes in a row of the length in question that were lost.
    losses: u8,
    /// When the last search ended.
    settled: Option<Instant>,
}

impl PathMtu {
    /// Nothing is known yet. `limit` is the interface's MTU.
    pub fn new(limit: u16) -> Self {
        let limit = limit.max(signal::ASK_LENGTH);
        Self {
            limit,
            carries: limit.min(MIN_PACKET),
            ceiling: limit,
            trusted: true,
            doubted: false,
            outstanding: None,
            late: None,
            losses: 0,
            settled: None,
        }
    }

    /// The longest packet that the path carries now, as far as we know.
    pub fn get(&self) -> u16 {
        if self.trusted {
            self.limit
        } else {
            self.carries
        }
    }

    /// The length that proves a path.
    pub fn minimum(&self) -> u16 {
        self.limit.min(MIN_PACKET)
    }

    /// The longest packet that is known to pass: the length of heartbeats that guard the packets.
    pub fn proven(&self) -> u16 {
        self.carries
    }

    /// The length to ask for now, if any; only for a path that answers. While packets are `flowing` a narrow path is
    /// tried again from time to time.
    pub fn due(&mut self, now: Instant, flowing: bool) -> Option<u16> {
        if self.outstanding.is_some() {
            return None;
        }
        if let Some(length) = self.wanted() {
            return Some(length);
        }
        let settled = *self.settled.get_or_insert(now);
        if self.carries == self.limit || !flowing || now < settled + RAISE_AFTER {
            return None;
        }
        self.settled = None;
        self.ceiling = self.limit;
        self.wanted()
    }

    /// When [`due`](Self::due) has something to ask next, as things stand now.
    pub fn next_due(&self, now: Instant, flowing: bool) -> Option<Instant> {
        if self.outstanding.is_some() {
            None
        } else if self.wanted().is_some() {
            Some(now)
        } else if self.carries < self.limit && flowing {
            Some(self.settled.map_or(now, |at| at + RAISE_AFTER))
        } else {
            None
        }
    }

    /// When [`expire`](Self::expire) gives up next, as things stand now.
    pub fn next_expiry(&self, patience: Duration) -> Option<Instant> {
        self.outstanding.map(|ask| ask.sent + patience)
    }

    fn wanted(&self) -> Option<u16> {
        let window = self.ceiling.saturating_sub(self.carries);
        if self.doubted {
            Some(self.carries)
        } else if window > 0 && self.ceiling == self.limit {
            Some(self.limit)
        } else if window > GRANULARITY {
            Some(self.carries + window.div_ceil(2))
        } else {
            None
        }
    }

    /// The probe that was due is on its way.
    pub fn asked(&mut self, ask: Ask) {
        self.outstanding = Some(ask);
    }

    /// The probe with this number came back, if it is one of ours.
    pub fn answered(&mut self, number: u64) -> Option<Ask> {
        let is_this = |ask: &mut Ask| ask.number == number;
        let ask = self
            .outstanding
            .take_if(is_this)
            .or_else(|| self.late.take_if(is_this))?;
        self.passed(ask.length);
        Some(ask)
    }

    /// A probe of this length came back, whatever it was sent for.
    pub fn passed(&mut self, length: u16) {
        if length > self.carries || self.doubted && length == self.carries {
            self.carries = length.min(self.limit);
            self.ceiling = self.ceiling.max(self.carries);
            self.doubted = false;
            self.losses = 0;
        }
    }

    /// Gives up a probe that is out for longer than `patience`.
    pub fn expire(&mut self, now: Instant, patience: Duration) {
        let Some(ask) = self.outstanding.take_if(|ask| now >= ask.sent + patience) else {
            return;
        };
        self.late = Some(ask);
        if ask.length == self.limit {
            self.trusted = false;
        }
        self.losses += 1;
        if self.losses < ATTEMPTS {
            return;
        }
        self.losses = 0;
        self.ceiling = ask.length.saturating_sub(1).max(self.minimum());
        if self.doubted {
            self.doubted = false;
            self.trusted = false;
            self.carries = self.minimum();
            self.settled = None;
        }
    }

    /// A heartbeat of this length was missed. If the path lives, does it still carry such packets?
    pub fn doubt(&mut self, length: u16) {
        if length == self.carries && length > self.minimum() {
            self.late = self.outstanding.take();
            self.doubted = true;
            self.losses = 1;
        }
    }

    /// The path died. What comes back may be another route: nothing is known of it, but what was no full-size path
    /// is not trusted to be one.
    pub fn forget(&mut self) {
        *self = Self {
            trusted: self.get() == self.limit,
            late: self.outstanding.take().or(self.late),
            ..Self::new(self.limit)
        };
    }
}

#[cfg(test)]
mod tests;
