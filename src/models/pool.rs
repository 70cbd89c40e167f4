//! Connections to members' servers, kept for the next request.
//!
//! A connection is either with one request or in here; dropping it closes it at once, which is how a server learns that
//! nobody waits for its answer any more. What lies here may have been closed by its other end, so whoever takes one must be
//! ready to open another.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use super::question::Sent;

/// Servers close what is unused for some seconds; most wait longer than this.
const MAX_IDLE: Duration = Duration::from_secs(20);
/// Kept to one address, and to all.
const MAX_KEPT: (usize, usize) = (16, 256);
/// The longest head of an answer.
const MAX_HEAD: usize = 64 << 10;
/// A connection whose answer has been read must be ready for another one by then.
const SETTLING: Duration = Duration::from_secs(1);

/// Connections without a request.
#[derive(Clone, Default)]
pub(super) struct Pool(Arc<Mutex<BTreeMap<SocketAddr, Vec<Idle>>>>);

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to a server.
pub(super) struct Connection {
    to: SocketAddr,
    send: SendRequest<Sent>,
    /// Whether it has carried a request before.
    pub is_reused: bool,
    _driver: Driver,
}

/// What moves a connection's bytes. The connection is closed with it.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Opens one; the error is for people.
    pub async fn open(to: SocketAddr, within: Duration) -> Result<Self, String> {
        let opening = async {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            std::io::Result::Ok(stream)
        };
        let stream = match timeout(within, opening).await {
            Ok(opened) => opened.map_err(|error| error.to_string())?,
            Err(_) => return Err(format!("it accepts no connection within {within:?}")),
        };
        let (send, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%to, %error, "a connection to a model server has ended");
            }
        });
        Ok(Self {
            to,
            send,
            is_reused: false,
            _driver: Driver(driver),
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub async fn send(&mut self, request: Request<Sent>) -> hyper::Result<Response<Incoming>> {
        self.send.send_request(request).await
    }
}

impl Pool {
    /// The connection to this address that was used last.
    pub fn take(&self, to: SocketAddr) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle();
        let kept = idle.get_mut(&to)?;
        let taken = loop {
            match kept.pop() {
                Some(idle) if idle.is_good(now) => break Some(idle.connection),
                Some(_) => {}
                None => break None,
            }
        };
        if kept.is_empty() {
            idle.remove(&to);
        }
        taken
    }

    /// Keeps a connection whose answer has been read to its end, if it can carry another one.
    pub fn keep(&self, mut connection: Connection) {
        let pool = self.clone();
        tokio::spawn(async move {
            if !matches!(timeout(SETTLING, connection.send.ready()).await, Ok(Ok(()))) {
                return;
            }
            connection.is_reused = true;
            pool.put(connection);
        });
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.idle();
        let all: usize = idle.values().map(Vec::len).sum();
        let kept = idle.entry(connection.to).or_default();
        if kept.len() < MAX_KEPT.0 && all < MAX_KEPT.1 {
            let since = Instant::now();
            kept.push(Idle { connection, since });
        }
    }

    /// Closes what was not used for long.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.idle().retain(|_, kept| {
            kept.retain(|idle| idle.is_good(now));
            !kept.is_empty()
        });
    }

    /// How many connections are kept.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.idle().values().map(Vec::len).sum()
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Vec<Idle>>> {
        // Whoever panicked with the lock held has lost a connection at worst.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_good(&self, now: Instant) -> bool {
        self.connection.send.is_ready() && now < self.since + MAX_IDLE
    }
}
