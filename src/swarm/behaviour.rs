//! Which protocols this node speaks, with whom, and within which bounds.
//!
//! | with everybody | why |
//! |---|---|
//! | identify, ping | libp2p works on them; no network name is in them |
//! | join | a stranger becomes a member by it |
//! | relay, both halves | it must be able to reach the node that invited it |
//! | mDNS | finds the members of the same site |
//!
//! Strangers get all that for a short time, and few of them: see [`Strangers`].
//!
//! With members only, behind the [`Gate`]: the DHT, sync, registry, bench, reflect, admin, the carrier and hole punching.

use std::{io, time::Duration};

use hivevpn_core::membership::administration::message::{MAX_ANSWER, MAX_ASK};
use libp2p::{
    PeerId, StreamProtocol,
    connection_limits::{self, ConnectionLimits},
    dcutr, identify,
    identity::PublicKey,
    kad::{
        self,
        store::{MemoryStore, MemoryStoreConfig},
    },
    mdns, ping, relay,
    request_response::{self, ProtocolSupport},
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
};

use super::{
    Event, carrier,
    codec::Codec,
    dht::DhtMode,
    gate::{Gate, Members},
    relays,
    strangers::Strangers,
};
use crate::{bench, mailbox, reflect};

const IDENTIFY: &str = "/hivevpn/1";
const AGENT: &str = concat!("hivevpn/", env!("CARGO_PKG_VERSION"));
const JOIN: StreamProtocol = StreamProtocol::new("/hivevpn/join/1");
const SYNC: StreamProtocol = StreamProtocol::new("/hivevpn/sync/1");
const REGISTRY: StreamProtocol = StreamProtocol::new("/hivevpn/registry/1");
const BENCH: StreamProtocol = StreamProtocol::new("/hivevpn/bench/1");
const REFLECT: StreamProtocol = StreamProtocol::new("/hivevpn/reflect/1");
const ADMIN: StreamProtocol = StreamProtocol::new("/hivevpn/admin/1");

/// The longest request to join, by a stranger: an invite's terms and a name, a few hundred bytes.
const MAX_JOIN: usize = 64 << 10;
/// The longest answer to it, which brings records of the members as a sync message does.
const MAX_ADMISSION: usize = 1 << 20;
/// The longest sync message: some thousand records.
const MAX_SYNC: usize = 1 << 20;
/// The longest message about entries of the registry: a hundred of the longest.
const MAX_REGISTRY: usize = 1 << 20;

/// Probes inside the tunnels tell which peers live, and QUIC keeps its own connections: pings are for the others, and
/// for the round trips to relays.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Members come and go by sync messages, which fill the DHT's table too: it need not ask everybody all the time.
const BOOTSTRAP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// How long a request may take, through the slowest relay, the other core's thinking included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests that a stranger may have in work at once.
const MAX_JOINS: usize = 2;
/// Requests that a member may have in work at once, each up to [`MAX_SYNC`].
const MAX_SYNCS: usize = 8;
/// The same for [`MAX_REGISTRY`].
const MAX_REGISTRIES: usize = 8;
/// Requests to measure that a member may have in work at once: they are answered at once, and most with "busy".
const MAX_BENCHES: usize = 2;
/// Reflections that a member may have in work at once: they are answered at once.
const MAX_REFLECTIONS: usize = 2;
/// Requests to act on this node that a member may have in work at once; some wait for a third node.
const MAX_ADMINS: usize = 4;

/// Connections that are being set up, of members and strangers together. One beyond is refused and must be tried again.
const MAX_PENDING_INCOMING: u32 = 512;
/// Dials of ours under way, each to all addresses of a peer. What is beyond is tried again, as after any failure.
const MAX_PENDING_OUTGOING: u32 = 512;
/// Direct ones over each transport and a circuit or two, twice over while connections are being replaced.
const MAX_ESTABLISHED_PER_PEER: u32 = 8;
/// Apart, so that strangers who fill the one half do not keep us from dialing members.
const MAX_ESTABLISHED_INCOMING: u32 = 2048;
const MAX_ESTABLISHED_OUTGOING: u32 = 2048;

/// What the DHT keeps for others: a record per member and some to spare, each as long as a record may be; and as many
/// entries of the registry, half as long.
const MAX_RECORDS: usize = 8192;
const MAX_RECORD: usize = 16 << 10;
pub(super) const MAX_ENTRIES: usize = 8192;
pub(super) const MAX_ENTRY: usize = 8 << 10;

/// All protocols.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub strangers: Strangers,
    pub identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub join: request_response::Behaviour<Codec>,
    pub relay_server: relays::Server,
    relay_client: relay::client::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    pub gate: Gate<MemberProtocols>,
}

/// The DHT, with our part of it in memory.
pub(super) type MemoryKad = kad::Behaviour<MemoryStore>;

/// The protocols behind the gate.
#[derive(NetworkBehaviour)]
pub(super) struct MemberProtocols {
    /// Absent until the network is known: its protocol name depends on it.
    pub kad: Toggle<MemoryKad>,
    pub sync: request_response::Behaviour<Codec>,
    pub registry: request_response::Behaviour<Codec>,
    pub bench: request_response::Behaviour<Codec>,
    pub reflect: request_response::Behaviour<Codec>,
    pub admin: request_response::Behaviour<Codec>,
    carrier: carrier::Behaviour,
    dcutr: dcutr::Behaviour,
}

impl Behaviour {
    /// Before the network is known.
    pub fn new(
        key: PublicKey,
        relay_client: relay::client::Behaviour,
        guests: relays::Guests,
        reservation: Duration,
        proof_limit: Duration,
        mdns: bool,
        mailbox: mailbox::Sender<Event>,
    ) -> io::Result<Self> {
        let local = key.to_peer_id();
        let members = Members::default();
        let mdns = mdns
            .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local))
            .transpose()?;
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits()),
            strangers: Strangers::new(members.clone(), proof_limit),
            identify: identify::Behaviour::new(
                identify::Config::new(IDENTIFY.to_owned(), key)
                    .with_agent_version(AGENT.to_owned())
                    .with_push_listen_addr_updates(true),
            ),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_INTERVAL)),
            join: requests(JOIN, Codec::new(MAX_JOIN, MAX_ADMISSION), MAX_JOINS),
            relay_server: relays::Server::new(local, members.clone(), guests, reservation),
            relay_client,
            mdns: mdns.into(),
            gate: Gate::new(
                MemberProtocols {
                    kad: None.into(),
                    sync: requests(SYNC, Codec::new(MAX_SYNC, MAX_SYNC), MAX_SYNCS),
                    registry: requests(REGISTRY, short(MAX_REGISTRY), MAX_REGISTRIES),
                    bench: requests(BENCH, short(bench::wire::MAX_MESSAGE), MAX_BENCHES),
                    reflect: requests(REFLECT, short(reflect::wire::MAX_MESSAGE), MAX_REFLECTIONS),
                    admin: requests(ADMIN, Codec::new(MAX_ASK, MAX_ANSWER), MAX_ADMINS),
                    carrier: carrier::Behaviour::new(local, mailbox),
                    dcutr: dcutr::Behaviour::new(local),
                },
                members,
            ),
        })
    }
}

fn limits() -> ConnectionLimits {
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
        .with_max_established_per_peer(Some(MAX_ESTABLISHED_PER_PEER))
        .with_max_established_incoming(Some(MAX_ESTABLISHED_INCOMING))
        .with_max_established_outgoing(Some(MAX_ESTABLISHED_OUTGOING))
}

fn short(limit: usize) -> Codec {
    Codec::new(limit, limit)
}

fn requests(
    protocol: StreamProtocol,
    codec: Codec,
    at_once: usize,
) -> request_response::Behaviour<Codec> {
    request_response::Behaviour::with_codec(
        codec,
        [(protocol, ProtocolSupport::Full)],
        request_response::Config::default()
            .with_request_timeout(REQUEST_TIMEOUT)
            .with_max_concurrent_streams(at_once),
    )
}

/// The DHT of the network whose name for it ends in `suffix`.
pub(super) fn kad(local: PeerId, suffix: &str, mode: DhtMode) -> MemoryKad {
    let name = StreamProtocol::try_from_owned(format!("/hivevpn/kad/{suffix}/1"))
        .expect("the name begins with a slash");
    let mut config = kad::Config::new(name);
    // What is put here is looked at first: see `dht.rs`.
    config.set_record_filtering(kad::StoreInserts::FilterBoth);
    // The swarm inserts members when they are authenticated; nobody else gets in.
    config.set_kbucket_inserts(kad::BucketInserts::Manual);
    config.set_periodic_bootstrap_interval(Some(BOOTSTRAP_INTERVAL));
    let store = MemoryStoreConfig {
        max_records: MAX_RECORDS + MAX_ENTRIES,
        max_value_bytes: MAX_RECORD,
        // Providers are not used.
        max_providers_per_key: 1,
        max_provided_keys: 1,
    };
    let store = MemoryStore::with_config(local, store);
    let mut kad = kad::Behaviour::with_config(local, store, config);
    // By itself it would be a client as long as it knows of no external address: a network that is all behind
    // NATs would have no server.
    kad.set_mode(Some(match mode {
        DhtMode::Server => kad::Mode::Server,
        DhtMode::Client => kad::Mode::Client,
    }));
    kad
}
