//! Where the endpoint listens, and to whom.
//!
//! The loopback port is there from the start; our overlay addresses come and change with the network. Whoever connects from
//! elsewhere than this machine is not answered, unless members are to be served: then the tunnel vouches for whose address
//! it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{DEFAULT_LISTEN, Endpoint, Listen, OVERLAY_PORT, api};
use crate::services::snapshot::Member;

/// Ports after the usual one that are tried for the second and further networks of a machine.
const MAX_TRIES: u16 = 64;
/// How often an address is tried again that somebody else has, and idle connections are looked through.
const PERIOD: Duration = Duration::from_secs(5);
/// Connections at once; others wait.
const MAX_CONNECTIONS: usize = 1024;
/// How long a client may take for the head of a request, and how long it may keep a connection without one.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// After an error of `accept`, which is about this machine being short of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs the endpoint until told to end.
pub(super) async fn run(endpoint: Arc<Endpoint>, mut asked_to_end: mpsc::Receiver<()>) {
    let mut snapshots = endpoint.snapshots.clone();
    let mut listeners = Listeners::new(endpoint);
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        listeners.adjust().await;
        tokio::select! {
            _ = asked_to_end.recv() => break,
            changed = snapshots.changed() => if changed.is_err() {
                // Nobody tells any more: the data loop has gone. The end is to come.
                asked_to_end.recv().await;
                break;
            },
            _ = period.tick() => listeners.endpoint.pool.sweep(),
        }
    }
    listeners.close().await;
}

struct Listeners {
    endpoint: Arc<Endpoint>,
    open: BTreeMap<SocketAddr, JoinHandle<()>>,
    /// What could not be had, so that it is said once.
    missed: BTreeSet<SocketAddr>,
    room: Arc<Semaphore>,
}

impl Listeners {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            open: BTreeMap::new(),
            missed: BTreeSet::new(),
            room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Listens where it should and not elsewhere.
    async fn adjust(&mut self) {
        self.adjust_loopback().await;
        let wanted = self.overlay();
        let bound = std::mem::take(&mut self.endpoint.bound().overlay);
        for old in bound.difference(&wanted) {
            self.end(old).await;
        }
        let mut kept: BTreeSet<_> = bound.intersection(&wanted).copied().collect();
        for new in wanted.difference(&bound) {
            if self.listen(*new).await.is_some() {
                kept.insert(*new);
            }
        }
        self.endpoint.bound().overlay = kept;
    }

    fn overlay(&self) -> BTreeSet<SocketAddr> {
        let snapshot = self.endpoint.snapshot();
        let us = snapshot.us().filter(|_| self.endpoint.config.on_overlay);
        us.into_iter()
            .flat_map(Member::addresses)
            .map(|address| SocketAddr::new(address, OVERLAY_PORT))
            .collect()
    }

    async fn adjust_loopback(&mut self) {
        if self.endpoint.bound().loopback.is_some() {
            return;
        }
        let bound = match self.endpoint.config.listen {
            Listen::Off => None,
            Listen::At(address) => self.listen(address).await,
            Listen::Usual => self.listen_usually().await,
        };
        self.endpoint.bound().loopback = bound;
    }

    async fn listen_usually(&mut self) -> Option<SocketAddr> {
        for offset in 0..MAX_TRIES {
            let address = SocketAddr::new(DEFAULT_LISTEN.ip(), DEFAULT_LISTEN.port() + offset);
            if let Ok(listener) = TcpListener::bind(address).await {
                self.serve(address, listener);
                return Some(address);
            }
        }
        if self.missed.insert(DEFAULT_LISTEN) {
            tracing::warn!(
                "no port from {DEFAULT_LISTEN} on is free for the models: set one in [models] listen"
            );
        }
        None
    }

    /// Where it listens now.
    async fn listen(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => {
                self.missed.remove(&address);
                let bound = listener.local_addr().unwrap_or(address);
                self.serve(bound, listener);
                return Some(bound);
            }
            Err(error) => error,
        };
        // An address that the interface does not have yet comes by itself.
        if error.kind() != ErrorKind::AddrNotAvailable && self.missed.insert(address) {
            let advice = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "it takes CAP_NET_BIND_SERVICE; the loopback port does without"
                }
                ErrorKind::AddrInUse => {
                    "another program has it; it is tried again, unless [models] on_overlay = false"
                }
                _ => "it is tried again",
            };
            tracing::warn!(%address, %error, "the models are not offered here: {advice}");
        }
        None
    }

    fn serve(&mut self, address: SocketAddr, listener: TcpListener) {
        tracing::debug!(%address, "the models are offered here");
        let accepting = accept(listener, self.endpoint.clone(), self.room.clone());
        self.open.insert(address, tokio::spawn(accepting));
    }

    async fn end(&mut self, address: &SocketAddr) {
        if let Some(accepting) = self.open.remove(address) {
            accepting.abort();
            // It was told to.
            let _ = accepting.await;
        }
    }

    async fn close(mut self) {
        let open: Vec<_> = self.open.keys().copied().collect();
        for address in open {
            self.end(&address).await;
        }
    }
}

/// Accepts connections, and ends them with itself.
async fn accept(listener: TcpListener, endpoint: Arc<Endpoint>, room: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, from)) if may_ask(&endpoint, from.ip()) => {
                let serving = serve(stream, endpoint.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Ok((_, from)) => tracing::debug!(%from, "asks for models and is not answered"),
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

pub(super) fn may_ask(endpoint: &Endpoint, from: IpAddr) -> bool {
    let snapshot = endpoint.snapshot();
    snapshot.is_here(from) || endpoint.config.serve_members && snapshot.member_at(from).is_some()
}

async fn serve(stream: TcpStream, endpoint: Arc<Endpoint>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "tokens may be held back");
    }
    let answering = service_fn(|request| api::answer(endpoint.clone(), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), answering)
        .await;
    if let Err(error) = serving {
        // Clients hang up as they like.
        tracing::trace!(%error, "a client's connection has ended");
    }
}
