//! Where connections of members to an exposed TCP service come in.

use std::{
    collections::HashMap,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    task::{self, AbortHandle, JoinSet},
    time::Instant,
};

use super::{
    probe,
    room::{OF_ONE_LISTENER, OF_ONE_MEMBER, Room},
    scope::{Guest, Scope},
    sockets::Sockets,
    splice,
    standing::Standing,
};
use crate::http::Front;

/// An address that could not be had is tried again so often.
pub const RETRY: Duration = Duration::from_secs(5);
/// A program on this machine accepts at once, or is not there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How a connection is carried on.
#[derive(Clone)]
pub enum Way {
    /// As it is.
    Plain(SocketAddr),
    /// By somebody who reads it.
    Http(Front),
}

impl Way {
    async fn serve(&self, stream: TcpStream, from: SocketAddr, standing: &Standing) {
        let target = match self {
            Way::Http(front) => return front.serve(stream, from).await,
            Way::Plain(target) => *target,
        };
        match tokio::time::timeout(CONNECT_LIMIT, probe::connect(target)).await {
            Ok(Ok(connection)) => {
                if let Err(error) = splice::join(stream, connection).await {
                    tracing::trace!(%from, %target, %error, "a connection broke");
                }
            }
            Ok(Err(_)) | Err(_) => {
                standing.doubt();
                splice::reset(stream);
            }
        }
    }
}

/// A door, and who is inside.
pub struct Door {
    sockets: Sockets<TcpListener>,
    scope: Scope,
    way: Way,
    standing: Arc<Standing>,
    room: Room,
    guests: HashMap<task::Id, (Guest, AbortHandle)>,
    tasks: JoinSet<()>,
}

impl Door {
    /// A door at sockets that may be open already.
    pub fn new(
        sockets: Sockets<TcpListener>,
        scope: Scope,
        way: Way,
        standing: Arc<Standing>,
        room: Room,
    ) -> Self {
        Self {
            sockets,
            scope,
            way,
            standing,
            room,
            guests: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Serves, until it is dropped and everybody with it.
    pub async fn serve(mut self) {
        let mut retry = self.fit();
        loop {
            tokio::select! {
                accepted = accept(&self.sockets) => match accepted {
                    Ok((stream, from)) => self.let_in(stream, from),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    self.guests.remove(&id);
                }
                () = self.scope.changed() => {
                    retry = self.fit();
                    self.put_out();
                }
                () = until(retry) => retry = self.fit(),
            }
            self.standing
                .carried
                .store(self.guests.len() as u64, Ordering::Relaxed);
        }
    }

    /// Listens where we are to be found now. Returns when to try again.
    fn fit(&mut self) -> Option<Instant> {
        let refused = self.sockets.fit(&self.scope.addresses());
        self.standing.closed(&refused, !self.sockets.is_empty());
        (!refused.is_empty()).then(|| Instant::now() + RETRY)
    }

    fn let_in(&mut self, stream: TcpStream, from: SocketAddr) {
        let Some((guest, place)) = self.admit(&stream, from) else {
            return splice::reset(stream);
        };
        let (way, standing) = (self.way.clone(), self.standing.clone());
        let task = self.tasks.spawn(async move {
            way.serve(stream, from, &standing).await;
            drop(place);
        });
        self.guests.insert(task.id(), (guest, task));
    }

    fn admit(&self, stream: &TcpStream, from: SocketAddr) -> Option<(Guest, OwnedSemaphorePermit)> {
        let guest = self.scope.guest(from, stream.local_addr().ok()?.ip())?;
        let is_of_it = |inside: &&(Guest, AbortHandle)| inside.0.member == guest.member;
        let is_full = self.guests.len() >= OF_ONE_LISTENER
            || self.guests.values().filter(is_of_it).count() >= OF_ONE_MEMBER;
        if is_full {
            tracing::debug!(%from, "too many connections");
            return None;
        }
        Some((guest, self.room.enter()?))
    }

    /// Cuts the connections of those who may not any more.
    fn put_out(&mut self) {
        for (guest, task) in self.guests.values() {
            if !self.scope.includes(guest) || !self.sockets.include(guest.to) {
                task.abort();
            }
        }
    }
}

/// The next connection at any of the sockets.
async fn accept(sockets: &Sockets<TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        for listener in sockets.ours() {
            if let Poll::Ready(accepted) = listener.poll_accept(context) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

/// Then, or never.
pub async fn until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}
