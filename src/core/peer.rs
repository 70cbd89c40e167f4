//! One peer: its sessions, the paths to it, and the few packets that wait for one.

mod keying;
pub mod sessions;

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::{
    batch::DatagramBatch,
    datagram::INITIATION,
    drop_reason::DropReason,
    path::{DueProbe, Path, Paths, candidate::Candidate},
    policy::Guard,
    session::{MIN_BUFFER, Session, Timers, WireGuardKey, sealed_length},
    signal::{ASK_LENGTH, Signal},
    tunnel_key::Keyring,
};

use self::sessions::{Sessions, Slot};

/// Paths that one call is sent by.
const MAX_CALLS: usize = 4;
/// Packets kept while the first handshake is under way: one window of a fresh TCP connection.
const MAX_WAITING: usize = 16;

/// WireGuard wants its timers looked at about this often while datagrams flow; they are looked at when one does.
const FRESH: Duration = Duration::from_millis(250);
/// The same when packets flowed lately, so that keepalives (after 10 s) and handshakes with a peer that fell silent
/// (after 15 s) are in time, and while a handshake is under way, which is repeated after 5 s.
const LIVELY: Duration = Duration::from_secs(1);
/// The same for a tunnel at rest: keys must be replaced, and forgotten, within minutes.
const AT_REST: Duration = Duration::from_secs(25);
/// Retransmissions are jittered by up to this, lest two nodes that start together answer each other's for ever
/// (whitepaper §6.1).
const JITTER_MS: u64 = 333;

/// Names a peer in the datagrams we receive: the upper 22 bits of the session index. The two below name one of the
/// sessions with it, and the lowest eight its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// Lower than any other.
    pub const MIN: Self = Self(0);
    /// Higher than any other.
    pub const MAX: Self = Self(0x003f_ffff);

    /// The index must fit 22 bits; higher ones are cut off.
    pub fn new(index: u32) -> Self {
        Self(index & Self::MAX.0)
    }

    /// The peer that a datagram's receiver index names, and the session.
    pub fn of_receiver(receiver: u32) -> (Self, Slot) {
        (Self(receiver >> 10), Slot::of(receiver >> 8))
    }

    /// The index (24 bits) of a session with this peer.
    pub fn session(self, slot: Slot) -> u32 {
        (self.0 << 2) | slot.bits()
    }
}

/// What the tunnel needs to know of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerKeys {
    /// Its libp2p identity.
    pub id: PeerId,
    /// Its WireGuard static key.
    pub key: WireGuardKey,
    /// The overlay address that its certificate names, unless an older member holds it.
    pub ipv4: Option<Ipv4Addr>,
    /// Its self-certifying overlay address.
    pub ipv6: Ipv6Addr,
}

/// A peer with its sessions.
pub struct Peer {
    keys: PeerKeys,
    sessions: Sessions,
    paths: Paths,
    guard: Guard,
    waiting: VecDeque<Vec<u8>>,
    /// Since when the session does not answer a handshake.
    unanswered: Option<Instant>,
    /// It was said in the log that the peer exchanges keys in another way.
    is_refused: bool,
    fresh_until: Option<Instant>,
    is_at_rest: bool,
    tx_bytes: u64,
    rx_bytes: u64,
    signal_bytes: u64,
}

/// What sealing uses of the node's own: memory and keys.
pub struct Sealing {
    /// What sessions are keyed with.
    pub keyring: Keyring,
    /// Where sealed datagrams go.
    pub outbox: DatagramBatch,
    /// For padding.
    pub scratch: Vec<u8>,
    /// The interface's MTU in bytes. Short probes are padded as its packets are.
    pub mtu: usize,
}

impl Peer {
    /// A peer to which no path is known yet. `guard` decides which of its packets pass; `interface_mtu` is the longest
    /// packet in bytes that it may be sent.
    pub fn new(keys: PeerKeys, guard: Guard, index: PeerIndex, interface_mtu: u16) -> Self {
        Self {
            guard,
            sessions: Sessions::new(index),
            keys,
            paths: Paths::new(interface_mtu),
            waiting: VecDeque::new(),
            unanswered: None,
            is_refused: false,
            fresh_until: None,
            is_at_rest: true,
            tx_bytes: 0,
            rx_bytes: 0,
            signal_bytes: 0,
        }
    }

    /// Its keys and addresses.
    pub fn keys(&self) -> &PeerKeys {
        &self.keys
    }

    /// Takes over new addresses. A new key would need a new peer.
    pub fn set_addresses(&mut self, ipv4: Option<Ipv4Addr>) {
        self.keys.ipv4 = ipv4;
    }

    /// The session that carries packets, if there is one.
    pub fn session(&self) -> Option<&Session> {
        self.sessions.carrying()
    }

    /// All sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// All sessions, to open datagrams with.
    pub fn sessions_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }

    /// Whether packets can be sent; otherwise they wait.
    pub fn can_carry(&self) -> bool {
        self.sessions.can_carry()
    }

    /// Whether signals can be sent.
    pub fn can_signal(&self) -> bool {
        self.sessions.can_signal()
    }

    /// The paths.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The paths, to report what happened to them.
    pub fn paths_mut(&mut self) -> &mut Paths {
        &mut self.paths
    }

    /// Which of its packets pass.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Which of its packets pass, to ask for one.
    pub fn guard_mut(&mut self) -> &mut Guard {
        &mut self.guard
    }

    /// Gives up the guard, with all that it remembers of the peer's flows.
    pub fn into_guard(self) -> Guard {
        self.guard
    }

    /// Overlay bytes sent and received, without what WireGuard adds.
    pub fn traffic(&self) -> (u64, u64) {
        (self.tx_bytes, self.rx_bytes)
    }

    /// Bytes of the datagrams that carried signals to it.
    pub fn signal_bytes(&self) -> u64 {
        self.signal_bytes
    }

    /// Counts an overlay packet that arrived.
    pub fn received(&mut self, bytes: usize, now: Instant) {
        self.rx_bytes += bytes as u64;
        self.paths.active(now);
    }

    /// Sends a packet through the tunnel, or keeps it and starts a handshake.
    pub fn send(
        &mut self,
        packet: &[u8],
        sealing: &mut Sealing,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.paths.active(now);
        if let (true, Some(path)) = (self.can_carry(), self.paths.current()) {
            self.seal(packet, path, self.paths.mtu().into(), sealing)?;
            self.tx_bytes += packet.len() as u64;
            return Ok(());
        }
        // The newest packets are the ones that somebody still waits for.
        let is_full = self.waiting.len() >= MAX_WAITING;
        if is_full {
            self.waiting.pop_front();
        }
        self.waiting.push_back(packet.to_vec());
        self.initiate(sealing, now);
        if is_full {
            Err(DropReason::QueueFull)
        } else {
            Ok(())
        }
    }

    /// Sends what waited for the session, now that there is one.
    pub fn flush(&mut self, sealing: &mut Sealing) {
        let Some(path) = self.paths.current().filter(|_| self.can_carry()) else {
            return;
        };
        let mtu = self.paths.mtu().into();
        while let Some(packet) = self.waiting.pop_front() {
            if self.seal(&packet, path, mtu, sealing).is_ok() {
                self.tx_bytes += packet.len() as u64;
            }
        }
    }

    /// Whether [`tick`](Self::tick) is wanted before the next datagram is sealed or opened: keys that have grown too
    /// old must not be used, and only ticks move boringtun's clock.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.fresh_until.is_none_or(|until| now >= until)
    }

    /// Whether [`next_tick`](Self::next_tick) may have named a time far away: a packet, or the handshake that it
    /// starts, is a reason to ask again.
    pub fn is_at_rest(&self) -> bool {
        self.is_at_rest
    }

    /// When [`tick`](Self::tick) is wanted next if nothing happens until then. `random` draws below a bound.
    pub fn next_tick(&mut self, now: Instant, random: impl FnOnce(u64) -> u64) -> Option<Instant> {
        self.is_at_rest = !(self.can_carry() && self.paths.is_active(now));
        let is_at_rest = self.is_at_rest;
        let mut random = Some(random);
        let mut jitter = || random.take().map_or(0, |random| random(JITTER_MS));
        let timers = self.sessions.iter().filter_map(|session| {
            let wanted = match session.timers() {
                Timers::Stopped => None,
                Timers::Aging if is_at_rest => Some(now + AT_REST),
                Timers::Aging => Some(now + LIVELY),
                Timers::Handshake => Some(now + LIVELY + Duration::from_millis(jitter())),
            };
            let overtake = session.courtesy().next_overtake();
            wanted.into_iter().chain(overtake).min()
        });
        let timers = timers.min();
        let can_probe = self.can_signal();
        let probe = self.paths.next_probe(now).filter(|_| can_probe);
        let attempt = self.paths.next_attempt();
        let others = [timers, probe, attempt, self.sessions.next_due()];
        others.into_iter().flatten().min()
    }

    /// Runs the protocol's timers, proves the paths that want it, and calls the peer when a better one is to be tried:
    /// we may be reached at `us`.
    pub fn tick(
        &mut self,
        us: &[Candidate],
        sealing: &mut Sealing,
        now: Instant,
        mut new_id: impl FnMut() -> u64,
    ) {
        self.fresh_until = Some(now + FRESH);
        self.run_timers(sealing, now);
        self.turn_keys(sealing, now);
        let is_attempt = self.paths.due_attempt(now);
        if !self.can_signal() {
            if is_attempt {
                self.initiate_anew(sealing, now);
            }
            return;
        }
        if is_attempt {
            self.call(true, us, sealing);
        }
        self.flush(sealing);
        let was_proven = self.paths.is_proven();
        while let Some(due) = self.paths.due_probe(now, &mut new_id) {
            self.ask(due, sealing);
        }
        if was_proven && !self.paths.is_proven() {
            // Perhaps the peer has lost its keys: it may have been restarted, or asleep for too long.
            if self.session().is_some() {
                self.initiate(sealing, now);
            } else {
                self.initiate_anew(sealing, now);
            }
        }
    }

    fn run_timers(&mut self, sealing: &mut Sealing, now: Instant) {
        let (paths, outbox) = (&self.paths, &mut sealing.outbox);
        for session in self.sessions.iter_mut() {
            let has_keys = session.can_seal();
            session.tick(&mut [0; MIN_BUFFER], |datagram| {
                let is_initiation = datagram.first() == Some(&INITIATION);
                if is_initiation && !(has_keys && paths.is_proven()) {
                    for path in paths.all() {
                        outbox.push(path, datagram);
                    }
                } else if let Some(path) = paths.current() {
                    outbox.push(path, datagram);
                }
            });
            if session.courtesy_mut().overtakes(now) && paths.current().is_some() {
                session.initiate(true, &mut [0; MIN_BUFFER], |datagram| {
                    for path in paths.all() {
                        outbox.push(path, datagram);
                    }
                });
            }
        }
    }

    /// Sends a signal by `path`. Without keys nothing is sent.
    pub fn signal(&mut self, signal: &Signal, path: Path, sealing: &mut Sealing) {
        let packet = signal.packet(0);
        self.seal_signal(&packet, path, sealing.mtu.max(packet.len()), sealing);
    }

    /// One that cannot be sealed is one that was lost: whoever needs it sends another.
    fn seal_signal(&mut self, packet: &[u8], path: Path, mtu: usize, sealing: &mut Sealing) {
        if let Some(session) = self.sessions.for_signals() {
            let _ = seal(session, packet, path, mtu, sealing);
            self.signal_bytes += sealed_length(packet.len()) as u64;
        }
    }

    /// Tells the peer to try us at `us`, by every way that works: the one in use may be the one that died.
    pub fn call(&mut self, wants_answer: bool, us: &[Candidate], sealing: &mut Sealing) {
        let call = Signal::Call {
            wants_answer,
            candidates: us.to_vec(),
        };
        let paths: Vec<_> = self.paths.proven().take(MAX_CALLS).collect();
        for path in paths {
            self.signal(&call, path, sealing);
        }
    }

    /// Sends the question that `due` wants asked. One about a length has exactly that length.
    fn ask(&mut self, due: DueProbe, sealing: &mut Sealing) {
        let question = Signal::Ask(due.number);
        if due.length == ASK_LENGTH {
            self.signal(&question, due.path, sealing);
        } else {
            let packet = question.packet(due.length);
            // It may be too big, and must not take others with it.
            sealing.outbox.end_run();
            self.seal_signal(&packet, due.path, packet.len(), sealing);
            sealing.outbox.end_run();
        }
    }

    /// Seals a packet for a path that carries packets of at most `mtu` bytes.
    fn seal(
        &mut self,
        packet: &[u8],
        path: Path,
        mtu: usize,
        sealing: &mut Sealing,
    ) -> Result<(), DropReason> {
        let session = self.sessions.carrying_mut().ok_or(DropReason::QueueFull)?;
        seal(session, packet, path, mtu, sealing)
    }
}

fn seal(
    session: &mut Session,
    packet: &[u8],
    path: Path,
    mtu: usize,
    sealing: &mut Sealing,
) -> Result<(), DropReason> {
    if packet.len() > mtu {
        return Err(DropReason::PacketTooBig);
    }
    let slot = sealing.outbox.slot(path, sealed_length(packet.len()));
    let length = session.seal(packet, mtu, &mut sealing.scratch, slot)?;
    sealing.outbox.commit(path, length);
    Ok(())
}
