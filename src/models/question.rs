//! What a client asks: the body of its request, and the model that it names.

use std::{
    borrow::Cow,
    fmt,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, StatusCode,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
};
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use crate::http::Form;

/// A body up to this is kept whole until there is an answer, so that it can be sent to another server. Pictures and sound
/// in a body make it long.
pub(super) const MAX_KEPT: usize = 32 << 20;
/// Finding the model in a longer body is not done between packets of others.
const LONG: usize = 256 << 10;

/// The body of a request, as far as it was read.
pub(super) struct Question {
    /// The model, as the client names it.
    pub model: String,
    /// Whether the answer is to be a stream.
    pub is_stream: bool,
    /// Where the model is in `kept`.
    place: Range<usize>,
    /// Whether it is a JSON string there, or the text of a form.
    is_json: bool,
    kept: Bytes,
    /// What was too much to keep.
    rest: Option<Incoming>,
    is_spent: bool,
    /// What all kept bodies together may take.
    _room: Option<OwnedSemaphorePermit>,
}

impl Question {
    /// Reads a body with these headers until its end, or until there is no room to keep more of it.
    pub async fn read(
        headers: &HeaderMap,
        body: Incoming,
        room: &Arc<Semaphore>,
    ) -> Result<Self, Problem> {
        let form = Form::of(headers).transpose().map_err(|error| {
            let message = format!("the request's parts cannot be told apart: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message)
        })?;
        let is_json = form.is_none();
        let (kept, rest, room) = keep(body, room).await?;
        let found = match kept.len() > LONG {
            false => Found::find(&kept, form),
            true => {
                let kept = kept.clone();
                let finding = tokio::task::spawn_blocking(move || Found::find(&kept, form));
                finding.await.unwrap_or_default()
            }
        };
        let (model, place) = found.model(rest.is_none())?;
        Ok(Self {
            model,
            is_stream: found.is_stream,
            place,
            is_json,
            kept,
            rest,
            is_spent: false,
            _room: room,
        })
    }

    /// Whether it can be sent more than once.
    pub fn is_whole(&self) -> bool {
        self.rest.is_none()
    }

    /// Writes another model into it.
    pub fn set_model(&mut self, model: &str) {
        if model == self.model {
            return;
        }
        let written = match self.is_json {
            true => serde_json::Value::from(model).to_string(),
            false => model.to_owned(),
        };
        let mut changed = Vec::with_capacity(self.kept.len());
        changed.extend_from_slice(&self.kept[..self.place.start]);
        changed.extend_from_slice(written.as_bytes());
        changed.extend_from_slice(&self.kept[self.place.end..]);
        self.place.end = self.place.start + written.len();
        self.kept = changed.into();
        self.model = model.to_owned();
    }

    /// Whether it cannot be sent any more.
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// The body to send. Of one that is not whole, there is a single one.
    pub fn body(&mut self) -> Sent {
        self.is_spent |= self.rest.is_some();
        Sent {
            kept: Some(self.kept.clone()),
            rest: self.rest.take(),
        }
    }
}

type Kept = (Bytes, Option<Incoming>, Option<OwnedSemaphorePermit>);

async fn keep(mut body: Incoming, room: &Arc<Semaphore>) -> Result<Kept, Problem> {
    let mut kept = Vec::new();
    let mut permit: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("the request's body broke off: {error}");
            Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message)
        })?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        kept.extend_from_slice(&bytes);
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = kept.len().div_ceil(1024).saturating_sub(held);
        if missing > 0 {
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            let Ok(more) = room.clone().try_acquire_many_owned(missing) else {
                return Ok((kept.into(), Some(body), permit));
            };
            match &mut permit {
                Some(permit) => permit.merge(more),
                none @ None => *none = Some(more),
            }
        }
        if kept.len() > MAX_KEPT {
            return Ok((kept.into(), Some(body), permit));
        }
    }
    Ok((kept.into(), None, permit))
}

/// What a body says of interest here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    model: Option<(String, Range<usize>)>,
    is_stream: bool,
    /// Why it is not what it should be.
    wrong: Option<String>,
}

impl Found {
    /// Looks through a form, or a JSON object, or the beginning of one.
    fn find(body: &[u8], form: Option<Form>) -> Self {
        match form {
            Some(form) => Self::in_form(body, form),
            None => Self::in_json(body),
        }
    }

    fn in_form(body: &[u8], mut form: Form) -> Self {
        form.read(body);
        let is_whole = form.is_whole();
        Self {
            model: form.model,
            is_stream: form.is_stream,
            wrong: (!is_whole).then(|| "no valid form: it has no end".to_owned()),
        }
    }

    fn in_json(body: &[u8]) -> Self {
        let mut found = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let visitor = Finder {
            body,
            found: &mut found,
        };
        if let Err(error) = deserializer.deserialize_map(visitor) {
            found.wrong = Some(format!("not valid JSON: {error}"));
        }
        found
    }

    fn model(&self, is_whole: bool) -> Result<(String, Range<usize>), Problem> {
        let wrong =
            |code, message: String| Err(Problem::of_model(StatusCode::BAD_REQUEST, code, message));
        match (&self.model, &self.wrong) {
            (_, Some(why)) if is_whole => {
                let message = format!("the request's body is {why}");
                wrong("invalid_body", message)
            }
            (Some((model, place)), _) => Ok((model.clone(), place.clone())),
            (None, _) if is_whole => {
                let message = "the request names no model: 'model' is missing";
                wrong("missing_model", message.to_owned())
            }
            (None, _) => Err(Problem::of_model(
                StatusCode::PAYLOAD_TOO_LARGE,
                "missing_model",
                format!(
                    "the request is longer than what can be kept here at the moment (at most {} MiB), and 'model' was not \
                     in what was read: put it first",
                    MAX_KEPT >> 20
                ),
            )),
        }
    }
}

struct Finder<'a, 'f> {
    body: &'a [u8],
    found: &'f mut Found,
}

impl<'a> Visitor<'a> for Finder<'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Key<'a>>()? {
            match key.0.as_ref() {
                "model" => {
                    // Of several, the last one counts, as it does for servers.
                    let raw = map.next_value::<&'a RawValue>()?.get();
                    let model = serde_json::from_str(raw)
                        .map_err(|_| A::Error::custom("'model' is no string"))?;
                    let start = raw.as_ptr() as usize - self.body.as_ptr() as usize;
                    self.found.model = Some((model, start..start + raw.len()));
                }
                "stream" => {
                    let raw = map.next_value::<&'a RawValue>()?;
                    self.found.is_stream = raw.get() == "true";
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A member's name, copied only if it has escapes.
#[derive(serde::Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A body on its way to a server.
pub(super) struct Sent {
    kept: Option<Bytes>,
    rest: Option<Incoming>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match (self.kept.take(), &mut self.rest) {
            (Some(kept), _) => Poll::Ready(Some(Ok(Frame::data(kept)))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (None, None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_over = self.rest.as_ref().is_none_or(Body::is_end_stream);
        self.kept.is_none() && is_over
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.as_ref().map_or(0, Bytes::len) as u64;
        let rest = self.rest.as_ref().map(Body::size_hint).unwrap_or_default();
        let mut hint = SizeHint::new();
        match (&self.rest, rest.upper()) {
            (None, _) => hint.set_exact(kept),
            (Some(_), upper) => {
                hint.set_lower(kept + rest.lower());
                if let Some(upper) = upper {
                    hint.set_upper(kept.saturating_add(upper));
                }
            }
        }
        hint
    }
}

#[cfg(test)]
mod tests;
