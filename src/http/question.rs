//! The body of a request on its way to the backend.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::Notify;

use super::{caller::remove_claims, ends::Ends, line::Line, tally::Asked};

/// A backend that says nothing about a body it was asked to expect gets it after this long, as clients do it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("the client's request is damaged")]
    Damaged(#[from] hyper::Error),
    #[error("the client ended in the middle of its request")]
    Ended,
}

/// Passes a body on piece by piece.
pub(super) struct Question {
    /// None where there is none.
    body: Option<Incoming>,
    ends: Arc<Ends>,
    line: Option<Arc<Line>>,
    /// Resolves when the body may be sent: before, the client is not told to go on.
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Told when hyper has all of it.
    given: Arc<Notify>,
    asked: Option<Asked>,
}

impl Question {
    pub fn new(body: Incoming, ends: Arc<Ends>, asked: Option<Asked>) -> Self {
        Self {
            body: Some(body).filter(|body| !body.is_end_stream()),
            ends,
            line: None,
            wait: None,
            given: Arc::default(),
            asked,
        }
    }

    /// Holds the body back until the backend tells to go on.
    pub fn await_continue(&mut self) -> Arc<Notify> {
        let told = Arc::new(Notify::new());
        let go_on = Arc::clone(&told);
        self.wait = Some(Box::pin(async move {
            // Both mean the same.
            let _ = tokio::time::timeout(PATIENCE, go_on.notified()).await;
        }));
        told
    }

    /// Told when hyper has all of it.
    pub fn given(&self) -> Arc<Notify> {
        Arc::clone(&self.given)
    }

    /// It is about to be sent over this line.
    pub fn goes_over(&mut self, line: &Arc<Line>) {
        line.begin();
        self.ends.goes_over(line);
        self.line = Some(Arc::clone(line));
        if self.is_end_stream() {
            self.give();
        }
    }

    /// The same body once more, if it is empty.
    pub fn empty_copy(&self) -> Option<Self> {
        self.body.is_none().then(|| Self {
            body: None,
            ends: Arc::clone(&self.ends),
            line: None,
            wait: None,
            given: Arc::default(),
            asked: None,
        })
    }

    fn give(&self) {
        if let Some(line) = &self.line {
            line.give();
        }
        self.given.notify_one();
    }
}

impl Body for Question {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = &mut *self;
        if let Some(wait) = &mut this.wait {
            std::task::ready!(wait.as_mut().poll(cx));
            this.wait = None;
        }
        // Asked before the body: what had arrived by then is in it.
        let has_ended = this.ends.has_ended(cx);
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Ready(Some(frame)) => frame?,
            Poll::Ready(None) => {
                this.give();
                return Poll::Ready(None);
            }
            Poll::Pending if has_ended => return Poll::Ready(Some(Err(Cut::Ended))),
            Poll::Pending => return Poll::Pending,
        };
        let frame = match frame.into_trailers() {
            Ok(mut trailers) => {
                remove_claims(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        };
        if let (Some(asked), Some(bytes)) = (&mut this.asked, frame.data_ref()) {
            asked.read(bytes);
        }
        if this.is_end_stream() || frame.is_trailers() {
            this.give();
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(none, Body::size_hint)
    }
}
