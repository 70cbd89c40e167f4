//! A member with a program of its own, which keeps what others leave in the DHT and gives out what it likes.
//!
//! It is the test binary, started again on a host on which `hivevpn` has joined and was stopped: with that node's keys and
//! certificate it passes the gate. Of the protocols of members it speaks the DHT's and the registry's, over TCP. A socket
//! beside its state takes [`Order`]s, each answered by what it has [`Heard`].

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use hivevpn::identity::Identity;
use hivevpn::store::Store;
use hivevpn_core::membership::{
    Credential, Descriptor, Features, MemberRecord, Name, Network, Signer, UnixTime,
};
use hivevpn_core::session;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, noise, ping, tcp, yamux};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::protocols::{Call, Protocols};
use crate::deadline::eventually;
use crate::lab::{Host, Process};

/// The test that is this process, and what tells it so.
const ENTRY: &str = "hostile_storer::the_hostile_storer_itself";
const IS_STORER: &str = "HIVEVPN_E2E_STORER";

const SOCKET: &str = "storer.sock";
const PORT: u16 = 7777;
/// Members that are not connected are dialled this often.
const REDIAL: Duration = Duration::from_millis(500);
/// How long the process may take to start, and to answer.
const START: Duration = Duration::from_secs(20);

/// Longer than any test waits.
pub const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// What the storer is to do from now on.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Nothing: only to say what it has heard.
    Tell,
    /// Answer so whoever asks the DHT for this place.
    Serve { slot: Vec<u8>, answer: Answer },
    /// Keep what others bring to this place, and serve it from then on.
    KeepHonestly { slot: Vec<u8> },
    /// Leave this at this place in the DHT's parts of all others.
    Put { slot: Vec<u8>, value: Vec<u8> },
    /// Send this message about the registry to all.
    Say { body: Vec<u8> },
    /// Answer so to messages about the registry: to comparisons, and to whoever wants entries; to the latter never, if none.
    Answer {
        versions: Vec<u8>,
        records: Option<Vec<u8>>,
    },
}

/// What it says of a place in the DHT.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Answer {
    /// What lies there.
    pub value: Vec<u8>,
    /// What place it says that this is, if not the one that was asked for.
    pub place: Option<Vec<u8>>,
    /// So much later.
    pub after: Duration,
}

impl Answer {
    /// This, at once, in its place.
    pub fn of(value: &[u8]) -> Self {
        Self {
            value: value.to_vec(),
            ..Self::default()
        }
    }
}

/// What others have said.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Heard {
    /// Those that have let it in.
    pub admitted_by: BTreeSet<String>,
    /// The places that others asked for, in that order.
    pub asked_for: Vec<Vec<u8>>,
    /// What was left here: place, what, by whom.
    pub put: Vec<(Vec<u8>, Vec<u8>, String)>,
    /// Those that want entries and have got no answer.
    pub waiting: BTreeSet<String>,
}

/// What the storer knows, all its connections included.
pub(super) struct Mind {
    pub us: PeerId,
    pub network: Network,
    pub credential: Vec<u8>,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    pub heard: Heard,
    pub serves: BTreeMap<Vec<u8>, Answer>,
    pub keeps_honestly: BTreeSet<Vec<u8>>,
    pub versions: Vec<u8>,
    pub records: Option<Vec<u8>>,
}

impl Mind {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

// ---- the test's end -------------------------------------------------------------------------------------------

/// The running storer.
pub struct Storer {
    host: Host,
    _process: Process,
    pub papers: Papers,
}

impl Storer {
    /// Takes the place of the node that ran on `host`.
    pub fn start(host: &Host) -> Self {
        let papers = Papers::of(&host.directory().join("state"));
        let myself = std::env::current_exe().unwrap();
        let mut line = host.command(&[
            myself.as_os_str(),
            "--exact".as_ref(),
            ENTRY.as_ref(),
            "--ignored".as_ref(),
            "--nocapture".as_ref(),
        ]);
        let mut process = host.start(line.env(IS_STORER, host.address().to_string()));
        let socket = host.directory().join(SOCKET);
        eventually(START, "the storer answers", || {
            assert!(process.runs(), "{}{}", process.stdout(), process.stderr());
            UnixStream::connect(&socket).ok().map(drop)
        });
        Self {
            host: host.clone(),
            _process: process,
            papers,
        }
    }

    /// Its peer id.
    pub fn id(&self) -> String {
        self.papers.signer().peer_id().to_string()
    }

    pub fn order(&self, order: &Order) -> Heard {
        let mut stream = UnixStream::connect(self.host.directory().join(SOCKET)).unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        let line = serde_json::to_string(order).unwrap() + "\n";
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    pub fn heard(&self) -> Heard {
        self.order(&Order::Tell)
    }

    /// Serves this at once to whoever asks.
    pub fn serve(&self, slot: [u8; 32], value: &[u8]) {
        self.serve_so(slot, Answer::of(value));
    }

    pub fn serve_so(&self, slot: [u8; 32], answer: Answer) {
        let slot = slot.to_vec();
        self.order(&Order::Serve { slot, answer });
    }
}

/// What makes a node a member, from its disk.
pub struct Papers {
    identity: Identity,
    pub network: Network,
    credential: Credential,
    members: Vec<(PeerId, Vec<Multiaddr>)>,
}

impl Papers {
    fn of(state: &Path) -> Self {
        let store = Store::open(state).unwrap();
        let kept = store.membership().unwrap().expect("it was a member");
        let network = Network::decode(&kept.network).unwrap();
        let records = store.records().unwrap().into_iter();
        let members = records.map(|record| {
            let record = MemberRecord::decode(&record).unwrap();
            let member = record.verify(network.genesis(), now()).unwrap();
            (member.peer_id, member.descriptor.addresses)
        });
        Self {
            identity: Identity::load_or_create(state).unwrap(),
            credential: Credential::decode(&kept.credential).unwrap(),
            members: members.collect(),
            network,
        }
    }

    pub fn signer(&self) -> Signer {
        self.identity.signer().unwrap()
    }

    /// What it shows to other members: that it is reached at this address.
    fn shown(&self, address: Multiaddr) -> Vec<u8> {
        let identity = session::Identity::new(*self.identity.wireguard);
        let descriptor = Descriptor {
            network: self.network.id(),
            seq: now().as_millis(),
            wireguard_key: identity.public().0,
            name: Name::parse("storer").unwrap(),
            addresses: vec![address],
            features: Features::NONE,
        };
        MemberRecord {
            credential: self.credential.clone(),
            descriptor: descriptor.seal(&self.signer()),
        }
        .encode()
    }
}

pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime(since.unwrap().as_secs())
}

// ---- the process's end ----------------------------------------------------------------------------------------

#[derive(NetworkBehaviour)]
struct Behaviour {
    protocols: Protocols,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
}

/// Runs until it is killed, if this is its process.
pub fn run() {
    let Ok(address) = std::env::var(IS_STORER) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(serve(&address));
}

async fn serve(address: &str) {
    let papers = Papers::of(Path::new("state"));
    let address: Multiaddr = format!("/ip4/{address}/tcp/{PORT}").parse().unwrap();
    let mind = Arc::new(Mind {
        us: papers.signer().peer_id(),
        credential: papers.shown(address.clone()),
        network: papers.network,
        state: Mutex::default(),
    });
    let mut swarm = libp2p::SwarmBuilder::with_existing_identity(papers.identity.keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::new(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| Behaviour {
            protocols: Protocols::new(Arc::clone(&mind)),
            identify: identify::Behaviour::new(identify::Config::new(
                "/hivevpn/1".to_owned(),
                key.public(),
            )),
            ping: ping::Behaviour::default(),
        })
        .unwrap()
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(NEVER)
                // An answer that never comes is still being negotiated.
                .with_max_negotiating_inbound_streams(4096)
        })
        .build();
    swarm.listen_on(address).unwrap();
    let orders = UnixListener::bind(SOCKET).unwrap();
    let mut redial = tokio::time::interval(REDIAL);
    loop {
        tokio::select! {
            _ = redial.tick() => dial(&mut swarm, &papers.members),
            event = swarm.select_next_some() => on_event(&mind, &event),
            order = orders.accept() => {
                let (mut stream, _) = order.unwrap();
                let mut line = String::new();
                let (reader, mut writer) = stream.split();
                let _ = tokio::io::BufReader::new(reader).read_line(&mut line).await;
                // Somebody only wanted to know whether it is there.
                let Ok(order) = serde_json::from_str(&line) else { continue };
                obey(order, &mind, &mut swarm.behaviour_mut().protocols);
                let heard = serde_json::to_string(&mind.state().heard).unwrap() + "\n";
                let _ = writer.write_all(heard.as_bytes()).await;
            }
        }
    }
}

fn dial(swarm: &mut Swarm<Behaviour>, members: &[(PeerId, Vec<Multiaddr>)]) {
    let us = *swarm.local_peer_id();
    for (peer, addresses) in members.iter().filter(|(peer, _)| *peer != us) {
        let is_tcp = |address: &&Multiaddr| address.to_string().contains("/tcp/");
        let dial = DialOpts::peer_id(*peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses.iter().filter(is_tcp).cloned().collect())
            .build();
        // It is connected, or will be tried again.
        let _ = swarm.dial(dial);
    }
}

fn on_event(mind: &Mind, event: &SwarmEvent<BehaviourEvent>) {
    if let SwarmEvent::ConnectionClosed {
        peer_id,
        num_established: 0,
        ..
    } = event
    {
        mind.state().heard.admitted_by.remove(&peer_id.to_string());
    }
}

fn obey(order: Order, mind: &Mind, protocols: &mut Protocols) {
    match order {
        Order::Tell => {}
        Order::Serve { slot, answer } => {
            let mut state = mind.state();
            state.keeps_honestly.remove(&slot);
            state.serves.insert(slot, answer);
        }
        Order::KeepHonestly { slot } => drop(mind.state().keeps_honestly.insert(slot)),
        Order::Put { slot, value } => protocols.call_all(&Call::Put { slot, value }),
        Order::Say { body } => protocols.call_all(&Call::Say { body }),
        Order::Answer { versions, records } => {
            let mut state = mind.state();
            state.versions = versions;
            state.records = records;
        }
    }
}
