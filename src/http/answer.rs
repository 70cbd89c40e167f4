//! What goes back to the client: the backend's answer as it comes, or one of ours.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::{self, HeaderValue},
};
use serde_json::json;

use super::{ends::Answering, lanes::Lane, tally::Tally};

/// The body of an answer.
pub(super) enum Answer {
    /// The backend's.
    Theirs(Box<Passing>),
    /// Ours.
    Ours {
        body: Full<Bytes>,
        _answering: Answering,
    },
}

/// Passes an answer on piece by piece. Dropped before its end it takes the connection to the backend with it.
pub(super) struct Passing {
    body: Incoming,
    lane: Option<Lane>,
    tally: Tally,
    /// It came to its end.
    complete: bool,
    answering: Answering,
}

impl Passing {
    pub fn new(body: Incoming, lane: Lane, tally: Tally, answering: Answering) -> Self {
        Self {
            complete: body.is_end_stream(),
            body,
            lane: Some(lane),
            tally,
            answering,
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.tally.read(bytes);
                }
                self.complete = self.body.is_end_stream() || frame.is_trailers();
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the backend broke off");
                // A backend that gives up on a client which has gone does what it should.
                if !self.answering.is_ended() {
                    self.tally.fail();
                }
            }
            None => self.complete = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if let (true, Some(lane)) = (self.complete, self.lane.take()) {
            lane.give_back();
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Answer::Theirs(passing) => Pin::new(passing.as_mut()).poll_frame(cx),
            Answer::Ours { body, .. } => Pin::new(body)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answer::Theirs(passing) => passing.is_end_stream(),
            Answer::Ours { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answer::Theirs(passing) => Body::size_hint(passing.as_ref()),
            Answer::Ours { body, .. } => body.size_hint(),
        }
    }
}

/// Why a request has no answer of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusCode,
    /// For people.
    pub message: String,
    /// When to ask again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The refusal as clients of the service understand it: those of model servers read JSON.
    pub fn answer(&self, as_json: bool, answering: Answering) -> Response<Answer> {
        let (kind, text) = match as_json {
            true => ("application/json", self.json().to_string()),
            false => ("text/plain; charset=utf-8", format!("{}\n", self.message)),
        };
        let mut response = Response::new(Answer::Ours {
            body: Full::from(text),
            _answering: answering,
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.max(1).into());
        }
        response
    }

    fn json(&self) -> serde_json::Value {
        let (kind, code) = match self.status {
            StatusCode::TOO_MANY_REQUESTS => ("rate_limit_error", Some("rate_limit_exceeded")),
            StatusCode::FORBIDDEN => ("permission_error", None),
            status if status.is_server_error() => ("server_error", None),
            _ => ("invalid_request_error", None),
        };
        openai_error(&self.message, kind, None, code)
    }
}

/// Why a request is not answered, as OpenAI's clients read it.
pub fn openai_error(
    message: &str,
    kind: &str,
    param: Option<&str>,
    code: Option<&str>,
) -> serde_json::Value {
    json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
}
