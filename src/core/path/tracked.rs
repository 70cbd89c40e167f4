//! One path: whether it answers, how fast, and what it is asked next.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Path, PathKind, mtu::PathMtu};
use crate::signal;

/// How long the path in use goes unproven while packets flow: with [`MISSES`] and [`PATIENCE`] it bounds how long a
/// silent death goes unnoticed (about 4.5 s). Shorter costs datagrams on every pair, all the time.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// The same while no packets flow, and for a path that is not in use, so that it is known to work when it is needed. Below
/// the 30 s after which common NATs forget a UDP mapping, and so far below that a peer that died is known to be gone by
/// then.
pub(super) const IDLE_HEARTBEAT: Duration = Duration::from_secs(22);
/// An idle pair needs one that asks: who was asked, and answered, asks itself only when the next question is so much
/// overdue.
const SLACK: Duration = Duration::from_secs(1);
/// The least time a probe is given on a path that carries datagrams; longer on slow paths, see [`Tracked::patience`].
pub(super) const PATIENCE: Duration = Duration::from_millis(600);
/// The same on a carrier, whose queue can hold a probe back for a second.
pub(super) const CARRIER_PATIENCE: Duration = Duration::from_secs(1);
/// The first probes to an endpoint that has never answered follow each other faster, because the first of them may only
/// open a NAT: each waits twice as long as the one before.
const FIRST_PATIENCE: Duration = Duration::from_millis(250);
/// And the most: on a path that is slower still, answers come late and count all the same.
const MAX_PATIENCE: Duration = Duration::from_secs(2);
/// An answer that took longer waited for a machine that was asleep: it tells nothing about the way.
const MAX_SAMPLE: Duration = Duration::from_secs(5);
/// A path by which the peer said nothing for so long, while it asks by another, is asked whether it still lives.
const QUIET: Duration = Duration::from_secs(3);
/// Unanswered probes in a row that make a path dead.
const MISSES: u32 = 3;
/// The same for an endpoint that has never answered: all over after 3.75 s.
const FIRST_MISSES: u32 = 4;
/// A dead path is tried again this often.
pub(super) const RETRY: Duration = Duration::from_secs(10);
/// Probes given up that may still be answered: on a path that is slower than our patience every answer comes late.
const MAX_LATE: usize = 4;

/// A probe that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What its answer will say.
    pub number: u64,
    /// When it left.
    pub sent: Instant,
    /// The packet's length in bytes.
    pub length: u16,
}

/// A probe that wants to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueProbe {
    /// By which path.
    pub path: Path,
    /// What the answer must say.
    pub number: u64,
    /// The packet's length in bytes.
    pub length: u16,
}

/// What a path wants to know now, with the length of the probe.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    /// Does it live?
    Heartbeat(u16),
    /// Does it carry packets of this length?
    Length(u16),
}

/// A path that is kept in view.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) path: Path,
    pub(super) kind: PathKind,
    /// Something outside vouches for it (a connection, a relay's word): it stays listed even when it does not answer.
    pub(super) anchored: bool,
    /// An authentic datagram came by it.
    pub(super) heard: bool,
    pub(super) proven: bool,
    /// It was proven before the network below may have changed, and has not been found wanting since.
    pub(super) suspected: bool,
    pub(super) mtu: PathMtu,
    misses: u32,
    rtt: Option<Duration>,
    /// The shortest round trip of late: what the way takes when no queue is in it.
    best_rtt: Option<Duration>,
    /// When it last answered.
    answered: Option<Instant>,
    silent_since: Option<Instant>,
    asked_by_peer: Option<Instant>,
    outstanding: Option<Ask>,
    late: VecDeque<Ask>,
    /// When it was last probed; `None` wants a probe at once.
    probed: Option<Instant>,
}

impl Tracked {
    pub(super) fn new(path: Path, kind: PathKind, anchored: bool, interface_mtu: u16) -> Self {
        Self {
            path,
            kind,
            anchored,
            heard: false,
            proven: false,
            suspected: false,
            mtu: PathMtu::new(interface_mtu),
            misses: 0,
            rtt: None,
            best_rtt: None,
            answered: None,
            silent_since: None,
            asked_by_peer: None,
            outstanding: None,
            late: VecDeque::new(),
            probed: None,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        let limit = if self.has_answered() {
            MISSES
        } else {
            FIRST_MISSES
        };
        self.misses < limit
    }

    pub(super) fn has_answered(&self) -> bool {
        self.rtt.is_some()
    }

    /// A probe is missing.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.misses > 0
    }

    /// Smoothed round trip, once measured.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// What the way takes when no queue is in it, once measured.
    pub(super) fn best_rtt(&self) -> Option<Duration> {
        self.best_rtt
    }

    /// Wants a probe at once.
    pub(super) fn doubt(&mut self) {
        self.probed = None;
    }

    /// When the first of the probes left that were not answered in a row.
    pub(super) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }

    /// It counts as proven no longer if its last answer is not later than `then`.
    pub(super) fn expect_answer_since(&mut self, then: Option<Instant>) {
        if self.is_alive() && self.answered <= then {
            self.proven = false;
            self.probed = None;
        }
    }

    /// The network below may be another one: it has to prove itself again, now.
    pub(super) fn suspect(&mut self) {
        self.suspected |= self.proven;
        self.proven = false;
        self.probed = None;
        if let Some(ask) = self.outstanding.take() {
            self.give_up(ask);
        }
    }

    fn give_up(&mut self, ask: Ask) {
        if self.late.len() >= MAX_LATE {
            self.late.pop_front();
        }
        self.late.push_back(ask);
    }

    /// Whether datagrams go by it as they are: then it has an MTU, and its own patience.
    fn carries_datagrams(&self) -> bool {
        match self.path {
            Path::Direct(_) | Path::Relayed { .. } => true,
            Path::Carrier(_) => false,
        }
    }

    /// What vouches for it, or the next attempt, gives it another chance.
    pub(super) fn revive(&mut self) {
        if !self.is_alive() {
            self.misses = 0;
            self.probed = None;
        }
    }

    /// How long an answer may take.
    pub(super) fn patience(&self) -> Duration {
        let least = if self.carries_datagrams() {
            PATIENCE
        } else {
            CARRIER_PATIENCE
        };
        match self.rtt {
            Some(rtt) => least.max(rtt * 4).min(MAX_PATIENCE.max(least)),
            None if self.carries_datagrams() => FIRST_PATIENCE * (1 << self.misses.min(8)),
            None => least,
        }
    }

    /// How long after a probe the next one follows.
    fn gap(&self, in_use: bool, flowing: bool) -> Duration {
        match (self.is_alive(), in_use, flowing) {
            (false, _, _) => RETRY,
            (true, false, _) | (true, true, false) => IDLE_HEARTBEAT,
            (true, true, true) => HEARTBEAT,
        }
    }

    /// When the next heartbeat is due, or at once. The peer's questions make ours superfluous while nothing flows.
    fn next_heartbeat(&self, in_use: bool, flowing: bool) -> Option<Instant> {
        let own = self.probed? + self.gap(in_use, flowing);
        let is_idle = self.proven && !self.is_in_doubt() && !(in_use && flowing);
        let theirs = self.asked_by_peer.filter(|_| is_idle);
        Some(theirs.map_or(own, |at| own.max(at + IDLE_HEARTBEAT + SLACK)))
    }

    /// The peer has asked by this path, and was answered.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_by_peer = Some(now);
    }

    /// Whether the peer has not said anything by it lately.
    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        let last = self.answered.max(self.asked_by_peer);
        last.is_none_or(|at| now >= at + QUIET)
    }

    /// Whether its MTU may be searched for: lost probes mean something only while others come back.
    fn is_searchable(&self) -> bool {
        self.carries_datagrams() && self.proven && self.misses == 0
    }

    /// When it has something to ask or to give up next, as things stand now.
    pub(super) fn next_due(&self, now: Instant, in_use: bool, flowing: bool) -> Instant {
        let heartbeat = match self.outstanding {
            Some(ask) => ask.sent + self.patience(),
            None => self.next_heartbeat(in_use, flowing).unwrap_or(now),
        };
        let search = self.mtu.next_expiry(self.patience()).or_else(|| {
            self.mtu
                .next_due(now, in_use && flowing)
                .filter(|_| self.is_searchable())
        });
        search.map_or(heartbeat, |at| at.min(heartbeat))
    }

    /// What it wants to know now. `in_use` and `flowing` say whether packets go this way, and whether there are any.
    pub(super) fn question(
        &mut self,
        now: Instant,
        in_use: bool,
        flowing: bool,
    ) -> Option<Question> {
        let guards_packets = in_use && flowing;
        let heartbeat = self.next_heartbeat(in_use, flowing);
        if self.outstanding.is_none() && heartbeat.is_none_or(|due| now >= due) {
            return Some(Question::Heartbeat(self.heartbeat_length(guards_packets)));
        }
        if !self.is_searchable() {
            return None;
        }
        self.mtu.due(now, guards_packets).map(Question::Length)
    }

    /// As long as what it must show to pass; as short as can be where nothing is to be shown but life. An endpoint that
    /// nobody vouches for gets no long probe before the peer was heard from there: somebody else may be.
    fn heartbeat_length(&self, guards_packets: bool) -> u16 {
        if !self.carries_datagrams() || self.proven && !guards_packets {
            signal::ASK_LENGTH
        } else if self.proven && self.misses == 0 {
            self.mtu.proven()
        } else if self.proven || self.anchored || self.heard {
            self.mtu.minimum()
        } else {
            signal::ASK_LENGTH
        }
    }

    /// The shortest probe that proves the path. A carrier takes packets of any length.
    fn proof_length(&self) -> u16 {
        if self.carries_datagrams() {
            self.mtu.minimum()
        } else {
            signal::ASK_LENGTH
        }
    }

    pub(super) fn asks(&mut self, question: Question, number: u64, now: Instant) -> DueProbe {
        let (Question::Heartbeat(length) | Question::Length(length)) = question;
        let ask = Ask {
            number,
            sent: now,
            length,
        };
        match question {
            Question::Heartbeat(_) => {
                self.outstanding = Some(ask);
                self.probed = Some(now);
            }
            Question::Length(_) => self.mtu.asked(ask),
        }
        DueProbe {
            path: self.path,
            number,
            length,
        }
    }

    /// Counts an answer that did not come in time; says whether one was missed just now.
    pub(super) fn misses_answer(&mut self, now: Instant) -> bool {
        let patience = self.patience();
        self.mtu.expire(now, patience);
        let Some(ask) = self.outstanding.take_if(|ask| now >= ask.sent + patience) else {
            return false;
        };
        self.give_up(ask);
        self.silent_since.get_or_insert(ask.sent);
        self.suspected = false;
        self.misses = self.misses.saturating_add(1);
        if self.is_alive() {
            self.probed = None;
            self.mtu.doubt(ask.length);
        } else {
            self.proven = false;
            self.mtu.forget();
        }
        true
    }

    /// Takes the answer with this number, if it is for a probe of ours; returns how long it took.
    pub(super) fn takes_answer(&mut self, number: u64, now: Instant) -> Option<Duration> {
        let is_this = |ask: &Ask| ask.number == number;
        let late = self.late.iter().position(is_this);
        let ask = late
            .and_then(|at| self.late.remove(at))
            .or_else(|| self.outstanding.take_if(|ask| is_this(ask)))
            .or_else(|| self.mtu.answered(number))?;
        let sample = now.saturating_duration_since(ask.sent);
        let (rtt, best) = (self.rtt.unwrap_or(sample), self.best_rtt.unwrap_or(sample));
        if sample < MAX_SAMPLE || self.rtt.is_none() {
            self.rtt = Some((rtt * 3 + sample) / 4);
            // A way that has become longer is believed after some samples.
            self.best_rtt = Some(sample.min(best + best / 8));
        }
        self.misses = 0;
        self.answered = Some(now);
        self.silent_since = None;
        self.suspected = false;
        self.heard = true;
        self.mtu.passed(ask.length);
        if ask.length >= self.proof_length() {
            self.proven = true;
        } else if !self.proven {
            // It lives, but that alone is no proof.
            self.probed = None;
            self.outstanding = None;
        }
        Some(sample)
    }
}
