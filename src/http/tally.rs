//! Reads what passes: the model that is asked for on the way there, the tokens that were used on the way back.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use hyper::{HeaderMap, StatusCode, body::Bytes};
use libp2p::PeerId;

use super::{
    ledger::{Done, Page},
    meter::Meter,
    scan::{Form, Json, Scan, model_id},
};

/// The model that a request names, once it has passed.
type Model = Arc<Mutex<Option<String>>>;

/// Reads a request's body.
pub(super) struct Asked {
    reader: Reader,
    model: Model,
}

enum Reader {
    Json(Json),
    Form(Form),
}

impl Reader {
    /// What reads a body with these headers, if anything does.
    fn of(headers: &HeaderMap) -> Option<Self> {
        match (Scan::of(headers), Form::of(headers)) {
            (Some(Scan::Json(json)), _) => Some(Self::Json(json)),
            (_, Some(Ok(form))) => Some(Self::Form(form)),
            (Some(Scan::Sse(_)) | None, Some(Err(_)) | None) => None,
        }
    }

    fn read(&mut self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Json(json) => {
                json.read(bytes);
                json.found.model.clone()
            }
            Self::Form(form) => {
                form.read(bytes);
                let (model, _) = form.model.as_ref()?;
                model_id(model)
            }
        }
    }
}

impl Asked {
    pub fn read(&mut self, bytes: &Bytes) {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        if model.is_none() {
            *model = self.reader.read(bytes);
        }
    }
}

/// Follows one request that was taken in, until it is dropped.
pub(super) struct Tally {
    meter: Arc<Meter>,
    peer: PeerId,
    /// The backend has to work for it.
    is_work: bool,
    /// What is written down, if it is.
    counted: Option<Counted>,
    started: Instant,
    first_byte: Option<Instant>,
    failed: bool,
}

struct Counted {
    page: Page,
    model: Model,
    scan: Option<Scan>,
    /// Tokens that the rate knows of.
    told: u64,
}

impl Tally {
    /// Of a request that the meter has just taken in. With a page its tokens are counted, and written down there.
    pub fn of(meter: &Arc<Meter>, peer: PeerId, is_work: bool, page: Option<Page>) -> Self {
        if is_work {
            meter.begin_work();
        }
        Self {
            meter: Arc::clone(meter),
            peer,
            is_work,
            counted: page.map(|page| Counted {
                page,
                model: Model::default(),
                scan: None,
                told: 0,
            }),
            started: meter.now(),
            first_byte: None,
            failed: false,
        }
    }

    /// What reads the request's body, if that is JSON or a form.
    pub fn asked(&self, headers: &HeaderMap) -> Option<Asked> {
        let counted = self.counted.as_ref()?;
        Some(Asked {
            reader: Reader::of(headers)?,
            model: Arc::clone(&counted.model),
        })
    }

    /// The answer begins.
    pub fn begins(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.failed |= status.is_client_error() || status.is_server_error();
        if let Some(counted) = &mut self.counted {
            counted.scan = Scan::of(headers);
        }
    }

    /// A piece of the answer passes.
    pub fn read(&mut self, bytes: &Bytes) {
        if self.first_byte.is_none() {
            self.first_byte = Some(self.meter.now());
        }
        let Some(counted) = &mut self.counted else {
            return;
        };
        if let Some(scan) = &mut counted.scan {
            scan.read(bytes);
            let pieces = scan.pieces();
            self.meter.wrote(pieces.saturating_sub(counted.told));
            counted.told = pieces;
        }
    }

    /// The request has failed.
    pub fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let since = |at: Instant| at.saturating_duration_since(self.started);
        let first_byte = self.first_byte.filter(|_| !self.failed).map(since);
        self.meter.leave(self.peer);
        if self.is_work {
            self.meter.end_work(first_byte);
        }
        let Some(mut counted) = self.counted.take() else {
            return;
        };
        let found = counted.scan.as_mut().map(Scan::finish).unwrap_or_default();
        let asked = counted.model.lock().unwrap_or_else(PoisonError::into_inner);
        let completion_tokens = found.completion_tokens.unwrap_or(found.pieces);
        self.meter
            .wrote(completion_tokens.saturating_sub(counted.told));
        let done = Done {
            model: asked.clone().or(found.model).unwrap_or_default(),
            failed: self.failed,
            prompt_tokens: found.prompt_tokens.unwrap_or(0),
            completion_tokens,
            estimated: found.completion_tokens.is_none(),
            first_byte,
        };
        let tokens = done.prompt_tokens.saturating_add(done.completion_tokens);
        self.meter.took(self.peer, tokens);
        counted.page.count(self.peer, &done);
    }
}
