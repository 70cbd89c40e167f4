//! The endpoint between real clients and servers on loopback: each member is an address of 127.0.0.0/8.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    time::Duration,
};

use hivevpn_core::{
    membership::{Name, UnixTime},
    node::ServiceStatus,
    registry::{
        Service,
        service::{Health, Kind, Model, OpenAi, State, Transport},
    },
};
use libp2p::PeerId;
use tokio::sync::watch;

use super::*;
use crate::services::snapshot::{Member, Taken};

mod ends;
mod failover;
mod passing;

/// A member, being told of.
#[derive(Debug, Clone)]
pub(super) struct Told(pub Member);

impl Deref for Told {
    type Target = Member;

    fn deref(&self) -> &Member {
        &self.0
    }
}

impl std::ops::DerefMut for Told {
    fn deref_mut(&mut self) -> &mut Member {
        &mut self.0
    }
}

impl Told {
    pub fn this(mut self) -> Self {
        self.this = true;
        self
    }

    pub fn offline(mut self) -> Self {
        self.online = false;
        self
    }

    pub fn at(mut self, address: Ipv4Addr) -> Self {
        self.ipv4 = Some(address);
        self
    }
}

pub(super) fn named(name: &str) -> Told {
    let name = Name::parse(name).unwrap();
    Told(Member {
        certified: Some(name.clone()),
        name,
        peer_id: PeerId::random(),
        ipv4: Some([10, 77, 0, 1].into()),
        ipv6: "fd00::1".parse().unwrap(),
        groups: BTreeSet::new(),
        online: true,
        rtt: None,
        this: false,
    })
}

pub(super) fn serving(member: &Member, port: u16, models: &[&str]) -> ServiceStatus {
    let model = |id: &&str| Model {
        id: (*id).to_owned(),
        context: None,
        max_output: None,
        price_in: None,
        price_out: None,
        quantization: None,
        loaded: None,
    };
    ServiceStatus {
        owner: member.peer_id,
        name: Name::parse("llm").unwrap(),
        service: Service {
            kind: Kind::OpenAi,
            transport: Transport::Tcp,
            port,
            path: None,
            to: BTreeSet::new(),
            health: Health {
                state: State::Up,
                since: UnixTime(1),
            },
            description: None,
            tags: BTreeSet::new(),
            openai: Some(OpenAi {
                models: models.iter().map(model).collect(),
                currency: None,
                payee: None,
            }),
        },
        load: None,
        issued: UnixTime(1000),
        expires: UnixTime(5000),
    }
}

pub(super) fn network<const N: usize, const M: usize>(
    members: [Told; N],
    services: [ServiceStatus; M],
) -> Snapshot {
    Snapshot {
        network: "home".to_owned(),
        interface: "hive0".to_owned(),
        members: Arc::new(members.into_iter().map(|told| told.0).collect()),
        services: Arc::new(services.into()),
        taken: Taken(UnixTime(2000)),
        ..Snapshot::default()
    }
}

/// A running endpoint.
struct Running {
    handle: Handle,
    snapshots: watch::Sender<Snapshot>,
    at: SocketAddr,
}

/// For tests: nothing takes long on this machine, but it may be busy.
fn config() -> Config {
    Config {
        listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 0))),
        on_overlay: false,
        connect_timeout: Duration::from_secs(10),
        ..Config::default()
    }
}

impl Running {
    async fn start(snapshot: Snapshot) -> Self {
        Self::configured(snapshot, config()).await
    }

    async fn configured(snapshot: Snapshot, config: Config) -> Self {
        let (snapshots, told) = watch::channel(snapshot);
        let handle = super::start(told, config, watch::channel(false).1);
        let at = loop {
            let bound = handle.endpoint.bound().loopback;
            match bound {
                Some(at) => break at,
                None => tokio::task::yield_now().await,
            }
        };
        Self {
            handle,
            snapshots,
            at,
        }
    }
}

#[tokio::test]
async fn the_url_is_one_that_answers_from_this_machine() {
    let us = named("us").this();
    let (resolving, resolves) = watch::channel(false);
    let (_keep, snapshots) = watch::channel(network([us.clone()], []));
    let endpoint = Endpoint::new(snapshots, config(), resolves);
    let snapshot = endpoint.snapshot();
    let url = || endpoint.url(&snapshot);
    assert_eq!(url(), "");
    endpoint.bound().overlay = us
        .addresses()
        .map(|address| SocketAddr::new(address, OVERLAY_PORT))
        .collect();
    assert_eq!(url(), "http://10.77.0.1/v1");
    endpoint.bound().loopback = Some(DEFAULT_LISTEN);
    assert_eq!(url(), "http://127.0.0.1:7780/v1");
    resolving.send(true).unwrap();
    assert_eq!(url(), "http://ai.home.hive.internal/v1");
    endpoint.bound().overlay.clear();
    assert_eq!(url(), "http://127.0.0.1:7780/v1", "nothing is at port 80");
}

#[tokio::test]
async fn two_endpoints_of_a_machine_have_a_port_each_and_give_it_back() {
    let usual = Config {
        listen: Listen::Usual,
        ..config()
    };
    let snapshot = network([named("us").this()], []);
    let one = Running::configured(snapshot.clone(), usual.clone()).await;
    let other = Running::configured(snapshot, usual).await;
    assert_ne!(one.at, other.at);
    one.handle.end().await;
    tokio::net::TcpListener::bind(one.at)
        .await
        .expect("it has given it back");
}

#[tokio::test]
async fn our_overlay_addresses_are_followed() {
    let on_overlay = Config {
        on_overlay: true,
        ..config()
    };
    // Not an address of this machine: it cannot be bound, which is tried again in silence.
    let running = Running::configured(network([named("us").this()], []), on_overlay).await;
    assert!(running.handle.endpoint.bound().overlay.is_empty());
    running.handle.end().await;
}
