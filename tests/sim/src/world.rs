//! The world: what happens next happens now.
//!
//! Everything that will happen is an [`Event`] in one queue. [`World::run_for`] takes them one by one, moves the clock
//! there, lets it happen, and checks the invariants that hold at every moment. Whoever touches a host drains it: its
//! node's orders go to the [swarm](crate::swarm), its datagrams to the [underlay](crate::underlay), its packets to the
//! [applications](crate::echo).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use crate::{
    clock::{Clock, Moment, millis, seconds},
    complaints::Complaints,
    echo::{Echo, Reaction},
    founding,
    host::{Drained, Exit, Host, HostClock, Order},
    invariants::{self, Broken},
    swarm::{ConnectionNumber, Member, Swarm, questions::Topic, streams::Message},
    trace::Trace,
    underlay::{Flight, GatewayKind, HostId, Line, Payload, SiteId, Underlay},
};

mod registry;
mod story;

/// Who is refused for now asks again after this long.
const JOIN_AGAIN: Duration = seconds(1);

/// What may happen at one moment. More, and somebody wakes himself up for ever.
const MAX_CROWDING: u32 = 100_000;
/// The shell lets a burst of notices pass before it tells the core that the network changed.
const NOTICE: Duration = millis(100);

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A host starts, and joins if it is not the founder.
    Start(HostId),
    /// A node wanted to be woken.
    Wake(HostId),
    /// A suspended host goes on.
    Resume(HostId, Moment),
    /// The operating system tells a host that its network changed.
    Notice(HostId),
    /// A datagram is at the end of its way.
    Arrive(Flight),
    /// See [`crate::swarm`].
    Initial(u64),
    AttemptFailed(u64),
    TcpConnected(u64),
    Segment(ConnectionNumber, usize, u64),
    Retransmit(ConnectionNumber, usize, u64, u32),
    Reset(ConnectionNumber, usize),
    KeepAlive(ConnectionNumber),
    Measure(ConnectionNumber),
    Punch(ConnectionNumber),
    Burst(HostId, Vec<SocketAddrV4>, u32),
    RequestTimeout(u64),
    Found(HostId, Vec<u8>),
    Discover(HostId),
    /// See [`registry`].
    FoundEntry(HostId, [u8; 32], Vec<u8>),
    Restart(HostId, bool),
}

struct Appointment {
    at: Moment,
    number: u64,
    event: Event,
}

impl PartialEq for Appointment {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Appointment {}

impl PartialOrd for Appointment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Appointment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// Everything there is.
pub struct World {
    clock: Clock,
    queue: BinaryHeap<Reverse<Appointment>>,
    appointments: u64,
    /// How much has happened at this very moment.
    crowding: u32,
    seed: u64,
    pub(crate) rng: fastrand::Rng,
    epoch: Instant,
    /// What lies between the hosts.
    pub underlay: Underlay,
    pub(crate) swarm: Swarm,
    pub(crate) hosts: Vec<Option<Host>>,
    pub(crate) peers: Vec<PeerId>,
    by_peer: BTreeMap<PeerId, HostId>,
    wakes: Vec<Option<Moment>>,
    /// How often each host was woken in the current second.
    wakeups: Vec<(u64, u32)>,
    /// The applications.
    pub echo: Echo,
    trace: Trace,
    chapter: String,
    has_stopped: bool,
    /// The current second, and how many datagrams had been sent when it began.
    pub(crate) second: (u64, u64),
    complaints: Complaints,
    broken: Vec<Broken>,
    /// How many seconds wall clocks are ahead that are not right.
    ahead: BTreeMap<HostId, i64>,
    /// Who keeps nothing of the registry for others.
    clients: BTreeSet<HostId>,
    registry: Option<registry::Registry>,
}

impl World {
    /// An empty world. All chance comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Clock::default(),
            queue: BinaryHeap::new(),
            appointments: 0,
            crowding: 0,
            seed,
            rng: fastrand::Rng::with_seed(seed),
            epoch: Instant::now(),
            underlay: Underlay::default(),
            swarm: Swarm::default(),
            hosts: Vec::new(),
            peers: Vec::new(),
            by_peer: BTreeMap::new(),
            wakes: Vec::new(),
            wakeups: Vec::new(),
            echo: Echo::default(),
            trace: Trace::default(),
            chapter: "the beginning".to_owned(),
            has_stopped: false,
            second: (0, 0),
            complaints: Complaints::default(),
            broken: Vec::new(),
            ahead: BTreeMap::new(),
            clients: BTreeSet::new(),
            registry: None,
        }
    }

    // ---- building ----------------------------------------------------------------------------------------

    /// Adds a site.
    pub fn add_site(&mut self, kind: GatewayKind, line: Line) -> SiteId {
        self.underlay.add_site(kind, line)
    }

    /// Adds a host that starts at `at`. The first one founds the network.
    pub fn add_host(&mut self, site: SiteId, at: Moment) -> HostId {
        let host = self.underlay.add_host(site);
        let peer = founding::signer(host).peer_id();
        self.peers.push(peer);
        self.by_peer.insert(peer, host);
        self.hosts.push(None);
        self.wakes.push(None);
        self.wakeups.push((0, 0));
        self.swarm.members.push(Member::default());
        self.at(at, Event::Start(host));
        host
    }

    fn start(&mut self, here: HostId) {
        let now = self.now();
        let clock = HostClock {
            epoch: self.epoch,
            suspended_for: Duration::ZERO,
            ahead: self.ahead.get(&here).copied().unwrap_or(0),
        };
        let host = if here == 0 {
            Some(founding::found(self.seed, clock, now))
        } else {
            let (start, drained) = match self.hosts[0].as_mut() {
                Some(founder) if self.underlay.is_awake(0) => {
                    founding::join(founder, here, self.seed, now)
                }
                Some(_) | None => (None, Drained::default()),
            };
            self.carry_out(0, drained);
            self.drain(0);
            start.map(|mut start| {
                start.registry_client = self.clients.contains(&here);
                Host::start(start, clock, now)
            })
        };
        let Some(host) = host else {
            return self.after(JOIN_AGAIN, Event::Start(here));
        };
        let (site, address) = (self.underlay.site_of(here), self.underlay.address_of(here));
        let gateway = self.underlay.kind_of(site);
        self.note(format_args!(
            "{here} starts at site {site}, {address}, {gateway:?}"
        ));
        self.hosts[here] = Some(host);
        self.underlay.set_awake(here, true);
        self.tell_reach(here);
        self.drain(here);
        self.after(millis(500), Event::Discover(here));
    }

    // ---- time --------------------------------------------------------------------------------------------

    /// The moment.
    pub fn now(&self) -> Moment {
        self.clock.now()
    }

    fn at(&mut self, at: Moment, event: Event) {
        self.appointments += 1;
        let number = self.appointments;
        self.queue.push(Reverse(Appointment { at, number, event }));
    }

    pub(crate) fn after(&mut self, span: Duration, event: Event) {
        self.at(self.now() + span, event);
    }

    /// Lets `span` pass.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now() + span;
        while !self.has_stopped
            && self
                .queue
                .peek()
                .is_some_and(|Reverse(next)| next.at <= end)
        {
            let Some(Reverse(next)) = self.queue.pop() else {
                break;
            };
            self.crowding = if next.at > self.now() {
                0
            } else {
                self.crowding + 1
            };
            assert!(self.crowding < MAX_CROWDING, "time does not go on");
            self.clock.advance_to(next.at);
            self.happen(next.event);
            invariants::after_every_step(self);
        }
        self.clock.advance_to(end);
    }

    /// Lets time pass until `is_so`, which is looked at every `step`, but no longer than `limit`. Returns how long it
    /// took, or `None` when it did not come true.
    pub fn run_until(
        &mut self,
        limit: Duration,
        step: Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let begin = self.now();
        loop {
            if is_so(self) {
                return Some(self.now() - begin);
            }
            if self.now() - begin >= limit {
                return None;
            }
            self.run_for(step);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(host) => self.start(host),
            Event::Wake(host) => self.wake(host),
            Event::Resume(host, since) => self.resume(host, since),
            Event::Notice(host) => self.notice(host),
            Event::Arrive(flight) => self.arrive(flight),
            Event::Initial(attempt) => self.send_initial(attempt),
            Event::AttemptFailed(attempt) => self.attempt_failed(attempt),
            Event::TcpConnected(attempt) => self.tcp_connected(attempt),
            Event::Segment(connection, sender, at) => self.segment(connection, sender, at),
            Event::Retransmit(connection, end, at, tries) => {
                self.transmit(connection, end, at, tries);
            }
            Event::Reset(connection, end) => self.close_end(connection, end),
            Event::KeepAlive(connection) => self.keep_alive(connection),
            Event::Measure(connection) => self.measure(connection),
            Event::Punch(circuit) => self.punch(circuit, 0),
            Event::Burst(host, to, left) => self.burst(host, to, left),
            Event::RequestTimeout(token) => self.request_timed_out(token),
            Event::Found(host, record) => {
                let now = self.now();
                self.host(host).found(&record, now);
                self.drain(host);
            }
            Event::Discover(host) => self.discover(host),
            Event::FoundEntry(host, slot, sealed) => self.entry_found(host, slot, &sealed),
            Event::Restart(host, loses_entries) => self.start_again(host, loses_entries),
        }
    }

    fn wake(&mut self, here: HostId) {
        let now = self.now();
        if self.wakes[here].is_some_and(|at| at > now) {
            return;
        }
        self.wakes[here] = None;
        if !self.underlay.is_awake(here) {
            return;
        }
        let second = now.as_secs();
        let (current, count) = self.wakeups[here];
        self.wakeups[here] = if current == second {
            (current, count + 1)
        } else {
            (second, 1)
        };
        self.host(here).wake(now);
        self.drain(here);
    }

    /// How often a host was woken in the current second.
    pub fn wakeups_now(&self, host: HostId) -> u32 {
        self.wakeups[host].1
    }

    // ---- misfortunes -------------------------------------------------------------------------------------

    /// The lid is closed for `span`.
    pub fn suspend(&mut self, host: HostId, span: Duration) {
        self.note(format_args!("{host} is suspended"));
        self.underlay.set_awake(host, false);
        let now = self.now();
        self.after(span, Event::Resume(host, now));
    }

    fn resume(&mut self, here: HostId, since: Moment) {
        let now = self.now();
        self.note(format_args!("{here} goes on"));
        self.underlay.set_awake(here, true);
        self.host(here).slept(now - since);
        self.host(here).network_changed(now);
        self.host(here).wake(now);
        self.drain(here);
    }

    /// The host is carried to another site, and notices.
    pub fn carry(&mut self, host: HostId, site: SiteId) {
        self.note(format_args!("{host} is carried to site {site}"));
        self.underlay.carry(host, site);
        self.swarm.members[host].forget_observed();
        self.after(NOTICE, Event::Notice(host));
    }

    fn notice(&mut self, here: HostId) {
        let now = self.now();
        self.host(here).network_changed(now);
        self.tell_reach(here);
        self.drain(here);
    }

    // ---- packets and datagrams ---------------------------------------------------------------------------

    /// An application asks another; returns the question's number.
    pub fn ask(&mut self, from: HostId, to: HostId, length: usize) -> u64 {
        let now = self.now();
        let (number, packet) = self.echo.ask(from, to, length, now);
        self.note(format_args!("{from} asks {to} ({number})"));
        self.offer(from, &packet);
        number
    }

    fn offer(&mut self, from: HostId, packet: &[u8]) {
        let now = self.now();
        self.echo.offered += 1;
        if self.underlay.is_awake(from) {
            self.host(from).packet(packet, now);
            self.drain(from);
        }
    }

    pub(crate) fn send_datagram(&mut self, from: HostId, to: SocketAddrV4, payload: Payload) {
        let now = self.now();
        let length = payload.len();
        match self.underlay.send(from, to, payload, now, &mut self.rng) {
            Ok((at, flight)) => self.at(at, Event::Arrive(flight)),
            Err((loss, payload)) => {
                self.note(format_args!("{from} -> {to} {length} bytes: {loss:?}"));
                self.lost(payload);
            }
        }
    }

    fn arrive(&mut self, flight: Flight) {
        let now = self.now();
        let (from, length) = (flight.source, flight.payload.len());
        match self.underlay.arrive(&flight, now) {
            Ok(here) => match flight.payload {
                Payload::WireGuard(bytes) => {
                    let kind = bytes[0];
                    self.note(format_args!("{from} -> {here} {length} bytes, type {kind}"));
                    self.host(here).datagram(from, &bytes, now);
                    self.drain(here);
                }
                Payload::Quic(datagram) => {
                    self.note(format_args!("{from} -> {here} {:?}", datagram.kind));
                    self.quic_arrives(here, from, datagram);
                    self.drain(here);
                }
            },
            Err(loss) => {
                self.note(format_args!("{from} -> {length} bytes: {loss:?}"));
                self.lost(flight.payload);
            }
        }
    }

    fn lost(&mut self, payload: Payload) {
        match payload {
            Payload::WireGuard(_) => {}
            Payload::Quic(datagram) => self.quic_lost(datagram),
        }
    }

    // ---- what nodes say ----------------------------------------------------------------------------------

    /// Takes out and carries out everything that a node has to say.
    pub(crate) fn drain(&mut self, here: HostId) {
        let now = self.now();
        while let Some(host) = self.hosts[here].as_mut() {
            let drained = host.drain(now);
            let is_empty = drained.orders.is_empty()
                && drained.moved.is_empty()
                && drained.datagrams.is_empty()
                && drained.packets.is_empty();
            if is_empty {
                break;
            }
            self.carry_out(here, drained);
        }
        self.look_at_registry(here);
        self.set_alarm(here);
        if self.trace.is_read()
            && let Some(news) = self.hosts[here].as_mut().and_then(Host::new_drops)
        {
            self.trace.aside(format_args!("{here} has dropped {news}"));
        }
    }

    fn set_alarm(&mut self, here: HostId) {
        let Some(host) = self.hosts[here].as_ref() else {
            return;
        };
        let due = host.next_wake().max(self.now());
        if self.underlay.is_awake(here) && self.wakes[here].is_none_or(|at| due < at) {
            self.wakes[here] = Some(due);
            self.at(due, Event::Wake(here));
        }
    }

    fn carry_out(&mut self, here: HostId, drained: Drained) {
        self.write_down(here, &drained.orders);
        for (peer, path) in drained.moved {
            let there = self.host_of(&peer);
            self.note(format_args!("{here} reaches {there} by {path:?}"));
        }
        for (exit, datagram) in drained.datagrams {
            match exit {
                Exit::Udp(to) => self.send_datagram(here, to, Payload::WireGuard(datagram)),
                Exit::Carrier(number) => self.send_frame(here, number, datagram),
            }
        }
        for packet in drained.packets {
            self.deliver(here, &packet);
        }
        for order in drained.orders {
            self.obey(here, order);
        }
    }

    fn deliver(&mut self, here: HostId, packet: &[u8]) {
        let now = self.now();
        match self.echo.arrived(here, packet, now) {
            Ok(Reaction::Answer(packet)) => self.offer(here, &packet),
            Ok(Reaction::Nothing) => {}
            Err(rule) => self.report("isolation", format!("{here} got {rule}")),
        }
    }

    fn send_frame(&mut self, here: HostId, number: ConnectionNumber, datagram: Vec<u8>) {
        if let Some(connection) = self.swarm.connections.get(&number) {
            let (end, length) = (connection.end_of(here), datagram.len());
            self.note(format_args!("{here} -> connection {number} {length} bytes"));
            self.tell(number, end, Message::Frame(datagram));
        }
    }

    fn obey(&mut self, here: HostId, order: Order) {
        match order {
            Order::Dial {
                peer,
                addresses,
                even_if_connected,
            } => self.dial(here, peer, addresses, even_if_connected),
            Order::Close(number) => {
                if let Some(connection) = self.swarm.connections.get(&number) {
                    let end = connection.end_of(here);
                    self.close_end(number, end);
                }
            }
            Order::Judge(number, admits) => self.judge(here, number, admits),
            Order::Introduce(record) => self.swarm.members[here].introduce(record),
            Order::Sync(peer, body) => self.ask_member(here, peer, Topic::Members, body),
            Order::Respond(request, body) => self.answer(here, request, body),
            Order::Relays(relays) => {
                self.swarm.members[here].set_relays(relays);
                self.look_for_relays(here);
            }
            Order::Publish(key, record) => self.publish(key, record),
            Order::Lookup(key) => self.look_up(here, key),
            Order::Registry(..) | Order::PublishEntry(..) | Order::LookupEntry(_) => {
                self.obey_registry(here, order);
            }
        }
    }

    // ---- looking -----------------------------------------------------------------------------------------

    pub(crate) fn host(&mut self, host: HostId) -> &mut Host {
        self.hosts[host].as_mut().expect("the host has started")
    }

    /// A host that has started.
    pub fn running(&self, host: HostId) -> Option<&Host> {
        self.hosts[host].as_ref()
    }

    /// How many hosts there are.
    pub fn host_count(&self) -> usize {
        self.hosts.len()
    }

    pub(crate) fn peer_id(&self, host: HostId) -> PeerId {
        self.peers[host]
    }

    pub(crate) fn host_of(&self, peer: &PeerId) -> HostId {
        self.by_peer[peer]
    }

    /// How `from` reaches each other host, as far as a proven path leads there.
    pub fn paths_of(&self, from: HostId) -> BTreeMap<HostId, crate::host::PeerPath> {
        let Some(host) = self.running(from) else {
            return BTreeMap::new();
        };
        let paths = host.paths().into_iter();
        paths
            .filter_map(|(peer, path)| Some((self.host_of(&peer), path?)))
            .collect()
    }

    /// What kind of path leads from one host to another, "none" without a proven one.
    pub fn kind_of_path(&self, from: HostId, to: HostId) -> &'static str {
        self.paths_of(from)
            .get(&to)
            .map_or("none", |path| path.kind)
    }

    /// The stand-in for libp2p, to look at.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }
}
