//! The ways to one peer, and which of them carries the tunnel now.
//!
//! A WireGuard session does not care by which path a datagram came, so paths change under a live session. A
//! path is *opened* by what the shell reports (a QUIC connection, whose 4-tuple raw datagrams share; a carrier
//! stream on a connection), by a member that relays, by an authentic datagram from a new address (roaming), or by an
//! *attempt*: both ends call each other with their [candidates](candidate) and probe each other's at the same time, which
//! opens the NATs between them. It is *proven* by a probe inside the session that came back. Proof both ways is what makes
//! a path worth switching to; missing proof several times in a row is what takes it out of use. Nothing unauthenticated
//! ever touches this state.
//!
//! A path for datagrams is proven with packets that IPv6 demands of every link, so that one which loses them never takes
//! over from a carrier that does not. How long packets may be beyond that is what [`mtu`] finds out.
//!
//! As long as no direct path is in use attempts are made, ever more rarely, and at once after news: another candidate,
//! a path that died, a network that changed. Among paths of one kind the faster one wins, if it is clearly faster.
//!
//! Driving it: [`Paths::open`], [`Paths::learn`], [`Paths::heard`], [`Paths::pong`] and [`Paths::close`] feed it,
//! [`Paths::due_probe`] and [`Paths::due_attempt`] say what to send, [`Paths::current`] says where packets go.

mod attempts;
pub mod candidate;
pub mod mtu;
mod tracked;
pub mod view;

use std::{
    cmp::Reverse,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use self::{
    attempts::Attempts,
    candidate::{Candidate, CandidateKind, Candidates, Outcome},
    tracked::Tracked,
};
pub use self::{
    tracked::{Ask, DueProbe},
    view::PathView,
};
use crate::{connection::ConnectionId, relay::Channel};

/// A pair without packets for this long beats slower.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// More paths than this to one peer are not kept.
const MAX_PATHS: usize = 24;
/// A direct path that has been in use for so long needs no relay that stands by.
const SETTLED: Duration = Duration::from_secs(60);
/// The first pause between two pieces of news that are followed; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause. A peer of whom nothing was new for so long is followed at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A path that is no more than this faster is not worth a change.
const MARGIN: Duration = Duration::from_millis(1);
/// After a change for the sake of speed alone the next one waits this long: it may have been a mood of the network.
const DWELL: Duration = Duration::from_secs(30);

/// One way to send a datagram to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Raw UDP to this endpoint.
    Direct(SocketAddr),
    /// Raw UDP to a member that passes it on.
    Relayed {
        /// The relay's endpoint.
        via: SocketAddr,
        /// Which of the pairs that it serves.
        channel: Channel,
    },
    /// The carrier stream of this connection.
    Carrier(ConnectionId),
}

/// What kind of way a path is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// WireGuard datagrams over UDP.
    Direct,
    /// Framed on a direct libp2p connection: UDP is blocked.
    Stream,
    /// Framed on a connection through another member.
    Relay(PeerId),
}

impl PathKind {
    /// The stable name that `status --json` shows.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Stream => "stream",
            Self::Relay(_) => "relay",
        }
    }
}

impl Path {
    /// Where a datagram by this path is sent, unless a connection carries it.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(endpoint) | Self::Relayed { via: endpoint, .. } => Some(*endpoint),
            Self::Carrier(_) => None,
        }
    }
}

/// How good a path is now. Greater is better; the field order is the policy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    alive: bool,
    proven: bool,
    /// Somebody vouches for it: more than the hope that an attempt is.
    vouched: bool,
    kind: Reverse<u8>,
    /// No answer is missing at the moment. As long as no packets flow it is early enough to ask again.
    certain: bool,
}

impl Score {
    fn of(known: &Tracked, flowing: bool) -> Self {
        let kind = match (known.kind, known.path) {
            (PathKind::Direct, _) => 0,
            (PathKind::Stream, _) => 1,
            (PathKind::Relay(_), Path::Relayed { .. } | Path::Direct(_)) => 2,
            (PathKind::Relay(_), Path::Carrier(_)) => 3,
        };
        Self {
            alive: known.is_alive(),
            proven: known.proven,
            vouched: known.proven || known.anchored || known.heard,
            kind: Reverse(kind),
            certain: !flowing || !known.is_in_doubt(),
        }
    }
}

/// How fast news of one kind are followed: ever more slowly, until there were none for a while. Behind some NATs every
/// answer comes from another address.
#[derive(Debug, Default)]
struct Pace {
    followed: Option<Instant>,
    pause: Duration,
}

impl Pace {
    /// Whether another piece of news may be followed now.
    fn may_follow(&mut self, now: Instant) -> bool {
        let since = self
            .followed
            .map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if since < self.pause {
            return false;
        }
        self.pause = if since > LONGEST_PAUSE {
            FIRST_PAUSE
        } else {
            (self.pause * 2).min(LONGEST_PAUSE)
        };
        self.followed = Some(now);
        true
    }
}

/// All paths to one peer.
#[derive(Debug)]
pub struct Paths {
    interface_mtu: u16,
    list: Vec<Tracked>,
    candidates: Candidates,
    attempts: Attempts,
    /// Addresses that datagrams came from.
    roaming: Pace,
    /// Candidates that were named.
    news: Pace,
    current: Option<Path>,
    /// Since when packets go that way.
    since: Option<Instant>,
    /// When the last change for the sake of speed alone was made.
    sped_up: Option<Instant>,
    /// Whether the path in use was direct and proven when it was last chosen.
    was_direct: bool,
    /// The proven path that was told last.
    told: Option<Path>,
    last_packet: Option<Instant>,
}

impl Paths {
    /// None yet. No path is asked to carry packets longer than `interface_mtu` bytes.
    pub fn new(interface_mtu: u16) -> Self {
        Self {
            interface_mtu,
            list: Vec::new(),
            candidates: Candidates::default(),
            attempts: Attempts::default(),
            roaming: Pace::default(),
            news: Pace::default(),
            current: None,
            since: None,
            sped_up: None,
            was_direct: false,
            told: None,
            last_packet: None,
        }
    }

    /// A path that may work, and something that vouches for it: it is probed at once.
    pub fn open(&mut self, path: Path, kind: PathKind, now: Instant) {
        if self.list.is_empty() {
            self.restart_attempts(now);
        }
        self.track(path, kind, true);
        self.choose(now);
    }

    fn track(&mut self, path: Path, kind: PathKind, anchored: bool) {
        if let Some(known) = self.find(path) {
            known.anchored |= anchored;
            known.kind = kind;
            known.revive();
            return;
        }
        if self.list.len() >= MAX_PATHS {
            self.evict();
        }
        let mtu = self.interface_mtu;
        self.list.push(Tracked::new(path, kind, anchored, mtu));
    }

    /// An authentic datagram came by `path`. A new address is a candidate and must prove itself; the first
    /// path ever heard of carries packets at once.
    pub fn heard(&mut self, path: Path, now: Instant) {
        if let Path::Direct(endpoint) = path
            && !self.knows(path)
        {
            if !self.roaming.may_follow(now) {
                return;
            }
            let kind = CandidateKind::Heard;
            self.candidates.learn(Candidate { kind, endpoint }, now);
            self.track(path, PathKind::Direct, false);
            self.choose(now);
            // The peer may have moved: then what was proven is so no more.
            self.doubt_all();
        }
        if let Some(known) = self.find(path) {
            known.heard = true;
        }
    }

    /// Whether the path is listed, working or not, and an authentic datagram came by it.
    pub fn has_heard(&self, path: Path) -> bool {
        self.list
            .iter()
            .any(|known| known.path == path && known.heard)
    }

    /// Whether the path is listed, working or not.
    pub fn knows(&self, path: Path) -> bool {
        self.list.iter().any(|known| known.path == path)
    }

    /// What vouched for `path` is gone. A carrier or a channel goes with it; an endpoint must prove itself anew.
    pub fn close(&mut self, path: Path, now: Instant) {
        match path {
            Path::Carrier(_) | Path::Relayed { .. } => {
                self.list.retain(|known| known.path != path);
            }
            Path::Direct(_) => {
                if let Some(known) = self.find(path) {
                    known.anchored = false;
                    known.doubt();
                }
            }
        }
        self.choose(now);
    }

    /// Packets flow: beat faster, and look for a better path sooner.
    pub fn active(&mut self, now: Instant) {
        if !self.is_active(now) {
            self.hasten_attempt(now);
        }
        self.last_packet = Some(now);
    }

    /// Whether packets flowed lately.
    pub fn is_active(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|at| now < at + IDLE_AFTER)
    }

    // ---- probes ------------------------------------------------------------------------------------------

    /// When [`due_probe`](Self::due_probe) has something to do next, as things stand now.
    pub fn next_probe(&self, now: Instant) -> Option<Instant> {
        let flowing = self.is_active(now);
        self.list
            .iter()
            .map(|known| known.next_due(now, Some(known.path) == self.current, flowing))
            .min()
    }

    /// The next probe that is wanted now. Call until `None`.
    pub fn due_probe(&mut self, now: Instant, new_id: impl FnOnce() -> u64) -> Option<DueProbe> {
        self.expire_probes(now);
        let flowing = self.is_active(now);
        let current = self.current;
        let (known, question) = self.list.iter_mut().find_map(|known| {
            let in_use = Some(known.path) == current;
            let question = known.question(now, in_use, flowing)?;
            Some((known, question))
        })?;
        Some(known.asks(question, new_id(), now))
    }

    fn expire_probes(&mut self, now: Instant) {
        let mut in_use = None;
        for known in &mut self.list {
            let missed = known.misses_answer(now);
            if missed && Some(known.path) == self.current {
                in_use = Some((known.is_alive(), known.silent_since()));
            }
        }
        match in_use {
            Some((true, _)) => self.doubt_all(),
            // The others were asked when the first answer was missing. Who has not answered either may have died of the same:
            // a stream over the same hole, for example.
            Some((false, silent_since)) => {
                for known in &mut self.list {
                    known.expect_answer_since(silent_since);
                }
            }
            None => {}
        }
        self.forget_the_dead();
        self.forget_spares();
        self.choose(now);
    }

    /// All that may still work show whether they do.
    pub fn doubt_all(&mut self) {
        for known in self.list.iter_mut().filter(|known| known.is_alive()) {
            known.doubt();
        }
    }

    /// Of the direct paths that work one is in use and one stands by; the others are found again when they are needed.
    fn forget_spares(&mut self) {
        let is_spare = |known: &Tracked| {
            let is_direct = matches!(known.path, Path::Direct(_));
            is_direct && known.proven && !known.anchored && Some(known.path) != self.current
        };
        let spares = self.list.iter().filter(|known| is_spare(known));
        if spares.clone().count() < 2 || !self.is_direct() {
            return;
        }
        let slowest = spares.max_by_key(|known| known.best_rtt());
        if let Some(Path::Direct(endpoint)) = slowest.map(|known| known.path) {
            self.candidates.note(endpoint, Outcome::Spare);
            self.list
                .retain(|known| known.path != Path::Direct(endpoint));
        }
    }

    fn forget_the_dead(&mut self) {
        let candidates = &mut self.candidates;
        self.list.retain(|known| {
            let is_kept = match known.path {
                Path::Direct(_) => known.anchored || known.is_alive(),
                Path::Relayed { .. } => known.is_alive(),
                Path::Carrier(_) => true,
            };
            if let (false, Path::Direct(endpoint)) = (known.is_alive(), known.path) {
                let outcome = if known.has_answered() {
                    Outcome::Lost
                } else {
                    Outcome::NoAnswer
                };
                if !is_kept {
                    candidates.note(endpoint, outcome);
                }
            }
            is_kept
        });
    }

    /// The probe with this number came back: its path works both ways.
    ///
    /// Returns the path and the round trip, or `None` for a number we do not wait for.
    pub fn pong(&mut self, number: u64, now: Instant) -> Option<(Path, Duration)> {
        let (path, round_trip, is_news) = self.list.iter_mut().find_map(|known| {
            let was_proven = known.proven;
            let round_trip = known.takes_answer(number, now)?;
            Some((known.path, round_trip, known.proven && !was_proven))
        })?;
        self.choose(now);
        if is_news && !self.is_direct() {
            // A way to call by, perhaps the first.
            self.restart_attempts(now);
        }
        Some((path, round_trip))
    }

    /// The peer has asked by `path`, and was answered.
    pub fn asked(&mut self, path: Path, now: Instant) {
        if let Some(known) = self.find(path) {
            known.asked(now);
        }
        // The peer may have moved back to an endpoint that we know from before.
        let current = self.current;
        for known in &mut self.list {
            if Some(known.path) == current && known.path != path && known.is_quiet(now) {
                known.doubt();
            }
        }
    }

    /// The network below may have changed: nothing is proven any more before it has shown itself again.
    pub fn suspect(&mut self, now: Instant) {
        for known in &mut self.list {
            known.revive();
            known.suspect();
        }
        self.restart_attempts(now);
    }

    /// Whether the path in use is direct and proven.
    pub fn is_direct(&self) -> bool {
        self.in_use()
            .is_some_and(|known| known.kind == PathKind::Direct && known.proven)
    }

    /// Whether the path in use is proven.
    pub fn is_proven(&self) -> bool {
        self.in_use().is_some_and(|known| known.proven)
    }

    /// The path in use misses answers.
    pub fn is_in_doubt(&self) -> bool {
        self.in_use().is_some_and(Tracked::is_in_doubt)
    }

    /// Whether a direct path has been in use for so long that no relay needs to stand by.
    pub fn is_settled(&self, now: Instant) -> bool {
        let is_old = self.since.is_some_and(|since| now >= since + SETTLED);
        is_old && self.is_direct() && !self.is_in_doubt()
    }

    /// Whether a relay's channel is among the paths.
    pub fn has_channel(&self, channel: Channel) -> bool {
        self.list.iter().any(|known| is_of(known.path, channel))
    }

    /// A relay's channel is gone.
    pub fn close_channel(&mut self, channel: Channel, now: Instant) {
        self.list.retain(|known| !is_of(known.path, channel));
        self.choose(now);
    }

    /// Whether a relay that passes datagrams on would be of use: packets flow, and the path in use is no direct one, or
    /// has begun to miss answers.
    pub fn wants_relay(&self, now: Instant) -> bool {
        let is_safe = self
            .in_use()
            .is_some_and(|known| known.kind == PathKind::Direct && !known.is_in_doubt());
        self.is_active(now) && !is_safe
    }

    // ---- the choice --------------------------------------------------------------------------------------

    /// Where packets go now.
    pub fn current(&self) -> Option<Path> {
        self.current
    }

    /// The longest packet that the path in use carries now, in bytes.
    pub fn mtu(&self) -> u16 {
        self.in_use()
            .map_or(self.interface_mtu, |known| known.mtu.get())
    }

    /// Every path that is proven, and the one in use.
    pub fn proven(&self) -> impl Iterator<Item = Path> + '_ {
        let chosen = |known: &&Tracked| known.proven || Some(known.path) == self.current;
        self.list.iter().filter(chosen).map(|known| known.path)
    }

    /// The path in use, and every other by which the peer was heard and that still works as far as is known.
    pub fn likely(&self) -> impl Iterator<Item = Path> + '_ {
        let chosen =
            |known: &&Tracked| known.heard && known.is_alive() || Some(known.path) == self.current;
        self.list.iter().filter(chosen).map(|known| known.path)
    }

    /// Every path, for messages that must get through by whichever works: handshake initiations.
    pub fn all(&self) -> impl Iterator<Item = Path> + '_ {
        self.list.iter().map(|known| known.path)
    }

    /// The endpoint of the best direct path, if one is proven.
    pub fn direct_endpoint(&self) -> Option<SocketAddr> {
        let proven = self.list.iter().filter(|known| known.proven);
        let direct = proven.filter_map(|known| match known.path {
            Path::Direct(endpoint) => Some((Some(known.path) != self.current, endpoint)),
            Path::Relayed { .. } | Path::Carrier(_) => None,
        });
        direct.min().map(|(_, endpoint)| endpoint)
    }

    /// Whether another path carries packets now than when this was last asked, or none: because none is proven, or
    /// because there are no keys to send anything with.
    pub fn take_change(&mut self, has_keys: bool) -> bool {
        let is_believed = |known: &&Tracked| has_keys && (known.proven || known.suspected);
        let believed = self.in_use().filter(is_believed).map(|known| known.path);
        std::mem::replace(&mut self.told, believed) != believed
    }

    fn in_use(&self) -> Option<&Tracked> {
        self.list
            .iter()
            .find(|known| Some(known.path) == self.current)
    }

    fn find(&mut self, path: Path) -> Option<&mut Tracked> {
        self.list.iter_mut().find(|known| known.path == path)
    }

    fn choose(&mut self, now: Instant) {
        let chosen = self.best(now);
        if chosen != self.current {
            self.current = chosen;
            self.since = Some(now);
        }
        let is_direct = self.is_direct();
        match (
            std::mem::replace(&mut self.was_direct, is_direct),
            is_direct,
        ) {
            (true, false) => self.restart_attempts(now),
            (false, true) => self.attempts.due = None,
            (true, true) | (false, false) => {}
        }
    }

    /// The best path; among equals the one in use, unless another is clearly faster.
    fn best(&mut self, now: Instant) -> Option<Path> {
        let flowing = self.is_active(now);
        let score = |known: &Tracked| Score::of(known, flowing);
        let best = self.list.iter().map(score).max()?;
        let equals = || self.list.iter().filter(|known| score(known) == best);
        let fastest = equals().min_by_key(|known| known.best_rtt().unwrap_or(Duration::MAX))?;
        let Some(held) = equals().find(|known| Some(known.path) == self.current) else {
            return Some(fastest.path);
        };
        let may_change = self.sped_up.is_none_or(|at| now >= at + DWELL);
        if may_change && is_clearly_faster(fastest, held) {
            let path = fastest.path;
            self.sped_up = Some(now);
            return Some(path);
        }
        Some(held.path)
    }

    /// Makes room: an unanchored path goes before an anchored one, a dead one before a live one.
    fn evict(&mut self) {
        let worst = (0..self.list.len()).min_by_key(|&at| {
            let known = &self.list[at];
            (
                Some(known.path) == self.current,
                known.anchored,
                known.proven,
                known.is_alive(),
            )
        });
        if let Some(worst) = worst {
            self.list.swap_remove(worst);
        }
    }
}

fn is_of(path: Path, channel: Channel) -> bool {
    matches!(path, Path::Relayed { channel: of, .. } if of == channel)
}

/// By a fifth, and by more than [`MARGIN`].
fn is_clearly_faster(this: &Tracked, other: &Tracked) -> bool {
    match (this.best_rtt(), other.best_rtt()) {
        (Some(this), Some(other)) => this + MARGIN.max(other / 5) < other,
        (Some(_) | None, _) => false,
    }
}

#[cfg(test)]
mod tests;
