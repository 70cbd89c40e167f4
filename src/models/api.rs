//! What is asked here, and who answers it: the endpoint itself for the whole network, or a member's server.

use std::{convert::Infallible, sync::Arc};

use http_body_util::{Either, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, HeaderValue},
};
use serde_json::json;

use super::{
    Endpoint, catalog, guard,
    passage::Passage,
    problem::{Problem, json_response},
};
use crate::names::endpoint_of;

/// Our own words, or an answer that passes through.
pub(super) type Answer = Either<Full<Bytes>, Passage>;

/// Answers a request. Whoever asks may do so.
pub(super) async fn answer(
    endpoint: Arc<Endpoint>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Infallible> {
    let answered = match own(&endpoint, &request) {
        Some(own) => own.map(|response| response.map(words)),
        None => endpoint
            .route(request)
            .await
            .map(|response| response.map(Either::Right)),
    };
    Ok(answered.unwrap_or_else(|problem| problem.response().map(words)))
}

fn words(bytes: Bytes) -> Answer {
    Either::Left(Full::new(bytes))
}

/// What is answered here; nothing, if it is to be passed on.
fn own(
    endpoint: &Endpoint,
    request: &Request<Incoming>,
) -> Option<Result<Response<Bytes>, Problem>> {
    let snapshot = endpoint.snapshot();
    let (uri, headers) = (request.uri(), request.headers());
    if let Err(problem) = guard::check(&snapshot, uri, request.version(), headers) {
        return Some(Err(problem));
    }
    let path = match uri.path() {
        "/" => "/",
        path => path.trim_end_matches('/'),
    };
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let answer = match path.strip_prefix("/v1") {
        None => match path {
            "/" | "/health" if is_read => json!({
                "status": "ok",
                "network": snapshot.network,
                "endpoint": format!("http://{}/v1", endpoint_of(&snapshot.network)),
                "models": catalog::objects(&snapshot).len(),
            }),
            _ => return Some(Err(unknown(path))),
        },
        Some("" | "/models") if is_read => json!({
            "object": "list",
            "data": catalog::objects(&snapshot),
        }),
        Some(path) => match path.strip_prefix("/models/") {
            Some(id) if is_read => {
                let id = decoded(id);
                match catalog::wanted(&snapshot, &id, None) {
                    Ok(wanted) => catalog::object_of(&snapshot, &wanted, &id),
                    Err(problem) => return Some(Err(problem)),
                }
            }
            Some(_) | None if !path.starts_with('/') || leads_out(path) => {
                return Some(Err(unknown(uri.path())));
            }
            Some(_) | None if request.method() == Method::POST => return None,
            Some(_) | None => return Some(Ok(not_allowed(request.method()))),
        },
    };
    Some(Ok(json_response(StatusCode::OK, answer.to_string())))
}

fn unknown(path: &str) -> Problem {
    let message = format!("nothing is at {path}: the interface begins at /v1, as OpenAI's does");
    Problem::new(StatusCode::NOT_FOUND, "unknown_url", message)
}

/// What has no model in it could be meant for anybody.
fn not_allowed(method: &Method) -> Response<Bytes> {
    let message = format!(
        "{method} is not answered here: what goes to a server is a POST that names its model, in JSON or in a form"
    );
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut response = Problem::new(status, "method_not_allowed", message).response();
    let allow = HeaderValue::from_static("POST");
    response.headers_mut().insert(ALLOW, allow);
    response
}

/// Whether a path has a part that leads upwards.
fn leads_out(path: &str) -> bool {
    decoded(path)
        .split(['/', '\\'])
        .any(|part| part == ".." || part == ".")
}

/// Without percent signs (RFC 3986 §2.1).
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let coded = behind
            .first_chunk::<2>()
            .filter(|_| *first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(coded.unwrap_or(*first));
        rest = if coded.is_some() {
            &behind[2..]
        } else {
            behind
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
