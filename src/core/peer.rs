//! One peer: its tunnel, the paths to it, and the few packets that wait for a session.

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
    session::{Identity, MIN_BUFFER, Session, Timers, WireGuardKey, sealed_length},
    signal::{ASK_LENGTH, Signal},
};

/// Paths that one call is sent by.
const MAX_CALLS: usize = 4;
/// Packets kept while the first handshake is under way: one window of a fresh TCP connection.
const MAX_WAITING: usize = 16;

/// Who has answered a handshake leaves it to the other to end it for so long. A node that has no keys before the first
/// datagram under them comes would else begin another one with each path that opens, and two that do so replace each
/// other's keys faster than they learn of it.
const COURTESY: Duration = Duration::from_secs(1);
/// Handshakes of one peer that follow each other faster were kept back on the way, while we slept for example: all but the
/// last are past, and to answer each would push the keys in use out of boringtun's eight places. After the first of them
/// we begin one ourselves.
const BACKLOG: Duration = Duration::from_millis(50);

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

/// Names a peer in the datagrams we receive: the upper 24 bits of the session index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// Lower than any other.
    pub const MIN: Self = Self(0);
    /// Higher than any other.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// The index must fit 24 bits; higher ones are cut off.
    pub fn new(index: u32) -> Self {
        Self(index & 0x00ff_ffff)
    }

    /// The peer that a datagram's receiver index names.
    pub fn of_receiver(receiver: u32) -> Self {
        Self(receiver >> 8)
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

/// A peer with its tunnel.
pub struct Peer {
    keys: PeerKeys,
    session: Session,
    paths: Paths,
    guard: Guard,
    waiting: VecDeque<Vec<u8>>,
    /// When we last answered a handshake that the peer began.
    answered: Option<Instant>,
    /// The one that was answered last.
    initiation: Vec<u8>,
    /// When to begin a handshake, because one of the peer's was not answered.
    overtake: Option<Instant>,
    fresh_until: Option<Instant>,
    is_at_rest: bool,
    tx_bytes: u64,
    rx_bytes: u64,
    signal_bytes: u64,
}

/// The node's memory that sealing uses.
pub struct Sealing {
    /// Where sealed datagrams go.
    pub outbox: DatagramBatch,
    /// For padding.
    pub scratch: Vec<u8>,
    /// The interface's MTU in bytes. Short probes are padded as its packets are.
    pub mtu: usize,
}

impl Peer {
    /// A peer to which no path is known yet. `guard` decides which of its packets pass; `interface_mtu` is the longest packet in bytes that it may be sent.
    pub fn new(
        keys: PeerKeys,
        guard: Guard,
        identity: &Identity,
        index: PeerIndex,
        interface_mtu: u16,
    ) -> Self {
        Self {
            guard,
            session: Session::new(identity, keys.key, index.0),
            keys,
            paths: Paths::new(interface_mtu),
            waiting: VecDeque::new(),
            answered: None,
            initiation: Vec::new(),
            overtake: None,
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

    /// The tunnel.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The tunnel, to open datagrams with.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
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
        if let (true, Some(path)) = (self.session.can_seal(), self.paths.current()) {
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
        self.initiate(&mut sealing.outbox, now);
        if is_full {
            Err(DropReason::QueueFull)
        } else {
            Ok(())
        }
    }

    /// Starts a handshake by every path, unless one is under way: whichever works carries the answer.
    pub fn initiate(&mut self, outbox: &mut DatagramBatch, now: Instant) {
        self.initiate_by_all(false, outbox, now);
    }

    /// Starts a handshake by every path, in place of one that is under way by fewer.
    fn initiate_anew(&mut self, outbox: &mut DatagramBatch, now: Instant) {
        self.initiate_by_all(true, outbox, now);
    }

    fn initiate_by_all(&mut self, anew: bool, outbox: &mut DatagramBatch, now: Instant) {
        let is_its_turn = self.answered.is_some_and(|at| now < at + COURTESY);
        if self.paths.current().is_none() || is_its_turn {
            return;
        }
        let paths = &self.paths;
        self.session
            .initiate(anew, &mut [0; MIN_BUFFER], |datagram| {
                for path in paths.all() {
                    outbox.push(path, datagram);
                }
            });
    }

    /// Whether a handshake that the peer begins is to be answered. If not, we soon begin one; but for a copy that came by
    /// another path.
    pub fn may_answer(&mut self, initiation: &[u8], now: Instant) -> bool {
        let is_backlog = self.answered.is_some_and(|at| now < at + BACKLOG);
        let is_copy = self.initiation == initiation;
        if is_backlog && !is_copy {
            self.overtake.get_or_insert(now + BACKLOG);
        }
        !(is_backlog || is_copy)
    }

    /// We answered this handshake that the peer began.
    pub fn answered_handshake(&mut self, initiation: &[u8], now: Instant) {
        self.answered = Some(now);
        self.initiation.clear();
        self.initiation.extend_from_slice(initiation);
    }

    /// Sends what waited for the session, now that there is one.
    pub fn flush(&mut self, sealing: &mut Sealing) {
        let Some(path) = self.paths.current().filter(|_| self.session.can_seal()) else {
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
        self.is_at_rest = !(self.session.can_seal() && self.paths.is_active(now));
        let timers = match self.session.timers() {
            Timers::Stopped => None,
            Timers::Aging if self.is_at_rest => Some(now + AT_REST),
            Timers::Aging => Some(now + LIVELY),
            Timers::Handshake => Some(now + LIVELY + Duration::from_millis(random(JITTER_MS))),
        };
        let can_probe = self.session.can_seal();
        let probe = self.paths.next_probe(now).filter(|_| can_probe);
        let attempt = self.paths.next_attempt();
        let others = [probe, attempt, self.overtake];
        timers.into_iter().chain(others.into_iter().flatten()).min()
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
        let (paths, outbox) = (&self.paths, &mut sealing.outbox);
        let has_keys = self.session.can_seal();
        self.session.tick(&mut [0; MIN_BUFFER], |datagram| {
            let is_initiation = datagram.first() == Some(&INITIATION);
            if is_initiation && !(has_keys && paths.is_proven()) {
                for path in paths.all() {
                    outbox.push(path, datagram);
                }
            } else if let Some(path) = paths.current() {
                outbox.push(path, datagram);
            }
        });
        if self.overtake.take_if(|at| now >= *at).is_some() {
            self.answered = None;
            self.initiate_anew(&mut sealing.outbox, now);
        }
        let is_attempt = self.paths.due_attempt(now);
        if !self.session.can_seal() {
            if is_attempt {
                self.initiate_anew(&mut sealing.outbox, now);
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
            self.initiate(&mut sealing.outbox, now);
        }
    }

    /// Sends a signal by `path`. Without keys nothing is sent.
    pub fn signal(&mut self, signal: &Signal, path: Path, sealing: &mut Sealing) {
        let packet = signal.packet(0);
        // One that cannot be sealed is one that was lost: whoever needs it sends another.
        let _ = self.seal(&packet, path, sealing.mtu.max(packet.len()), sealing);
        self.signal_bytes += sealed_length(packet.len()) as u64;
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
            let _ = self.seal(&packet, due.path, packet.len(), sealing);
            self.signal_bytes += sealed_length(packet.len()) as u64;
            sealing.outbox.end_run();
        }
    }

    /// Seals for a path that carries packets of at most `mtu` bytes.
    fn seal(
        &mut self,
        packet: &[u8],
        path: Path,
        mtu: usize,
        sealing: &mut Sealing,
    ) -> Result<(), DropReason> {
        if packet.len() > mtu {
            return Err(DropReason::PacketTooBig);
        }
        let slot = sealing.outbox.slot(path, sealed_length(packet.len()));
        let length = self.session.seal(packet, mtu, &mut sealing.scratch, slot)?;
        sealing.outbox.commit(path, length);
        Ok(())
    }
}
