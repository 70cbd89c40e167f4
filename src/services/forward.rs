//! One port of this machine that leads to a member's service.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hivevpn_core::registry::Transport;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    Snapshot,
    destination::Destination,
    flows::{Flows, SWEEP},
    probe,
    room::{OF_ONE_LISTENER, Room},
    sockets::Listening,
    span,
    splice::{self, Buffer},
};

/// A member that is reached accepts in a round trip or two; then it is the next one's turn.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// How long a connection waits for a node that is coming back.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where nobody answered at all, it is tried again after this, or when something has changed.
const PAUSE: Duration = Duration::from_millis(500);
/// A port that could not be had is tried again so often.
const RETRY: Duration = Duration::from_secs(5);

/// What survives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Where it listens.
    pub listen: SocketAddr,
    /// UDP, not TCP.
    pub udp: bool,
    /// Where it leads.
    pub to: String,
    /// When it is over, in seconds since 1970.
    pub end: Option<u64>,
}

impl Kept {
    /// What it carries.
    pub fn transport(&self) -> Transport {
        match self.udp {
            true => Transport::Udp,
            false => Transport::Tcp,
        }
    }
}

/// Its socket.
pub enum Opened {
    /// For connections.
    Tcp(TcpListener),
    /// For datagrams.
    Udp(Arc<UdpSocket>),
}

impl Opened {
    /// Begins to listen.
    pub fn open(listen: SocketAddr, transport: Transport) -> io::Result<Self> {
        match transport {
            Transport::Tcp => TcpListener::open(listen).map(Self::Tcp),
            Transport::Udp => Listening::open(listen).map(Self::Udp),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}

/// How it is.
#[derive(Debug, Default)]
pub struct Condition {
    carried: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Condition {
    /// Connections or flows that are open.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }

    /// What is wrong, if anything is.
    pub fn problem(&self) -> Option<String> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}

/// What it takes to keep it going.
#[derive(Clone)]
pub struct Forward {
    /// What it is.
    pub kept: Kept,
    /// Where it leads.
    pub to: Destination,
    /// How it is.
    pub condition: Arc<Condition>,
    /// Members and services.
    pub snapshots: watch::Receiver<Snapshot>,
    /// For connections.
    pub room: Room,
}

impl Forward {
    /// Carries what comes in, until its lifetime is over.
    pub async fn run(self, opened: Option<Opened>) {
        let end = self.kept.end;
        tokio::select! {
            () = self.carry(opened) => {}
            () = span::over(end) => {}
        }
    }

    async fn carry(self, opened: Option<Opened>) {
        let opened = match opened {
            Some(opened) => opened,
            None => self.open().await,
        };
        match opened {
            Opened::Tcp(listener) => self.carry_connections(listener).await,
            Opened::Udp(socket) => self.carry_datagrams(socket).await,
        }
    }

    /// Waits until its port is free.
    async fn open(&self) -> Opened {
        let Kept { listen, .. } = self.kept;
        loop {
            match Opened::open(listen, self.kept.transport()) {
                Ok(opened) => {
                    self.condition.set_problem(None);
                    return opened;
                }
                Err(error) => self
                    .condition
                    .set_problem(Some(format!("cannot listen on {listen}: {error}"))),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    // ---- TCP ---------------------------------------------------------------------------------------------

    async fn carry_connections(self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => match self.room.enter() {
                        Some(place) if connections.len() < OF_ONE_LISTENER => {
                            let this = self.clone();
                            connections.spawn(async move {
                                this.lead(stream).await;
                                drop(place);
                            });
                        }
                        Some(_) | None => splice::reset(stream),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
            self.condition
                .carried
                .store(connections.len() as u64, Ordering::Relaxed);
        }
    }

    /// Carries one connection to wherever the service is now.
    async fn lead(&self, stream: TcpStream) {
        let from = stream.peer_addr().ok();
        match self.reach().await {
            Ok(connection) => {
                self.condition.set_problem(None);
                if let Err(error) = splice::join(stream, connection).await {
                    tracing::trace!(?from, to = %self.to, %error, "a connection broke");
                }
            }
            Err(problem) => {
                tracing::debug!(?from, to = %self.to, %problem, "a connection leads nowhere");
                self.condition.set_problem(Some(problem));
                splice::reset(stream);
            }
        }
    }

    /// Connects with the best that there is, and waits a while for there to be one.
    async fn reach(&self) -> Result<TcpStream, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut snapshots = self.snapshots.clone();
        loop {
            let places = self
                .to
                .places(&snapshots.borrow_and_update(), Transport::Tcp);
            let mut problem = match &places {
                Ok(_) => format!("no node that offers {} answers", self.to),
                Err(nowhere) => nowhere.to_string(),
            };
            for place in places.into_iter().flatten() {
                let limit = deadline.min(Instant::now() + CONNECT_LIMIT);
                match timeout_at(limit, probe::connect(place)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => problem = format!("{place}: {error}"),
                    Err(_) => problem = format!("{place} does not answer"),
                }
            }
            if timeout_at(deadline, tokio::time::sleep(PAUSE))
                .await
                .is_err()
            {
                return Err(problem);
            }
        }
    }

    // ---- UDP ---------------------------------------------------------------------------------------------

    async fn carry_datagrams(mut self, socket: Arc<UdpSocket>) {
        let here = self.kept.listen.ip();
        let mut flows = Flows::default();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut buffer = Buffer::take();
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => match received {
                    Ok((count, from)) => {
                        if flows.destination(from, here).is_none() {
                            self.begin(&mut flows, from, &socket).await;
                        }
                        // What does not get through, the program that sent it sends again.
                        let _ = flows.pass(from, here, &buffer[..count]);
                    }
                    Err(error) => tracing::trace!(%error, "receiving"),
                },
                Ok(()) = self.snapshots.changed() => self.sweep(&mut flows),
                _ = sweep.tick() => self.sweep(&mut flows),
            }
            self.condition
                .carried
                .store(flows.len() as u64, Ordering::Relaxed);
        }
    }

    async fn begin(&self, flows: &mut Flows, from: SocketAddr, socket: &Arc<UdpSocket>) {
        let places = self.to.places(&self.snapshots.borrow(), Transport::Udp);
        let problem = match places.as_deref() {
            Ok([best, ..]) => {
                let here = self.kept.listen.ip();
                let begun = flows.begin(from, here, socket.clone(), *best).await;
                begun.err().map(|error| format!("{best}: {error}"))
            }
            Ok([]) => Some(format!("nobody offers {}", self.to)),
            Err(nowhere) => Some(nowhere.to_string()),
        };
        self.condition.set_problem(problem);
    }

    /// A flow whose service is better had elsewhere now goes there with its next datagram, if its own node has gone.
    fn sweep(&self, flows: &mut Flows) {
        let snapshot = self.snapshots.borrow();
        flows.sweep(|_, _, to| {
            let owner = snapshot.member_at(to.ip());
            owner.is_some_and(|owner| owner.this || owner.online)
        });
    }
}
