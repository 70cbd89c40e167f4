//! The HTTP reverse proxy in front of the services of this node that speak plain HTTP.
//!
//! A [`Front`] stands between members and one backend. It does four things, and passes everything else through as it comes:
//! streams, uploads, upgrades and half-closed connections, in both directions, without holding anything back.
//!
//! - It says **who calls**: the tunnel lets nobody use another's address, so the backend learns the member's name, identity
//!   and groups from headers that no client can write.
//! - It reads requests **one way only**: hyper decides where each begins and ends and writes it anew; what could be read in
//!   two ways is refused.
//! - It **counts**, for model servers: requests, tokens and errors of each member and model, and keeps to [`Limits`].
//! - It knows how **busy** the backend is.
//!
//! A request goes from [`Front::serve`] through `headers` (what belongs to one connection stays there) and `caller` (who
//! calls) to `lanes` (connections to the backend), its body as a `question`; the `answer` goes back. `ends` and `line` carry
//! the end of a client's sending half across. `tally` reads what passes, `ledger` adds it up, `meter` keeps to what there is
//! for each.

use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use hivevpn_core::{
    membership::Name,
    registry::{Kind, Load},
};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header,
    http::{request, response},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use libp2p::PeerId;
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
};

use crate::services::Snapshot;

mod answer;
mod api_key;
mod caller;
mod ends;
mod headers;
mod lanes;
mod ledger;
mod limits;
mod line;
mod meter;
mod model_server;
mod question;
mod scan;
mod tally;
#[cfg(test)]
mod tests;

pub use answer::openai_error;
pub use api_key::ApiKey;
pub use headers::tokens;
pub use ledger::{Key, Ledger, Misfit, Row};
pub use limits::{Allowance, Limits};
pub use model_server::{Found, read_models};
pub use scan::Form;

use answer::{Answer, Passing, Refusal};
use caller::Caller;
use ends::{Answering, Client, Ends};
use lanes::{Lane, Lanes, NoAnswer};
use ledger::Page;
use meter::Meter;
use question::Question;
use tally::Tally;

/// Bytes of a head, from either side, and of what is read ahead of a slow reader.
const HEAD_ROOM: usize = 64 * 1024;
/// A client that has begun a request, or is done with one, has so long for the (next) head.
const NEXT_HEAD: Duration = Duration::from_secs(120);

/// The front of one service. Clones are the same front.
#[derive(Clone)]
pub struct Front(Arc<Inner>);

struct Inner {
    name: Name,
    kind: Kind,
    snapshots: watch::Receiver<Snapshot>,
    limits: Limits,
    lanes: Arc<Lanes>,
    meter: Arc<Meter>,
    ledger: Ledger,
    key: Option<ApiKey>,
    /// Requests that the backend works on at once, as it said itself; 0 if it did not.
    slots: AtomicU32,
    unreachable: Notify,
}

impl Front {
    /// A front of the service `name`, which is served at `target`, with a key for requests that come without one. What is
    /// used of a model server is written into these books.
    pub fn new(
        name: Name,
        target: SocketAddr,
        kind: Kind,
        snapshots: watch::Receiver<Snapshot>,
        limits: Limits,
        key: Option<ApiKey>,
        ledger: Ledger,
    ) -> Self {
        Self(Arc::new(Inner {
            name,
            kind,
            snapshots,
            limits,
            lanes: Lanes::to(target),
            meter: Arc::new(Meter::new(Box::new(Instant::now))),
            ledger,
            key,
            slots: AtomicU32::new(0),
            unreachable: Notify::new(),
        }))
    }

    /// How many requests the backend works on at once, as [`read_models`] found it. What the [`Limits`] say counts more.
    pub fn set_slots(&self, slots: u32) {
        self.0.slots.store(slots, Ordering::Relaxed);
    }

    /// Returns when a request has found nobody at the target.
    pub async fn unreachable(&self) {
        self.0.unreachable.notified().await;
    }

    /// How busy it is now.
    pub fn load(&self) -> Load {
        let said = self.0.slots.load(Ordering::Relaxed);
        self.0.meter.load(self.0.limits.slots.unwrap_or(said))
    }

    /// Serves one connection from `from` until it ends, half-close and upgrades included. Dropped, it ends at once.
    pub async fn serve(&self, stream: TcpStream, from: SocketAddr) {
        // Only slower, if it fails.
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(Connection {
            front: self.0.clone(),
            from,
            peer: self.0.caller(from).map(|caller| caller.peer),
            ends: Arc::default(),
            tunnel: Mutex::default(),
        });
        let client = Client::new(stream, Arc::clone(&connection.ends));
        let service = service_fn(|request| {
            // Before anything else of the connection is read.
            let answering = connection.ends.begin();
            let connection = Arc::clone(&connection);
            async move { Ok::<_, Infallible>(connection.answer(request, answering).await) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(NEXT_HEAD)
            .max_buf_size(HEAD_ROOM)
            .preserve_header_case(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(client), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            tracing::debug!(service = %self.0.name, %from, %error, "a connection ended early");
        }
        let tunnel = connection.tunnel().take();
        if let Some(tunnel) = tunnel {
            tunnel.carry().await;
        }
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Front").field(&self.0.name).finish()
    }
}

impl Inner {
    fn caller(&self, from: SocketAddr) -> Option<Caller> {
        Caller::at(&self.snapshots.borrow(), from)
    }

    fn is_model_server(&self) -> bool {
        self.kind == Kind::OpenAi
    }
}

/// A connection of a client.
struct Connection {
    front: Arc<Inner>,
    from: SocketAddr,
    /// Who called when it began.
    peer: Option<PeerId>,
    ends: Arc<Ends>,
    /// What it has become.
    tunnel: Mutex<Option<Tunnel>>,
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>, answering: Answering) -> Response<Answer> {
        match self.pass(request).await {
            Ok((head, body, lane, tally)) => {
                let passing = Passing::new(body, lane, tally, answering);
                Response::from_parts(head, Answer::Theirs(Box::new(passing)))
            }
            Err(refusal) => {
                let front = &self.front;
                tracing::debug!(service = %front.name, from = %self.from, refusal.message, "refused");
                refusal.answer(front.is_model_server(), answering)
            }
        }
    }

    /// Has the backend answer.
    async fn pass(&self, request: Request<Incoming>) -> Result<Passed, Refusal> {
        let front = &self.front;
        let caller = self.caller()?;
        let (mut head, body) = request.into_parts();
        let asks = headers::tidy_request(&mut head)
            .map_err(|unclear| Refusal::new(StatusCode::BAD_REQUEST, unclear.to_string()))?;
        caller.introduce(&mut head.headers);
        if let (false, Some(host)) = (head.headers.contains_key(header::HOST), front.lanes.host()) {
            head.headers.insert(header::HOST, host);
        }
        let mut tally = front.admit(&caller, &mut head)?;

        let client = head.extensions.remove::<OnUpgrade>();
        let mut question = Question::new(body, Arc::clone(&self.ends), tally.asked(&head.headers));
        let go_on = asks.expects.then(|| question.await_continue());
        let mut request = Request::from_parts(head, question);
        if let Some(go_on) = go_on {
            hyper::ext::on_informational(&mut request, move |informed| {
                if informed.status() == StatusCode::CONTINUE {
                    go_on.notify_one();
                }
            });
        }
        let answered = front.lanes.ask(request, front.limits.head_timeout()).await;
        let (mut response, lane) = answered.map_err(|reason| {
            if !self.ends.is_ended() {
                tally.fail();
            }
            front.without_answer(&reason)
        })?;

        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            let Some(client) = client.filter(|_| asks.upgrade) else {
                tally.fail();
                let reason = "the service changes to a protocol that nobody asked for";
                return Err(Refusal::new(StatusCode::BAD_GATEWAY, reason));
            };
            let backend = hyper::upgrade::on(&mut response);
            *self.tunnel() = Some(Tunnel { client, backend });
        }
        let (mut head, body) = response.into_parts();
        headers::tidy_response(&mut head, switches);
        tally.begins(head.status, &head.headers);
        Ok((head, body, lane, tally))
    }

    /// Who calls, now: membership may end, and addresses may change hands, while a connection lives.
    fn caller(&self) -> Result<Caller, Refusal> {
        let caller = self.front.caller(self.from);
        caller
            .filter(|caller| Some(caller.peer) == self.peer)
            .ok_or_else(|| {
                let reason = format!("{} is no member of this network", self.from.ip());
                Refusal::new(StatusCode::FORBIDDEN, reason)
            })
    }

    fn tunnel(&self) -> MutexGuard<'_, Option<Tunnel>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A backend's answer, and what goes with it.
type Passed = (response::Parts, Incoming, Lane, Tally);

impl Inner {
    /// Takes a request in, if its sender may have it answered.
    fn admit(&self, caller: &Caller, head: &mut request::Parts) -> Result<Tally, Refusal> {
        let makes_work = head.method == Method::POST;
        if !self.is_model_server() {
            return Ok(Tally::of(&self.meter, caller.peer, true, None));
        }
        let share = self.limits.share(&caller.groups);
        let taken = self.meter.enter(caller, share, makes_work);
        taken.map_err(|too_much| Refusal {
            retry_after: Some(too_much.retry_after()),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, too_much.to_string())
        })?;
        let page = makes_work.then(|| Page {
            ledger: self.ledger.clone(),
            service: self.name.clone(),
            member: caller.name.clone(),
        });
        let tally = Tally::of(&self.meter, caller.peer, makes_work, page);
        if makes_work {
            // What is compressed cannot be counted.
            head.headers.remove(header::ACCEPT_ENCODING);
        }
        if let (Some(key), false) = (&self.key, head.headers.contains_key(header::AUTHORIZATION))
            && let Some(bearer) = key.bearer()
        {
            head.headers.insert(header::AUTHORIZATION, bearer);
        }
        Ok(tally)
    }

    fn without_answer(&self, reason: &NoAnswer) -> Refusal {
        if let NoAnswer::Unreachable(_) = reason {
            self.unreachable.notify_one();
        }
        let status = match reason {
            NoAnswer::Unreachable(_) | NoAnswer::Broken(_) => StatusCode::BAD_GATEWAY,
            NoAnswer::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
        };
        let message = format!(
            "the service '{}' of this node gives no answer: {reason}",
            self.name
        );
        Refusal::new(status, message)
    }
}

/// Both ends of a connection that has changed to another protocol.
struct Tunnel {
    client: OnUpgrade,
    backend: OnUpgrade,
}

impl Tunnel {
    /// Carries everything across until both directions have ended.
    async fn carry(self) {
        let (Ok(client), Ok(backend)) = tokio::join!(self.client, self.backend) else {
            return;
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        // Whichever end broke off, the other sees it end.
        let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
    }
}
