//! The ways to one peer, and which of them carries the tunnel now.
//!
//! A WireGuard session does not care by which path a datagram came, so paths change under a live session. A
//! path is *opened* by what the shell reports (a QUIC connection, whose 4-tuple raw datagrams share; a carrier
//! stream on a connection) or by an authentic datagram from a new address (roaming). It is *proven* by a probe
//! inside the session that came back. Proof both ways is what makes a path worth switching to; missing proof
//! three times in a row is what takes it out of use. Nothing unauthenticated ever touches this state.
//!
//! A direct path is proven with packets that IPv6 demands of every link, so that one which loses them never takes over
//! from a carrier that does not. How long packets may be beyond that is what [`mtu`] finds out.
//!
//! Driving it: [`Paths::open`], [`Paths::heard`], [`Paths::pong`] and [`Paths::close`] feed it,
//! [`Paths::due_probe`] says what to send, [`Paths::current`] says where packets go.

pub mod mtu;
pub mod probe;

use std::{
    cmp::Reverse,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use self::mtu::PathMtu;
use crate::connection::ConnectionId;

/// How long the path in use goes unproven while packets flow: with [`MISSES`] it bounds how long a silent death
/// goes unnoticed (about 6 s). Shorter costs datagrams on every pair, all the time.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// The same while no packets flow: below the 30 s after which common NATs forget a UDP mapping.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(25);
/// A path not in use is proven this often, so that it is known to work when it is needed.
const STANDBY_HEARTBEAT: Duration = Duration::from_secs(25);
/// A pair without packets for this long beats slower.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// The least time a probe is given; longer on slow paths, see [`Tracked::patience`].
const PATIENCE: Duration = Duration::from_secs(1);
/// Unanswered probes in a row that make a path dead.
const MISSES: u32 = 3;
/// A dead path is tried again this often.
const RETRY: Duration = Duration::from_secs(10);
/// More paths than this to one peer are not kept.
const MAX_PATHS: usize = 8;

/// One way to send a datagram to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Raw UDP to this endpoint.
    Direct(SocketAddr),
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

    fn rank(&self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::Stream => 1,
            Self::Relay(_) => 2,
        }
    }
}

/// How good a path is now. Greater is better; the field order is the policy.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    alive: bool,
    proven: bool,
    kind: Reverse<u8>,
    /// The path in use wins among equals, so that two equal paths do not flap.
    current: bool,
}

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
enum Question {
    /// Does it live?
    Heartbeat(u16),
    /// Does it carry packets of this length?
    Length(u16),
}

#[derive(Debug)]
struct Tracked {
    path: Path,
    kind: PathKind,
    /// A connection vouches for it: it stays listed even when it does not answer.
    anchored: bool,
    proven: bool,
    misses: u32,
    rtt: Option<Duration>,
    mtu: PathMtu,
    outstanding: Option<Ask>,
    /// The probe that was given up last: on a path slower than our patience every answer comes late.
    late: Option<Ask>,
    /// When it was last probed; `None` wants a probe at once.
    probed: Option<Instant>,
}

impl Tracked {
    fn is_alive(&self) -> bool {
        self.misses < MISSES
    }

    /// How long an answer may take: a loaded relay can queue for a second.
    fn patience(&self) -> Duration {
        self.rtt.map_or(PATIENCE, |rtt| PATIENCE.max(rtt * 4))
    }

    /// How long after a probe the next one follows.
    fn gap(&self, in_use: bool, flowing: bool) -> Duration {
        match (self.is_alive(), in_use, flowing) {
            (false, _, _) => RETRY,
            (true, false, _) => STANDBY_HEARTBEAT,
            (true, true, false) => IDLE_HEARTBEAT,
            (true, true, true) => HEARTBEAT,
        }
    }

    /// Whether its MTU may be searched for: lost probes mean something only while others come back.
    fn is_searchable(&self) -> bool {
        matches!(self.path, Path::Direct(_)) && self.proven && self.misses == 0
    }

    /// When it has something to ask or to give up next, as things stand now.
    fn next_due(&self, now: Instant, in_use: bool, flowing: bool) -> Instant {
        let heartbeat = match (self.outstanding, self.probed) {
            (Some(ask), _) => ask.sent + self.patience(),
            (None, Some(at)) => at + self.gap(in_use, flowing),
            (None, None) => now,
        };
        let search = self.mtu.next_expiry(self.patience()).or_else(|| {
            self.mtu
                .next_due(now, in_use && flowing)
                .filter(|_| self.is_searchable())
        });
        search.map_or(heartbeat, |at| at.min(heartbeat))
    }

    /// What it wants to know now. `in_use` and `flowing` say whether packets go this way, and whether there are any.
    fn question(&mut self, now: Instant, in_use: bool, flowing: bool) -> Option<Question> {
        let gap = self.gap(in_use, flowing);
        let guards_packets = in_use && flowing;
        if self.outstanding.is_none() && self.probed.is_none_or(|at| now >= at + gap) {
            return Some(Question::Heartbeat(self.heartbeat_length(guards_packets)));
        }
        if !self.is_searchable() {
            return None;
        }
        self.mtu.due(now, guards_packets).map(Question::Length)
    }

    /// As long as what it must show to pass; as short as can be where nothing is to be shown but life.
    fn heartbeat_length(&self, guards_packets: bool) -> u16 {
        match self.path {
            Path::Carrier(_) => probe::LENGTH,
            Path::Direct(_) if self.proven && !guards_packets => probe::LENGTH,
            Path::Direct(_) if self.proven && self.misses == 0 => self.mtu.proven(),
            Path::Direct(_) => self.mtu.minimum(),
        }
    }

    /// The shortest probe that proves the path. A carrier takes packets of any length.
    fn proof_length(&self) -> u16 {
        match self.path {
            Path::Direct(_) => self.mtu.minimum(),
            Path::Carrier(_) => probe::LENGTH,
        }
    }

    fn asks(&mut self, question: Question, number: u64, now: Instant) -> DueProbe {
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
    fn misses_answer(&mut self, now: Instant) -> bool {
        let patience = self.patience();
        self.mtu.expire(now, patience);
        let Some(ask) = self.outstanding.take_if(|ask| now >= ask.sent + patience) else {
            return false;
        };
        self.late = Some(ask);
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
    fn takes_answer(&mut self, number: u64, now: Instant) -> Option<Duration> {
        let is_this = |ask: &mut Ask| ask.number == number;
        let ask = self
            .late
            .take_if(is_this)
            .or_else(|| self.outstanding.take_if(is_this))
            .or_else(|| self.mtu.answered(number))?;
        let sample = now.saturating_duration_since(ask.sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 3 + sample) / 4));
        self.misses = 0;
        self.mtu.passed(ask.length);
        if ask.length >= self.proof_length() {
            self.proven = true;
        } else if !self.proven {
            // It lives, but that alone is no proof.
            self.probed = None;
        }
        Some(sample)
    }
}

/// All paths to one peer.
#[derive(Debug)]
pub struct Paths {
    interface_mtu: u16,
    list: Vec<Tracked>,
    current: Option<Path>,
    last_packet: Option<Instant>,
}

/// What the outside may know of the path in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathView {
    /// Where it leads.
    pub path: Path,
    /// What kind it is.
    pub kind: PathKind,
    /// Smoothed round trip, once measured.
    pub rtt: Option<Duration>,
    /// A probe came back and none is missing too long.
    pub proven: bool,
    /// The longest packet that it carries now, in bytes.
    pub mtu: u16,
}

impl Paths {
    /// None yet. No path is asked to carry packets longer than `interface_mtu` bytes.
    pub fn new(interface_mtu: u16) -> Self {
        Self {
            interface_mtu,
            list: Vec::new(),
            current: None,
            last_packet: None,
        }
    }

    /// A path that may work: it is probed at once.
    pub fn open(&mut self, path: Path, kind: PathKind, anchored: bool) {
        if let Some(known) = self.find(path) {
            known.anchored |= anchored;
            known.kind = kind;
            if !known.is_alive() {
                known.misses = 0;
                known.probed = None;
            }
        } else {
            if self.list.len() >= MAX_PATHS {
                self.evict();
            }
            self.list.push(Tracked {
                path,
                kind,
                anchored,
                proven: false,
                misses: 0,
                rtt: None,
                mtu: PathMtu::new(self.interface_mtu),
                outstanding: None,
                late: None,
                probed: None,
            });
        }
        self.choose();
    }

    /// An authentic datagram came by `path`. A new address is a candidate and must prove itself; the first
    /// path ever heard of carries packets at once.
    pub fn heard(&mut self, path: Path) {
        match path {
            Path::Direct(_) if !self.knows(path) => self.open(path, PathKind::Direct, false),
            Path::Direct(_) | Path::Carrier(_) => {}
        }
    }

    /// Whether the path is listed, working or not.
    pub fn knows(&self, path: Path) -> bool {
        self.list.iter().any(|known| known.path == path)
    }

    /// The connection behind `path` is gone. A carrier goes with it; an endpoint must prove itself anew.
    pub fn close(&mut self, path: Path) {
        match path {
            Path::Carrier(_) => self.list.retain(|known| known.path != path),
            Path::Direct(_) => {
                if let Some(known) = self.find(path) {
                    known.anchored = false;
                    known.probed = None;
                }
            }
        }
        self.choose();
    }

    /// Packets flow: beat faster.
    pub fn active(&mut self, now: Instant) {
        self.last_packet = Some(now);
    }

    /// Whether packets flowed lately.
    pub fn is_active(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|at| now < at + IDLE_AFTER)
    }

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
        let mut in_doubt = false;
        for known in &mut self.list {
            let missed = known.misses_answer(now);
            in_doubt |= missed && Some(known.path) == self.current;
        }
        if in_doubt {
            for known in self.list.iter_mut().filter(|known| known.is_alive()) {
                known.probed = None;
            }
        }
        self.list.retain(|known| {
            known.anchored || known.is_alive() || matches!(known.path, Path::Carrier(_))
        });
        self.choose();
    }

    /// The probe with this number came back: its path works both ways.
    ///
    /// Returns the path and the round trip, or `None` for a number we do not wait for.
    pub fn pong(&mut self, number: u64, now: Instant) -> Option<(Path, Duration)> {
        let answered = self.list.iter_mut().find_map(|known| {
            let round_trip = known.takes_answer(number, now)?;
            Some((known.path, round_trip))
        });
        self.choose();
        answered
    }

    /// Where packets go now.
    pub fn current(&self) -> Option<Path> {
        self.current
    }

    /// The path in use and what is known of it.
    pub fn view(&self) -> Option<PathView> {
        let known = self.in_use()?;
        Some(PathView {
            path: known.path,
            kind: known.kind,
            rtt: known.rtt,
            proven: known.proven,
            mtu: known.mtu.get(),
        })
    }

    /// The longest packet that the path in use carries now, in bytes.
    pub fn mtu(&self) -> u16 {
        self.in_use()
            .map_or(self.interface_mtu, |known| known.mtu.get())
    }

    /// Every path, for messages that must get through by whichever works: handshake initiations.
    pub fn all(&self) -> impl Iterator<Item = Path> + '_ {
        self.list.iter().map(|known| known.path)
    }

    fn in_use(&self) -> Option<&Tracked> {
        self.list
            .iter()
            .find(|known| Some(known.path) == self.current)
    }

    fn find(&mut self, path: Path) -> Option<&mut Tracked> {
        self.list.iter_mut().find(|known| known.path == path)
    }

    fn choose(&mut self) {
        let current = self.current;
        self.current = self
            .list
            .iter()
            .max_by_key(|known| Score {
                alive: known.is_alive(),
                proven: known.proven,
                kind: Reverse(known.kind.rank()),
                current: Some(known.path) == current,
            })
            .map(|known| known.path);
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

#[cfg(test)]
mod tests;
