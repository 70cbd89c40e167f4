//! The ways to one peer, and which of them carries the tunnel now.
//!
//! A WireGuard session does not care by which path a datagram came, so paths change under a live session. A
//! path is *opened* by what the shell reports (a QUIC connection, whose 4-tuple raw datagrams share; a carrier
//! stream on a connection) or by an authentic datagram from a new address (roaming). It is *proven* by a probe
//! inside the session that came back. Proof both ways is what makes a path worth switching to; missing proof
//! three times in a row is what takes it out of use. Nothing unauthenticated ever touches this state.
//!
//! Driving it: [`Paths::open`], [`Paths::heard`], [`Paths::pong`] and [`Paths::close`] feed it,
//! [`Paths::due_probe`] says what to send, [`Paths::current`] says where packets go.

pub mod probe;

use std::{
    cmp::Reverse,
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

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

#[derive(Debug)]
struct Tracked {
    path: Path,
    kind: PathKind,
    /// A connection vouches for it: it stays listed even when it does not answer.
    anchored: bool,
    proven: bool,
    misses: u32,
    rtt: Option<Duration>,
    outstanding: Option<(u64, Instant)>,
    /// The probe that was given up last: on a path slower than our patience every answer comes late.
    late: Option<(u64, Instant)>,
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
    fn gap(&self, is_current: bool, is_active: bool) -> Duration {
        match (self.is_alive(), is_current, is_active) {
            (false, _, _) => RETRY,
            (true, false, _) => STANDBY_HEARTBEAT,
            (true, true, false) => IDLE_HEARTBEAT,
            (true, true, true) => HEARTBEAT,
        }
    }

    /// Counts an answer that did not come in time; says whether one was missed just now.
    fn misses_answer(&mut self, now: Instant) -> bool {
        let Some((_, sent)) = self.outstanding else {
            return false;
        };
        if now < sent + self.patience() {
            return false;
        }
        self.late = self.outstanding.take();
        self.misses = self.misses.saturating_add(1);
        if self.is_alive() {
            self.probed = None;
        } else {
            self.proven = false;
        }
        true
    }
}

/// All paths to one peer.
#[derive(Debug, Default)]
pub struct Paths {
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
}

impl Paths {
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
        let is_active = self.is_active(now);
        let due = |known: &Tracked| match (known.outstanding, known.probed) {
            (Some((_, sent)), _) => sent + known.patience(),
            (None, Some(at)) => at + known.gap(Some(known.path) == self.current, is_active),
            (None, None) => now,
        };
        self.list.iter().map(due).min()
    }

    /// The next path that wants a probe now, with the probe's number. Call until `None`.
    pub fn due_probe(&mut self, now: Instant, new_id: impl FnOnce() -> u64) -> Option<(Path, u64)> {
        self.expire_probes(now);
        let is_active = self.is_active(now);
        let current = self.current;
        let known = self.list.iter_mut().find(|known| {
            let gap = known.gap(Some(known.path) == current, is_active);
            known.outstanding.is_none() && known.probed.is_none_or(|at| now >= at + gap)
        })?;
        let id = new_id();
        known.outstanding = Some((id, now));
        known.probed = Some(now);
        Some((known.path, id))
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

    /// The probe with this number came back: its path is proven both ways.
    ///
    /// Returns the path and the round trip, or `None` for a number we do not wait for.
    pub fn pong(&mut self, id: u64, now: Instant) -> Option<(Path, Duration)> {
        let is_this =
            |probe: &Option<(u64, Instant)>| probe.is_some_and(|(sent_id, _)| sent_id == id);
        let known = self
            .list
            .iter_mut()
            .find(|known| is_this(&known.outstanding) || is_this(&known.late))?;
        let probe = if is_this(&known.late) {
            &mut known.late
        } else {
            &mut known.outstanding
        };
        let (_, sent) = probe.take()?;
        let sample = now.saturating_duration_since(sent);
        known.rtt = Some(known.rtt.map_or(sample, |rtt| (rtt * 3 + sample) / 4));
        known.misses = 0;
        known.proven = true;
        let path = known.path;
        self.choose();
        Some((path, sample))
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
        })
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
