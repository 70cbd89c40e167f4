//! The control plane: who is where, who belongs to us, and the fallback for datagrams that UDP does not carry.
//!
//! The swarm runs as one task on a tokio runtime and serves the data loop, a plain thread: [`Command`]s come
//! through a channel, [`Event`]s go into the loop's mailbox. It decides nothing about membership. It lets two
//! nodes prove to each other that they know the same network, hands the credentials over for judgement, and
//! opens the gate when both are satisfied.
//!
//! - [`underlay`]: the transports, with the overlay kept out of them
//! - [`behaviour`]: which protocols there are, and the bounds of each
//! - [`gate`]: keeps strangers from the protocols of members; `strangers`: keeps them few, by their [`source`]
//! - [`carrier`]: datagrams on a stream
//! - [`relays`]: being one, and holding reservations with some
//! - [`addresses`]: what we are reached at; [`reachability`]: whether that is true
//! - `dht`: what members may leave here, and what we look for; `routes`: whom it knows
//! - [`discoveries`]: what mDNS finds, a few at a time
//! - `bench`: members that measure the tunnel between them
//! - `reflect`, `survey`: what members see that we cannot, and what commands are told of the underlay
//! - `admin`: acting on other nodes, and being acted on
//! - `commands`, `events`: from the data loop to libp2p, and back
//!
//! While the mailbox is full, the swarm reads nothing from the network. It goes on taking commands, so that the
//! two sides never wait for each other.

pub mod addresses;
mod admin;
mod behaviour;
mod bench;
mod carrier;
mod codec;
mod commands;
mod dht;
mod discoveries;
mod events;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod interface;
mod numbers;
pub mod quic;
mod reachability;
mod reflect;
mod relays;
mod requests;
mod routes;
mod source;
mod strangers;
mod survey;
#[cfg(test)]
mod tests;
mod underlay;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    io,
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use futures::StreamExt;
use hivevpn_core::connection::{ConnectionId, Link};
use libp2p::{
    Multiaddr, PeerId, TransportError,
    core::{muxing::StreamMuxerBox, transport::Boxed},
    identify,
    identity::Keypair,
    noise, relay,
    swarm::{
        self, ExternalAddrExpired, FromSwarm, NetworkBehaviour,
        behaviour::ExternalAddrConfirmed,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use crate::mailbox;
use addresses::{Addresses, Overlay};
use behaviour::{Behaviour, BehaviourEvent};
use bench::Measurements;
pub use carrier::{Carrier, Dropped};
pub use dht::DhtMode;
use discoveries::Discoveries;
pub use gate::MAX_CREDENTIAL;
pub use interface::{Command, Event, Protocol, RequestId};
use reachability::Reachability;
use reflect::Reflections;
pub use relays::RelayMode;
use relays::{Guests, Reservations};
use requests::Requests;

/// How often lost reservations are looked after. Their shortest pause is a second.
const TICK: Duration = Duration::from_secs(1);

/// Events that may wait for the mailbox before commands wait too. Only the answers to commands get here while
/// the mailbox is full, and the loop has seldom more than a few open.
const MAX_WAITING: usize = 1024;

/// Streams of one connection whose protocol is not agreed upon yet. More wait, unread.
const NEGOTIATING: usize = 32;

/// Events that a connection may have ready before it waits for the swarm. Datagrams do not come this way.
const CONNECTION_EVENTS: usize = 16;

/// What the swarm is started with. Times have sensible defaults: see [`Config::new`].
pub struct Config {
    /// Who we are.
    pub keypair: Keypair,
    /// QUIC on the shared UDP sockets, if there are any.
    pub quic: Option<Boxed<(PeerId, StreamMuxerBox)>>,
    /// Where to listen, each for QUIC or TCP.
    pub listen: Vec<Multiaddr>,
    /// Where we are known to be reachable from anywhere, behind a forwarded port for example.
    pub external: Vec<Multiaddr>,
    /// What our router forwards to us, as it changes.
    pub mapped: watch::Receiver<Option<SocketAddrV4>>,
    /// Whether to relay for others.
    pub relay: RelayMode,
    /// The members to relay for, if not for all. [`Command::RelayFor`] replaces them.
    pub relay_for: Option<BTreeSet<PeerId>>,
    /// Whether to look for nodes on this site.
    pub mdns: bool,
    /// Whether to keep records for others.
    pub dht: DhtMode,
    /// How long a reservation with us lasts. Members renew it before; a relay that restarts has forgotten it.
    pub reservation: Duration,
    /// How long a connection may idle that is not authenticated. The relay protocol keeps it for 10 s before that
    /// begins, and it is noticed with the next ping, after 30 s.
    pub patience: Duration,
    /// How long a connection may live whose peer does not become a member, whatever it says meanwhile.
    pub proof_limit: Duration,
}

impl Config {
    /// A node that listens nowhere and relays if it is public.
    pub fn new(keypair: Keypair) -> Self {
        Self {
            keypair,
            quic: None,
            listen: Vec::new(),
            external: Vec::new(),
            mapped: watch::channel(None).1,
            relay: RelayMode::default(),
            relay_for: None,
            mdns: false,
            dht: DhtMode::default(),
            reservation: Duration::from_secs(60 * 60),
            patience: Duration::from_secs(5),
            proof_limit: strangers::PROOF_LIMIT,
        }
    }
}

/// The swarm could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keypair cannot sign.
    #[error("our identity cannot secure connections: {0}")]
    Identity(#[from] noise::Error),
    /// Without multicast sockets there is no mDNS.
    #[error("mDNS could not be started; turn it off if this machine has no multicast: {0}")]
    Mdns(#[source] io::Error),
    /// The port is taken, or the address is not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// As configured.
        address: Multiaddr,
        /// Why not.
        source: TransportError<io::Error>,
    },
}

/// The control plane, ready to [`run`](Swarm::run).
pub struct Swarm {
    inner: libp2p::Swarm<Behaviour>,
    mailbox: mailbox::Sender<Event>,
    /// Events that wait for room in the mailbox.
    waiting: VecDeque<Event>,
    overlay: Overlay,
    mapped: watch::Receiver<Option<SocketAddrV4>>,
    relay_mode: RelayMode,
    guests: Guests,
    relaying: bool,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The dials that the data loop waits for.
    dials: HashSet<swarm::ConnectionId>,
    requests: Requests,
    measurements: Measurements,
    reflections: Reflections,
    quotas: dht::Quotas,
    dht_mode: DhtMode,
    lookups: dht::Lookups,
    admin_asked: admin::Asked,
    reservations: Reservations,
    reachability: Reachability,
    discoveries: Discoveries,
    /// What the relaying half believes to be external beside what the swarm does.
    relay_addresses: BTreeSet<Multiaddr>,
    /// As last told.
    addresses: Addresses,
    addresses_changed: bool,
}

/// An open connection.
struct Connection {
    peer: PeerId,
    link: Link,
    authenticated: bool,
    /// What the peer last said about itself, and what it sees us as.
    identified: Option<identify::Info>,
    /// As last measured.
    rtt: Option<Duration>,
    /// Whether it shows that members reach us by themselves, if its peer is one.
    would_prove: bool,
}

impl Swarm {
    /// Starts to listen. Must be called on a tokio runtime.
    pub fn new(config: Config, mailbox: mailbox::Sender<Event>) -> Result<Self, Error> {
        let key = config.keypair.public();
        let local = key.to_peer_id();
        let overlay = Overlay::default();
        let (circuits, relay_client) = relay::client::new(local);
        let transport =
            underlay::transport(&config.keypair, config.quic, circuits, overlay.clone())?;
        let guests = Guests::default();
        guests.set(config.relay_for);
        let behaviour = Behaviour::new(
            key,
            relay_client,
            guests.clone(),
            config.reservation,
            config.proof_limit,
            config.mdns,
            mailbox.clone(),
        )
        .map_err(Error::Mdns)?;
        let mut inner = libp2p::Swarm::new(
            libp2p::Transport::boxed(transport),
            behaviour,
            local,
            swarm::Config::with_tokio_executor()
                .with_idle_connection_timeout(config.patience)
                .with_max_negotiating_inbound_streams(NEGOTIATING)
                .with_per_connection_event_buffer_size(CONNECTION_EVENTS),
        );
        for address in config.listen {
            inner
                .listen_on(address.clone())
                .map_err(|source| Error::Listen { address, source })?;
        }
        for address in config.external {
            inner.add_external_address(address);
        }
        Ok(Self {
            inner,
            mailbox,
            waiting: VecDeque::new(),
            overlay,
            mapped: config.mapped,
            relay_mode: config.relay,
            guests,
            relaying: false,
            connections: BTreeMap::new(),
            dials: HashSet::new(),
            requests: Requests::default(),
            measurements: Measurements::default(),
            reflections: Reflections::default(),
            quotas: dht::Quotas::default(),
            dht_mode: config.dht,
            lookups: dht::Lookups::default(),
            admin_asked: admin::Asked::default(),
            reservations: Reservations::new(local),
            reachability: Reachability::default(),
            discoveries: Discoveries::default(),
            relay_addresses: BTreeSet::new(),
            addresses: Addresses::default(),
            addresses_changed: true,
        })
    }

    /// The address ranges of the overlay, which are kept out of the underlay. Set them before the overlay's interface
    /// gets its addresses, or these are announced for a moment.
    pub fn overlay(&self) -> Overlay {
        self.overlay.clone()
    }

    /// Runs until nobody sends commands or reads the mailbox any more. All connections close then.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mailbox = self.mailbox.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look_after_addresses();
            self.look_after_relaying();
            self.look_after_reservations();
            self.look_after_discoveries();
            self.look_after_strangers();
            tokio::select! {
                room = mailbox.reserve(), if !self.waiting.is_empty() => {
                    let Ok(room) = room else { return };
                    if let Some(event) = self.waiting.pop_front() {
                        room.send(event);
                    }
                }
                command = commands.recv(), if self.waiting.len() < MAX_WAITING => {
                    let Some(command) = command else { return };
                    self.carry_out(command);
                }
                event = self.inner.select_next_some(), if self.waiting.is_empty() => {
                    self.on_event(event);
                }
                Ok(()) = self.mapped.changed() => self.on_mapped(),
                _ = tick.tick() => {}
            }
        }
    }

    fn tell(&mut self, event: Event) {
        self.waiting.push_back(event);
    }

    /// Tells the loop when our addresses have changed.
    fn look_after_addresses(&mut self) {
        if !std::mem::take(&mut self.addresses_changed) {
            return;
        }
        let addresses = Addresses::new(
            self.inner.listeners(),
            self.inner.external_addresses(),
            observed(&self.connections, &self.overlay),
            *self.mapped.borrow(),
        );
        if addresses == self.addresses {
            return;
        }
        self.reachability.on_addresses(&addresses);
        self.addresses = addresses.clone();
        self.tell(Event::Addresses(addresses));
    }

    /// Announces what the router forwards to us, and has peers try it when they punch holes.
    fn on_mapped(&mut self) {
        if let Some(endpoint) = *self.mapped.borrow_and_update() {
            let gate = &mut self.inner.behaviour_mut().gate;
            gate.offer_candidate(&addresses::quic(endpoint));
        }
        self.addresses_changed = true;
    }

    /// Offers to relay, or stops to, as our addresses and the configuration say.
    fn look_after_relaying(&mut self) {
        self.look_after_relay_addresses();
        let relaying = self.relay_mode.serves(&self.addresses);
        if relaying == self.relaying {
            return;
        }
        self.relaying = relaying;
        self.inner
            .behaviour_mut()
            .relay_server
            .set_relaying(relaying);
        self.tell(Event::Relaying(relaying));
    }

    /// A relay without a public address serves its site: libp2p's gives reservations out for external addresses only.
    fn look_after_relay_addresses(&mut self) {
        let wanted: BTreeSet<_> = if self.relay_mode.serves_its_site(&self.addresses) {
            self.addresses.listen.iter().cloned().collect()
        } else {
            BTreeSet::new()
        };
        if wanted == self.relay_addresses {
            return;
        }
        let server = &mut self.inner.behaviour_mut().relay_server;
        for addr in self.relay_addresses.difference(&wanted) {
            let expired = FromSwarm::ExternalAddrExpired(ExternalAddrExpired { addr });
            server.on_swarm_event(expired);
        }
        for addr in wanted.difference(&self.relay_addresses) {
            let confirmed = FromSwarm::ExternalAddrConfirmed(ExternalAddrConfirmed { addr });
            server.on_swarm_event(confirmed);
        }
        self.relay_addresses = wanted;
    }

    /// Sends those away who did not become members.
    fn look_after_strangers(&mut self) {
        for connection in self.inner.behaviour_mut().strangers.look(Instant::now()) {
            tracing::debug!(
                ?connection,
                "a stranger stays one: its connection is closed"
            );
            self.inner.close_connection(connection);
        }
    }

    /// Tells what mDNS found, as fast as it can be dialed.
    fn look_after_discoveries(&mut self) {
        while let Some((peer, addresses)) = self.discoveries.next(Instant::now()) {
            self.tell(Event::Discovered { peer, addresses });
        }
    }

    /// Does what the supervisor of our reservations wants, until it wants nothing.
    fn look_after_reservations(&mut self) {
        loop {
            let wanted = !(self.addresses.has_public() && self.reachability.is_proven());
            let connections = &self.connections;
            let way = |relay: &PeerId| way(connections, relay);
            let now = Instant::now();
            let Some(step) = self.reservations.next(now, wanted, way) else {
                return;
            };
            match step {
                relays::Step::Dial { relay, addresses } => {
                    // A circuit to the relay, if there is one, is no use here.
                    let dial = DialOpts::peer_id(relay)
                        .condition(PeerCondition::NotDialing)
                        .addresses(addresses)
                        .build();
                    let id = dial.connection_id();
                    self.reachability.on_call(relay, now);
                    match self.inner.dial(dial) {
                        Ok(()) => self.reservations.on_dialing(relay, id),
                        // Somebody else dials it: that will do.
                        Err(swarm::DialError::DialPeerConditionFalse(_)) => {}
                        Err(error) => {
                            tracing::debug!(%relay, "the relay cannot be dialed: {error}");
                            self.reservations.on_step_failed(relay, now);
                        }
                    }
                }
                relays::Step::Reserve { relay, circuit } => match self.inner.listen_on(circuit) {
                    Ok(listener) => self.reservations.on_listening(relay, listener),
                    Err(error) => {
                        tracing::debug!(%relay, "no reservation can be made: {error}");
                        self.reservations.on_step_failed(relay, now);
                    }
                },
                relays::Step::Release(listener) => {
                    self.inner.remove_listener(listener);
                }
            }
        }
    }
}

/// What members see us as on direct connections.
fn observed<'a>(
    connections: &'a BTreeMap<ConnectionId, Connection>,
    overlay: &'a Overlay,
) -> impl Iterator<Item = &'a Multiaddr> {
    connections
        .values()
        .filter(|connection| connection.authenticated && connection.link.is_direct())
        .filter_map(|connection| Some(&connection.identified.as_ref()?.observed_addr))
        .filter(|address| !overlay.contains(address))
}

/// What the best direct connection to `relay` is good for.
fn way(connections: &BTreeMap<ConnectionId, Connection>, relay: &PeerId) -> relays::Way {
    let mut way = relays::Way {
        connection: relays::Connection::None,
        rtt: None,
    };
    for connection in connections.values() {
        if connection.peer != *relay || !connection.link.is_direct() {
            continue;
        }
        let is_ready = connection.authenticated && connection.identified.is_some();
        if is_ready {
            way.connection = relays::Connection::Ready;
        } else if way.connection == relays::Connection::None {
            way.connection = relays::Connection::Fresh;
        }
        way.rtt = match (way.rtt, connection.rtt) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }
    way
}
