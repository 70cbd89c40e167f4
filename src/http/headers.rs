//! Headers that belong to one connection, and requests that could be read in two ways.

use hyper::{
    HeaderMap, Method, Uri, Version,
    header::{self, HeaderName, HeaderValue},
    http::{request, response, uri::PathAndQuery},
};

use super::caller::remove_claims;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A request that is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unclear {
    #[error("the request has no Host header, or several")]
    Host,
    #[error("the request line and the Host header name different hosts")]
    TwoHosts,
    #[error(
        "a request has either a Content-Length or a Transfer-Encoding, and the latter is chunked"
    )]
    Framing,
    #[error("this is a server, not a proxy: CONNECT is not for it")]
    Connect,
}

/// What is left to know of a request after its headers were tidied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asks {
    /// The protocol that the client wants to change to.
    pub upgrade: bool,
    /// The client waits to be told to send the body.
    pub expects: bool,
    /// The body's length is not known beforehand.
    pub chunked: bool,
}

/// Leaves in a request what concerns the backend, in a form that has one meaning. Who calls is to be written in afterwards.
pub(super) fn tidy_request(head: &mut request::Parts) -> Result<Asks, Unclear> {
    if head.method == Method::CONNECT {
        return Err(Unclear::Connect);
    }
    check_host(head)?;
    let chunked = is_chunked(&head.headers)?;
    let upgrade = upgrade_of(head);
    let wants_trailers = header_has(&head.headers, header::TE, "trailers");
    let expects = header_has(&head.headers, header::EXPECT, "100-continue");
    remove_hop_by_hop(&mut head.headers);
    remove_claims(&mut head.headers);
    let mut connection = Vec::new();
    if let Some(protocol) = &upgrade {
        head.headers.insert(header::UPGRADE, protocol.clone());
        connection.push("Upgrade");
    }
    if wants_trailers {
        let trailers = HeaderValue::from_static("trailers");
        head.headers.insert(header::TE, trailers);
        connection.push("TE");
    }
    if let Ok(connection) = HeaderValue::from_str(&connection.join(", "))
        && !connection.is_empty()
    {
        head.headers.insert(header::CONNECTION, connection);
    }
    if chunked {
        let chunked = HeaderValue::from_static("chunked");
        head.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
    head.uri = origin_form(&head.uri);
    head.version = Version::HTTP_11;
    Ok(Asks {
        upgrade: upgrade.is_some(),
        expects,
        chunked,
    })
}

/// Leaves in a response what concerns the client; framing is the next connection's own.
pub(super) fn tidy_response(head: &mut response::Parts, switches: bool) {
    let upgrade = head.headers.get(header::UPGRADE).cloned();
    remove_hop_by_hop(&mut head.headers);
    if let (true, Some(protocol)) = (switches, upgrade) {
        head.headers.insert(header::UPGRADE, protocol);
        let upgrade = HeaderValue::from_static("Upgrade");
        head.headers.insert(header::CONNECTION, upgrade);
    }
    head.version = Version::HTTP_11;
}

fn check_host(head: &request::Parts) -> Result<(), Unclear> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() || host.is_none() && head.version == Version::HTTP_11 {
        return Err(Unclear::Host);
    }
    let differs = |host: &HeaderValue| {
        let named = head.uri.authority().map(|named| named.as_str().as_bytes());
        named.is_some_and(|named| !named.eq_ignore_ascii_case(host.as_bytes()))
    };
    match host.is_some_and(differs) {
        true => Err(Unclear::TwoHosts),
        false => Ok(()),
    }
}

/// Anything but a lone `chunked` would need decoding, which is the backend's to do or to refuse, on framing of its own.
fn is_chunked(headers: &HeaderMap) -> Result<bool, Unclear> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else {
        return Ok(false);
    };
    let is_plain = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match is_plain && encodings.next().is_none() && !headers.contains_key(header::CONTENT_LENGTH) {
        true => Ok(true),
        false => Err(Unclear::Framing),
    }
}

/// The protocol to change to, unless it would carry requests past us: whoever speaks HTTP in a tunnel says there who it is.
fn upgrade_of(head: &request::Parts) -> Option<HeaderValue> {
    let asked = header_has(&head.headers, header::CONNECTION, "upgrade");
    let protocol = head.headers.get(header::UPGRADE)?;
    let text = protocol.to_str().ok()?.to_ascii_lowercase();
    let carries_http = text.split(',').map(str::trim).any(|protocol| {
        let name = protocol.split('/').next().unwrap_or_default();
        matches!(name, "h2c" | "h2" | "http" | "tls")
    });
    (asked && !carries_http && head.version == Version::HTTP_11).then(|| protocol.clone())
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = tokens(headers, header::CONNECTION)
        .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        // These say where a message ends and whom it is for, whatever a client would like.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    let own = [
        header::CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        HTTP2_SETTINGS,
    ];
    for name in nominated.into_iter().chain(own) {
        headers.remove(name);
    }
}

fn header_has(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// What a header lists, whether in one line or in several.
pub fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// `/path?query`, or `*`.
fn origin_form(uri: &Uri) -> Uri {
    let root = || PathAndQuery::from_static("/");
    Uri::from(uri.path_and_query().cloned().unwrap_or_else(root))
}
