//! One request's way to a server, and to the next one if that does not answer.
//!
//! Until there is a first byte of an answer, nothing is lost by asking somebody else: after a connection that is refused, an
//! error of the server (5xx), too many requests (429), a model that is not there after all (404), silence for too long, or a
//! node that goes away. An answer that is no stream counts when all of it is here. If all of them refuse, the client gets
//! the last refusal as it is.

use std::{net::SocketAddr, time::Instant};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName, HeaderValue,
        ORIGIN, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER,
        TRANSFER_ENCODING, UPGRADE,
    },
    http::{request, response},
};
use tokio::time::timeout;

use super::{
    Endpoint,
    balance::UnderWay,
    catalog::{self, Offer},
    passage::{Passage, Source, is_gone},
    pool::Connection,
    problem::Problem,
    question::Question,
};
use crate::http::tokens;

/// Names a node in a request, and in an answer the one that gave it.
pub(super) const NODE: HeaderName = HeaderName::from_static("x-hive-node");
/// Servers that one request is sent to at most.
const MAX_TRIES: usize = 6;
/// An answer that is no stream is kept until it is whole, up to this.
const MAX_WHOLE: usize = 4 << 20;

/// What belongs to a connection, not to a message (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What came of asking a server.
enum Outcome {
    /// The answer.
    Answered(Answer),
    /// An answer that another server may better.
    Refused(Answer),
    /// Nothing that could be passed on.
    Missed(String),
}

/// An answer that nothing of was passed on yet.
struct Answer {
    head: response::Parts,
    source: Source,
}

impl Endpoint {
    /// Passes a request on to a server of its model.
    pub(super) async fn route(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Passage>, Problem> {
        let (head, body) = request.into_parts();
        let node = head
            .headers
            .get(NODE)
            .map(|node| String::from_utf8_lossy(node.as_bytes()).into_owned());
        let mut question = Question::read(&head.headers, body, &self.room).await?;
        let wanted = catalog::wanted(&self.snapshot(), &question.model, node.as_deref())?;
        question.set_model(&wanted.id);
        let offers = self
            .balance
            .order(wanted.offers, Instant::now(), rand::random::<f64>);
        let mut refusal = None;
        let mut missed = Vec::new();
        for offer in offers.iter().take(MAX_TRIES) {
            match self.ask(offer, &head, &mut question).await {
                Outcome::Answered(answer) => return Ok(self.pass_on(answer)),
                Outcome::Refused(answer) => refusal = Some(answer),
                Outcome::Missed(why) => missed.push(format!("{}: {why}", offer.node)),
            }
            if question.is_spent() {
                break;
            }
        }
        let Some(refusal) = refusal else {
            let message = format!(
                "no server of the model '{}' answers ({})",
                question.model,
                missed.join("; ")
            );
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Problem::of_model(status, "no_server", message));
        };
        Ok(self.pass_on(refusal))
    }

    /// Asks one server, until there is something to pass on.
    async fn ask(&self, offer: &Offer, head: &request::Parts, question: &mut Question) -> Outcome {
        let under_way = self.balance.begin(offer);
        let (limit, awaited) = match question.is_stream {
            true => (self.config.first_token_timeout, "token"),
            false => (self.config.answer_timeout, "answer"),
        };
        let gone = is_gone(
            self.snapshots.clone(),
            offer.peer,
            std::time::Duration::ZERO,
        );
        let asking = async {
            let (connection, response) = self.send(offer, head, question).await?;
            begin(connection, response, question.is_stream).await
        };
        let begun = tokio::select! {
            biased;
            begun = timeout(limit, asking) => {
                begun.unwrap_or_else(|_| Err(format!("no {awaited} within {limit:?}")))
            }
            () = gone => Err("its node is not reached any more".to_owned()),
        };
        match begun {
            Err(why) => {
                tracing::debug!(node = %offer.node, service = %offer.service, why, "a model server does not answer");
                under_way.failed(Instant::now());
                Outcome::Missed(why)
            }
            Ok(begun) => judge(begun, offer, under_way),
        }
    }

    /// Sends the request over a connection that is there, or over a new one.
    async fn send(
        &self,
        offer: &Offer,
        head: &request::Parts,
        question: &mut Question,
    ) -> Result<(Connection, Response<Incoming>), String> {
        let open = || Connection::open(offer.address, self.config.connect_timeout);
        // What can be sent only once is not risked on a connection that may have been closed.
        let kept = match question.is_whole() {
            true => self.pool.take(offer.address),
            false => None,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => open().await?,
        };
        loop {
            let mut request = Request::new(question.body());
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = target(&offer.base, head)?;
            *request.headers_mut() = headers_for(offer.address, &head.headers)?;
            match connection.send(request).await {
                Ok(response) => return Ok((connection, response)),
                Err(error) if connection.is_reused && !error.is_parse() => {
                    connection = open().await?;
                }
                Err(error) => return Err(cause(&error)),
            }
        }
    }

    fn pass_on(&self, answer: Answer) -> Response<Passage> {
        let Answer { mut head, source } = answer;
        let headers = &mut head.headers;
        remove_hop_by_hop(headers);
        // How long it is, its body knows.
        headers.remove(CONTENT_LENGTH);
        // A member's server decides nothing about the browser of this machine.
        headers.remove(SET_COOKIE);
        let about_browsers = |name: &HeaderName| name.as_str().starts_with("access-control-");
        let names: Vec<_> = headers
            .keys()
            .filter(|name| about_browsers(name))
            .cloned()
            .collect();
        for name in names {
            headers.remove(name);
        }
        if let Ok(node) = HeaderValue::from_str(&source.node) {
            headers.insert(NODE, node);
        }
        let mut response = Response::new(Passage::new(source, &self.pool, &self.snapshots));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }
}

/// An answer whose beginning is here, and all of it if it is no stream.
struct Begun {
    head: response::Parts,
    first: Option<Bytes>,
    rest: Option<Incoming>,
    connection: Connection,
}

async fn begin(
    connection: Connection,
    response: Response<Incoming>,
    is_stream: bool,
) -> Result<Begun, String> {
    let (head, mut body) = response.into_parts();
    if head.status.is_informational() {
        return Err(format!("it answers {}", head.status));
    }
    let enough = match !is_stream && has_type(&head.headers, "application/json") {
        true => MAX_WHOLE,
        false => 1,
    };
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut length = 0;
    let mut rest = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("its answer broke off: {}", cause(&error)))?;
        if let Ok(bytes) = frame.into_data() {
            length += bytes.len();
            pieces.push(bytes);
        }
        if length >= enough {
            rest = Some(body);
            break;
        }
    }
    let first = match pieces.len() {
        0 => None,
        1 => pieces.pop(),
        _ => Some(pieces.concat().into()),
    };
    Ok(Begun {
        head,
        first,
        rest,
        connection,
    })
}

fn judge(begun: Begun, offer: &Offer, under_way: UnderWay) -> Outcome {
    let status = begun.head.status;
    let is_refusal = status.is_server_error()
        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::NOT_FOUND].contains(&status);
    match is_refusal {
        true => under_way.failed(Instant::now()),
        false => under_way.answered(),
    }
    let answer = Answer {
        source: Source {
            is_events: has_type(&begun.head.headers, "text/event-stream"),
            first: begun.first,
            rest: begun.rest,
            connection: begun.connection,
            under_way,
            peer: offer.peer,
            node: offer.node.clone(),
        },
        head: begun.head,
    };
    match is_refusal {
        true => Outcome::Refused(answer),
        false => Outcome::Answered(answer),
    }
}

fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    let found = headers
        .get(CONTENT_TYPE)
        .and_then(|text| text.to_str().ok());
    found.is_some_and(|found| {
        let found = found.split(';').next().unwrap_or_default().trim();
        found.eq_ignore_ascii_case(wanted)
    })
}

/// What to ask the server for: its own `/v1` in place of ours.
fn target(base: &str, head: &request::Parts) -> Result<hyper::Uri, String> {
    let path = head.uri.path();
    let path = path.strip_prefix("/v1").unwrap_or(path);
    let query = head
        .uri
        .query()
        .map_or(String::new(), |query| format!("?{query}"));
    let target = format!("{base}{path}{query}");
    target
        .parse::<hyper::Uri>()
        .ok()
        .filter(|uri| uri.authority().is_none() && target.starts_with('/'))
        .ok_or_else(|| "its record names no valid path".to_owned())
}

fn headers_for(address: SocketAddr, headers: &HeaderMap) -> Result<HeaderMap, String> {
    let mut headers = headers.clone();
    remove_hop_by_hop(&mut headers);
    // Cookies and origins are between a browser and this machine. How long the body is, it knows itself.
    for name in [CONTENT_LENGTH, COOKIE, EXPECT, ORIGIN, NODE] {
        headers.remove(name);
    }
    let host = HeaderValue::try_from(address.to_string()).map_err(|error| error.to_string())?;
    headers.insert(HOST, host);
    Ok(headers)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, CONNECTION)
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// What is behind an error: the error itself only says where it was noticed.
fn cause(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
