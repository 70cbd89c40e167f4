//! The one loop: wait → tell the core → carry out what it wants.
//!
//! It runs on a thread of its own and sleeps in poll(2). Five things wake it: packets from the overlay interface,
//! datagrams from the underlay, messages from the swarm or the control socket, changes to the machine's network, and the
//! core's next timer. Packets and
//! datagrams move in batches; messages are taken a bounded number at a time, so that a storm of them delays no packet.
//!
//! Order of one turn: timers, datagrams, packets, messages, each where poll(2) found some. After each the core's outputs leave: opened packets to the
//! interface, sealed datagrams to socket or carrier, the rest as commands.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::ErrorKind,
    net::SocketAddr,
    os::fd::AsFd,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use hivevpn_core::{
    connection::ConnectionId,
    membership::UnixTime,
    node::{Node, Now},
    path::Path,
    policy::Exposed,
};
use hivevpn_platform::{
    network_change::NetworkChanges,
    poll::{self, Ready, Waker},
    priority::Urgency,
    tun::Tun,
    udp::{RecvBatch, SendBatch},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    administration::{desk::Desk, office::Office},
    audit::Audit,
    control::Reply,
    control_socket::Asked,
    mailbox,
    reflect::wire::Token,
    services,
    store::Store,
    swarm::{self, Carrier, Command, addresses::Addresses},
};

mod administration;
mod answers;
mod changes;
mod members;
mod messages;
mod outputs;
mod pace;
mod passwords;
mod policy;
mod registry;
mod services_desk;
mod surveys;
mod underlay;
mod unsent;

use changes::Changes;
use pace::Pace;
use registry::Searches;
use services_desk::ServicesDesk;
pub use underlay::Socket;
use underlay::{demultiplex, send_datagrams};
use unsent::Unsent;

/// Frames taken from the interface before the sockets get their turn. Each may hold 64 KB of packets.
const FRAMES: usize = 64;
/// And no further one after these many bytes, so that what arrives waits no longer than about 0.3 ms.
const FRAME_BYTES: usize = 256 << 10;
/// Sealed bytes that leave without waiting for the end of the burst they belong to: about what one segmented send takes,
/// so that waiting longer would save no call, only delay.
const FLUSH_AT: usize = 60_000;
/// Messages taken in one turn.
const MESSAGES: usize = 64;
/// And no further one after this long, because some bring many signatures to check.
const MESSAGE_TIME: Duration = Duration::from_millis(2);
/// A wait of less found something right away.
const SLEPT: Duration = Duration::from_micros(5);
/// One per address family.
const MAX_SOCKETS: usize = 2;

/// The places of what the loop waits for.
const WAKER: usize = 0;
const TUN: usize = 1;
const NETWORK: usize = 2;
const SOCKETS: usize = 3;

/// When the swarm is behind, it is offered the rest of its commands this often.
const UNSENT_RETRY: Duration = Duration::from_millis(10);
/// Addresses are reported one by one; a founder's first invite waits this long for the rest of them.
const GREETING_DELAY: Duration = Duration::from_millis(250);

/// A message from this machine.
#[derive(Debug)]
pub enum Local {
    /// A command asks.
    Control(Asked),
    /// The services of this node have something to tell.
    Services(services::Told),
    /// A signal or `hivevpn down` asks to stop.
    Stop,
}

/// Everything that the loop owns.
pub struct Parts {
    /// The core.
    pub node: Node,
    /// The overlay interface.
    pub tun: Tun,
    /// One socket per address family.
    pub sockets: Vec<Socket>,
    /// To the swarm.
    pub commands: mpsc::Sender<Command>,
    /// From the swarm.
    pub swarm: mailbox::Receiver<swarm::Event>,
    /// What the swarm said before the loop began.
    pub early: VecDeque<swarm::Event>,
    /// From commands and signals.
    pub local: mailbox::Receiver<Local>,
    /// Interrupts the wait.
    pub waker: Waker,
    /// Tells of changes to the machine's network, where the system can.
    pub network: Option<NetworkChanges>,
    /// What survives.
    pub store: Store,
    /// The state directory.
    pub state: PathBuf,
    /// Who may act on this node, and on which nodes we may act.
    pub office: Office,
    /// Has members answered who may.
    pub desk: Desk,
    /// To the services.
    pub services: services::Desk,
    /// What everybody may reach here by the configuration.
    pub publish: Exposed,
    /// Run with real-time priority.
    pub urgent: bool,
    /// The members to relay for, by name or peer id; all without.
    pub relay_members: Option<Vec<String>>,
    /// Bytes to pass on in a second; any number without.
    pub relay_rate: Option<u64>,
    /// Who was let in or put out is written there.
    pub audit: Audit,
    /// We founded the network just now: print an invite as soon as there is an address to put into it.
    pub greet: bool,
}

/// The loop's state.
pub struct EventLoop {
    node: Node,
    tun: Tun,
    sockets: Vec<Socket>,
    carriers: HashMap<ConnectionId, Carrier>,
    commands: mpsc::Sender<Command>,
    unsent: Unsent,
    swarm: mailbox::Receiver<swarm::Event>,
    early: VecDeque<swarm::Event>,
    local: mailbox::Receiver<Local>,
    waker: Waker,
    changes: Changes,
    store: Store,
    state: PathBuf,
    office: Office,
    desk: Desk,
    services: ServicesDesk,
    urgent: bool,
    relay_members: Option<Vec<String>>,
    relay_rate: Option<u64>,
    audit: Audit,
    greet: bool,
    greet_at: Option<Instant>,
    addresses: Addresses,
    relays: bool,
    pings: HashMap<u64, oneshot::Sender<Reply>>,
    tokens: HashMap<Token, oneshot::Sender<SocketAddr>>,
    searches: Searches,
    next_token: u64,
    /// Tokens of our questions for a new certificate.
    renewals: HashSet<u64>,
    /// Tokens of our messages about entries of the registry.
    registry_tokens: HashSet<u64>,
    stopping: bool,
    began: Instant,
    received: RecvBatch,
    sending: SendBatch,
}

impl EventLoop {
    /// A loop that has not begun.
    pub fn new(parts: Parts) -> Self {
        Self {
            node: parts.node,
            tun: parts.tun,
            sockets: parts.sockets,
            carriers: HashMap::new(),
            commands: parts.commands,
            unsent: Unsent::default(),
            swarm: parts.swarm,
            early: parts.early,
            local: parts.local,
            waker: parts.waker,
            changes: Changes::watch(parts.network, Instant::now()),
            store: parts.store,
            state: parts.state,
            office: parts.office,
            desk: parts.desk,
            services: ServicesDesk::new(parts.services, parts.publish),
            urgent: parts.urgent,
            relay_members: parts.relay_members,
            relay_rate: parts.relay_rate,
            audit: parts.audit,
            greet: parts.greet,
            greet_at: None,
            addresses: Addresses::default(),
            relays: false,
            pings: HashMap::new(),
            tokens: HashMap::new(),
            searches: Searches::default(),
            next_token: 0,
            renewals: HashSet::new(),
            registry_tokens: HashSet::new(),
            stopping: false,
            began: Instant::now(),
            received: RecvBatch::new(),
            sending: SendBatch::new(),
        }
    }

    /// Runs until asked to stop. An error is one after which there is nothing to carry: the interface is gone.
    pub fn run(mut self) -> Result<()> {
        self.carry_out();
        let mut urgency = if self.urgent {
            Urgency::of_this_thread(Instant::now())
        } else {
            Urgency::off(Instant::now())
        };
        let mut pace = Pace::new(Instant::now());
        loop {
            let rest = pace.rest();
            if let Some(rest) = rest {
                std::thread::sleep(rest);
            }
            let (ready, slept) = self.wait()?;
            let now = now();
            urgency.turn(slept || rest.is_some(), now.instant);
            if ready.contains(NETWORK) {
                self.changes.hear(now.instant);
            }
            if slept && self.changes.is_due(now.instant) {
                tracing::info!(
                    "the network changed, or this machine slept: every path is tried anew"
                );
                self.node.handle_network_change(now);
                self.carry_out();
            }
            // Time first: after a suspend every tunnel must know how late it is before it looks at a datagram.
            if now.instant >= self.node.poll_timeout() {
                self.node.handle_timeout(now);
                self.carry_out();
            }
            if self.greet_at.is_some_and(|at| now.instant >= at) {
                self.greet(now);
            }
            if self.searches.next().is_some_and(|at| now.instant >= at) {
                self.answer_readers(now);
            }
            let mut found = self.receive_datagrams(ready, now)?;
            if ready.contains(TUN) {
                found += self.receive_packets(now)?;
            }
            pace.turn(found, now.instant);
            if ready.contains(WAKER) || !self.early.is_empty() {
                self.receive_messages(now);
            }
            self.tell_services(now);
            self.flush()?;
            if self.stopping {
                return self.store.flush();
            }
        }
    }

    /// Sleeps until there is something to do. Returns who has it, and whether there was nothing for a while.
    fn wait(&self) -> Result<(Ready, bool)> {
        let mut sources = [self.waker.as_fd(); SOCKETS + MAX_SOCKETS];
        sources[TUN] = self.tun.as_fd();
        if let Some(source) = self.changes.source() {
            sources[NETWORK] = source;
        }
        for (source, socket) in sources[SOCKETS..].iter_mut().zip(&self.sockets) {
            *source = socket.udp.as_fd();
        }
        let sources = &sources[..SOCKETS + self.sockets.len().min(MAX_SOCKETS)];
        let mut until = self.node.poll_timeout();
        let others = [
            self.greet_at,
            self.changes.next(),
            self.searches.next(),
            self.services.next(),
        ];
        for at in others.into_iter().flatten() {
            until = until.min(at);
        }
        let began = Instant::now();
        let mut timeout = until.saturating_duration_since(began);
        if !self.unsent.is_empty() {
            timeout = timeout.min(UNSENT_RETRY);
        }
        let ready = poll::wait(sources, Some(timeout)).context("cannot wait for packets")?;
        Ok((ready, began.elapsed() >= SLEPT))
    }

    // ---- datagrams and packets ---------------------------------------------------------------------------

    /// Returns the number of messages there were.
    fn receive_datagrams(&mut self, ready: Ready, now: Now) -> Result<usize> {
        let mut messages = 0;
        for (at, socket) in self.sockets.iter().enumerate() {
            if !ready.contains(SOCKETS + at) {
                continue;
            }
            match socket.udp.recv(&mut self.received) {
                Ok(count) => messages += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => {
                    // An ICMP error of an earlier send, for example: it concerns one peer, not the socket.
                    tracing::debug!(%error, "receiving");
                    continue;
                }
            }
            for received in self.received.iter() {
                let from = Path::Direct(received.from);
                let (node, tokens) = (&mut self.node, &mut self.tokens);
                demultiplex(
                    &socket.quic,
                    &received,
                    |datagram| node.handle_datagram(from, datagram, now.instant),
                    |token| surveys::token_arrived(tokens, token, received.from),
                );
            }
        }
        if messages > 0 {
            self.carry_out();
            self.flush()?;
        }
        Ok(messages)
    }

    /// Returns the number of frames there were.
    fn receive_packets(&mut self, now: Now) -> Result<usize> {
        let (node, sockets, carriers) = (&mut self.node, &self.sockets, &self.carriers);
        let sending = &mut self.sending;
        let received = self.tun.recv_each(FRAMES, FRAME_BYTES, |packet| {
            node.handle_overlay_packet(packet, now.instant);
            if node.outbox().len() >= FLUSH_AT {
                send_datagrams(node, sockets, carriers, sending);
            }
        });
        let frames = match received {
            Ok(frames) => frames,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).context("the overlay interface is gone"),
        };
        self.flush()?;
        self.carry_out();
        Ok(frames)
    }

    /// Lets everything leave that the core has sealed or opened.
    fn flush(&mut self) -> Result<()> {
        let sending = &mut self.sending;
        send_datagrams(&mut self.node, &self.sockets, &self.carriers, sending);
        self.write_packets()
    }

    fn write_packets(&mut self) -> Result<()> {
        if self.node.inbox().is_empty() {
            return Ok(());
        }
        let written = self.tun.send_packets(self.node.inbox().iter());
        self.node.inbox().clear();
        written
            .map(drop)
            .context("the overlay interface does not take packets")
    }
}

/// The moment, by both clocks.
pub fn now() -> Now {
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Now {
        instant: Instant::now(),
        unix: UnixTime(unix),
    }
}
