//! Every model of the network at one address: `http://ai.<net>.hive.internal/v1`.
//!
//! Members publish their model servers with the models that they have. This is the other end: an HTTP server on this
//! machine that speaks as OpenAI does, looks into a request for its model, and passes it on to a member that has it.
//! Programs need to know one URL, and no node.
//!
//! 1. `listening` answers on port 80 of our overlay addresses and on a loopback port, to this machine alone unless
//!    configured otherwise; `guard` keeps web pages out.
//! 2. `api` answers what the whole network answers together (`/v1/models`), and hands on the rest.
//! 3. `question` reads a request's body up to a bound, so that it can be sent more than once, and finds the model in it.
//! 4. `catalog` knows who has which model; `balance` puts those members in order: busy ones last.
//! 5. `routing` asks one after the other until there is the first byte of an answer, over connections that `pool` keeps.
//! 6. `passage` passes the answer on as it comes. When it breaks off, the client is told so in a way that it
//!    understands; when the client goes, the member learns of that at once.
//!
//! Bodies are passed on byte for byte, with one exception: a model named `<model>@<node>` loses its `@<node>`.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Semaphore, mpsc, watch};

use crate::{control::services::Models, names::endpoint_of, services::Snapshot};

mod api;
mod balance;
mod catalog;
mod guard;
mod listening;
mod passage;
mod pool;
mod problem;
mod question;
mod routing;
#[cfg(test)]
mod tests;

use balance::Balance;
use pool::Pool;

/// Where the endpoint is on our overlay addresses: `http://` without a port.
const OVERLAY_PORT: u16 = 80;
/// The loopback port of a node that names none, or one of the next if another network's has it.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7780);
/// Kibibytes of request bodies that are kept in memory at once, to be sent again. Requests beyond it are passed on as they
/// come, without a second try.
const KEPT_KIB: usize = 256 << 10;

/// What the user has configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The loopback address to answer on.
    pub listen: Listen,
    /// Whether to answer on port 80 of our overlay addresses.
    pub on_overlay: bool,
    /// Whether other members are answered as well, who then ask in our name.
    pub serve_members: bool,
    /// How long a member's server may take to accept a connection before another is asked.
    pub connect_timeout: Duration,
    /// How long it may take for the first byte of a stream before another is asked.
    pub first_token_timeout: Duration,
    /// How long it may take for an answer that is no stream.
    pub answer_timeout: Duration,
}

/// The loopback address to answer on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// None.
    Off,
    /// This one.
    At(SocketAddr),
    /// 127.0.0.1:7780, or the next port that is free.
    Usual,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::Usual,
            on_overlay: true,
            serve_members: false,
            connect_timeout: Duration::from_secs(3),
            first_token_timeout: Duration::from_secs(2 * 60),
            answer_timeout: Duration::from_secs(10 * 60),
        }
    }
}

/// The running endpoint.
#[derive(Clone)]
pub struct Handle {
    endpoint: Arc<Endpoint>,
    end: mpsc::Sender<()>,
    /// Closed once it has ended.
    ended: watch::Receiver<()>,
}

/// Starts the endpoint on the runtime that this is called on. `resolves` says whether this machine resolves the network's
/// names.
pub fn start(
    snapshots: watch::Receiver<Snapshot>,
    config: Config,
    resolves: watch::Receiver<bool>,
) -> Handle {
    let endpoint = Arc::new(Endpoint::new(snapshots, config, resolves));
    let (end, asked_to_end) = mpsc::channel(1);
    let (running, ended) = watch::channel(());
    let run = listening::run(endpoint.clone(), asked_to_end);
    tokio::spawn(async move {
        run.await;
        drop(running);
    });
    Handle {
        endpoint,
        end,
        ended,
    }
}

impl Handle {
    /// Every live model of every member, and where to ask for them.
    pub fn list(&self) -> Models {
        let snapshot = self.endpoint.snapshot();
        Models {
            endpoint: self.endpoint.url(&snapshot),
            models: catalog::listed(&snapshot),
        }
    }

    /// Stops listening and ends what is under way.
    pub async fn end(mut self) {
        // Once is enough.
        let _ = self.end.try_send(());
        while self.ended.changed().await.is_ok() {}
    }
}

/// What its connections share.
struct Endpoint {
    config: Config,
    snapshots: watch::Receiver<Snapshot>,
    resolves: watch::Receiver<bool>,
    bound: Mutex<Bound>,
    balance: Balance,
    pool: Pool,
    /// Kibibytes of request bodies that may still be kept.
    room: Arc<Semaphore>,
}

/// Where it listens at the moment.
#[derive(Debug, Default)]
struct Bound {
    loopback: Option<SocketAddr>,
    overlay: BTreeSet<SocketAddr>,
}

impl Endpoint {
    fn new(
        snapshots: watch::Receiver<Snapshot>,
        config: Config,
        resolves: watch::Receiver<bool>,
    ) -> Self {
        Self {
            config,
            snapshots,
            resolves,
            bound: Mutex::default(),
            balance: Balance::default(),
            pool: Pool::default(),
            room: Arc::new(Semaphore::new(KEPT_KIB)),
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    fn bound(&self) -> MutexGuard<'_, Bound> {
        // Whoever panicked with the lock held has left addresses behind.
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The base URL that answers from this machine: the one that is easiest to remember. Empty while nothing listens.
    fn url(&self, snapshot: &Snapshot) -> String {
        let bound = self.bound();
        let overlay = snapshot
            .us()
            .map(|us| SocketAddr::new(us.address(), OVERLAY_PORT))
            .filter(|address| bound.overlay.contains(address));
        match (overlay, bound.loopback) {
            (Some(_), _) if *self.resolves.borrow() => {
                format!("http://{}/v1", endpoint_of(&snapshot.network))
            }
            (_, Some(loopback)) => format!("http://{loopback}/v1"),
            (Some(overlay), None) => match overlay {
                SocketAddr::V4(v4) => format!("http://{}/v1", v4.ip()),
                SocketAddr::V6(v6) => format!("http://[{}]/v1", v6.ip()),
            },
            (None, None) => String::new(),
        }
    }
}
