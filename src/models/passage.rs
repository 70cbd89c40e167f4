//! An answer on its way through: each piece is passed on as it comes.
//!
//! It may break off when its client has seen the beginning, and then nobody else can take over. A stream of events (SSE) can
//! still carry an error between two events, which clients raise as one; anything else is cut, so that nobody takes a part
//! for the whole.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use libp2p::PeerId;
use tokio::{sync::watch, time::timeout};

use super::{
    balance::UnderWay,
    pool::{Connection, Pool},
    problem::Problem,
};
use crate::services::Snapshot;

/// A node that is on the move may be out of reach for a moment, and what it sends is not lost.
const GRACE: Duration = Duration::from_secs(5);

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The body of an answer.
pub(super) struct Passage {
    /// What has come already.
    first: Option<Bytes>,
    /// What is to come.
    rest: Option<Incoming>,
    connection: Option<Connection>,
    pool: Pool,
    under_way: UnderWay,
    /// Ends when the node that answers is not reached any more.
    gone: Ending,
    node: String,
    /// Whether an error can be told between two events.
    is_events: bool,
    is_line_start: bool,
}

/// What a passage comes from.
pub(super) struct Source {
    /// What has come already.
    pub first: Option<Bytes>,
    /// What is to come; nothing, if that was all.
    pub rest: Option<Incoming>,
    /// What it comes over.
    pub connection: Connection,
    pub under_way: UnderWay,
    /// Who answers.
    pub peer: PeerId,
    pub node: String,
    /// Whether it is a stream of events.
    pub is_events: bool,
}

/// An answer came to an end before its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer of '{node}' broke off: {why}")]
pub(super) struct BrokenOff {
    node: String,
    why: String,
}

impl Passage {
    pub fn new(source: Source, pool: &Pool, snapshots: &watch::Receiver<Snapshot>) -> Self {
        let Source {
            first,
            rest,
            connection,
            under_way,
            peer,
            node,
            is_events,
        } = source;
        // A length that was promised leaves no room for an error.
        let has_length = rest
            .as_ref()
            .is_none_or(|rest| rest.size_hint().exact().is_some());
        let mut passage = Self {
            first,
            rest,
            connection: Some(connection),
            pool: pool.clone(),
            under_way,
            gone: Box::pin(is_gone(snapshots.clone(), peer, GRACE)),
            node,
            is_events: is_events && !has_length,
            is_line_start: true,
        };
        if passage.rest.as_ref().is_none_or(Body::is_end_stream) {
            passage.is_over();
        }
        passage
    }

    /// All of it has come: the connection is free.
    fn is_over(&mut self) {
        self.rest = None;
        if let Some(connection) = self.connection.take() {
            self.pool.keep(connection);
        }
    }

    fn pass(&mut self, bytes: Bytes) -> Frame<Bytes> {
        if let Some(last) = bytes.last() {
            self.is_line_start = *last == b'\n';
        }
        Frame::data(bytes)
    }

    fn broke_off(&mut self, why: String) -> Result<Frame<Bytes>, BrokenOff> {
        self.rest = None;
        self.connection = None;
        self.under_way.failed(Instant::now());
        let node = self.node.clone();
        tracing::debug!(node, why, "an answer broke off");
        let broken = BrokenOff { node, why };
        // In the middle of a line, an error would be taken for the rest of it.
        if !(self.is_events && self.is_line_start) {
            return Err(broken);
        }
        let status = StatusCode::BAD_GATEWAY;
        let error = Problem::new(status, "answer_broke_off", broken.to_string()).json();
        // The first line end ends an event that was not ended.
        Ok(Frame::data(format!("\ndata: {error}\n\n").into()))
    }
}

impl Body for Passage {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(self.pass(first))));
        }
        loop {
            let Some(rest) = &mut self.rest else {
                return Poll::Ready(None);
            };
            match Pin::new(rest).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing to an OpenAI client.
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(self.pass(bytes))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    let why = self.broke_off(error.to_string());
                    return Poll::Ready(Some(why));
                }
                Poll::Ready(None) => {
                    self.is_over();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    std::task::ready!(self.gone.as_mut().poll(context));
                    let why = self.broke_off("its node is not reached any more".to_owned());
                    return Poll::Ready(Some(why));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.as_ref().map_or(0, Bytes::len) as u64;
        let rest = match &self.rest {
            Some(rest) => rest.size_hint(),
            None => SizeHint::with_exact(0),
        };
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(first + rest),
            None => SizeHint::new(),
        }
    }
}

/// Ends when a node was not reached for so long.
pub(super) async fn is_gone(
    mut snapshots: watch::Receiver<Snapshot>,
    peer: PeerId,
    grace: Duration,
) {
    let is_reached = |snapshot: &Snapshot| {
        let member = snapshot.member(&peer);
        member.is_some_and(|member| member.online || member.this)
    };
    loop {
        let gone = snapshots.wait_for(|snapshot| !is_reached(snapshot));
        if gone.await.map(drop).is_err() {
            // Nobody tells any more: this node ends, and everything here with it.
            return std::future::pending().await;
        }
        let back = async { snapshots.wait_for(is_reached).await.map(drop) };
        if grace.is_zero() || timeout(grace, back).await.is_err() {
            return;
        }
    }
}
