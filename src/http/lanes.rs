//! Connections to the backend: a few are kept for the next request, for a moment.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{Method, Request, Response, body::Incoming, client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{
    HEAD_ROOM,
    line::{Backend, Line},
    question::Question,
};
use crate::services::probe;

/// Connections that wait for a request. More would keep threads of the backend busy.
const KEPT: usize = 16;
/// For how long they wait: less than any server in use waits before it hangs up, as a request that meets that is lost.
const KEPT_FOR: Duration = Duration::from_millis(1500);
/// The backend is on this machine, or next to it.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to the backend that carries one request at a time.
pub(super) struct Lane {
    sender: http1::SendRequest<Question>,
    line: Arc<Line>,
    lanes: Arc<Lanes>,
}

impl Lane {
    /// Its request is answered.
    pub fn give_back(self) {
        if !self.line.is_reusable() || self.sender.is_closed() {
            return;
        }
        let lanes = Arc::clone(&self.lanes);
        let until = Instant::now() + KEPT_FOR;
        {
            let mut kept = lanes.kept();
            if kept.len() >= KEPT {
                return;
            }
            kept.push((self.sender, self.line, until));
        }
        let lanes = Arc::downgrade(&lanes);
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            if let Some(lanes) = lanes.upgrade() {
                let now = Instant::now();
                lanes.kept().retain(|(_, _, until)| *until > now);
            }
        });
    }
}

/// Why the backend gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("nothing answers there ({0})")]
    Unreachable(#[source] io::Error),
    #[error("it says nothing for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("it does not answer as HTTP has it ({0})")]
    Broken(#[source] hyper::Error),
}

/// The connections to one backend.
pub(super) struct Lanes {
    target: SocketAddr,
    kept: Mutex<Vec<Kept>>,
}

/// A connection, and until when it is kept.
type Kept = (http1::SendRequest<Question>, Arc<Line>, Instant);

impl Lanes {
    pub fn to(target: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            target,
            kept: Mutex::default(),
        })
    }

    /// What a request is for that does not say so: HTTP/1.0 leaves it open, and HTTP/1.1 does not.
    pub fn host(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.target.to_string()).ok()
    }

    /// Has a request answered, within this time after all of it was sent.
    ///
    /// A request that meets a connection which the backend is just closing is sent again if none of it was sent, or if
    /// sending it twice does no harm.
    pub async fn ask(
        self: &Arc<Self>,
        mut request: Request<Question>,
        limit: Duration,
    ) -> Result<(Response<Incoming>, Lane), NoAnswer> {
        loop {
            let (mut lane, is_new) = match self.take() {
                Some(lane) => (lane, false),
                None => (self.open().await?, true),
            };
            let spare = if is_new { None } else { copy(&request) };
            let given = request.body().given();
            request.body_mut().goes_over(&lane.line);
            let answered = lane.sender.try_send_request(request);
            let silence = async {
                given.notified().await;
                tokio::time::sleep(limit).await;
            };
            let mut failed = tokio::select! {
                biased;
                answered = answered => match answered {
                    Ok(response) => return Ok((response, lane)),
                    Err(failed) => failed,
                },
                () = silence => return Err(NoAnswer::Silent(limit)),
            };
            let unsent = failed.take_message().filter(|_| !is_new);
            let error = failed.into_error();
            let is_stale =
                error.is_canceled() || error.is_closed() || error.is_incomplete_message();
            request = match unsent.or(spare.filter(|_| is_stale)) {
                Some(request) => request,
                None => return Err(NoAnswer::Broken(error)),
            };
        }
    }

    /// A connection that is kept and still good.
    fn take(self: &Arc<Self>) -> Option<Lane> {
        let mut kept = self.kept();
        let now = Instant::now();
        kept.retain(|(sender, _, until)| *until > now && !sender.is_closed());
        let ready = kept.iter().rposition(|(sender, ..)| sender.is_ready())?;
        let (sender, line, _) = kept.swap_remove(ready);
        Some(Lane {
            sender,
            line,
            lanes: Arc::clone(self),
        })
    }

    async fn open(self: &Arc<Self>) -> Result<Lane, NoAnswer> {
        let connecting = tokio::time::timeout(CONNECT, probe::connect(self.target));
        let stream = connecting
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(NoAnswer::Unreachable)?;
        // Only slower, if it fails.
        let _ = stream.set_nodelay(true);
        let line = Arc::new(Line::default());
        let io = TokioIo::new(Backend::new(stream, Arc::clone(&line)));
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .max_buf_size(HEAD_ROOM)
            .handshake(io)
            .await
            .map_err(NoAnswer::Broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "a connection to a backend ended");
            }
        });
        Ok(Lane {
            sender,
            line,
            lanes: Arc::clone(self),
        })
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same request once more, if it may be sent twice: it has no body, and changes nothing.
fn copy(request: &Request<Question>) -> Option<Request<Question>> {
    let is_safe = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    );
    let body = request.body().empty_copy().filter(|_| is_safe)?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}
