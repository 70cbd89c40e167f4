//! What keeps web pages out.
//!
//! A page of any site may have the browser of this machine send requests to it. Two ways would lead in. A page whose own
//! name was made to resolve to our address (DNS rebinding) gives itself away by the `Host` that it asks for: only names and
//! addresses of ours are answered. A page that asks for our address is given away by the `Origin` that browsers put into
//! what changes something: only what comes from the endpoint itself is answered. Programs send no `Origin`.

use std::net::IpAddr;

use hyper::{
    HeaderMap, StatusCode, Uri, Version,
    header::{HOST, HeaderName, ORIGIN},
    http::uri::Authority,
};

use super::problem::Problem;
use crate::{
    names::endpoint_of,
    services::{Snapshot, snapshot::Member},
};

/// Whether this was asked by a program, of us.
pub(super) fn check(
    snapshot: &Snapshot,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(authority(host.to_str().unwrap_or_default())?),
        (None, _) if version < Version::HTTP_11 => None,
        (None, _) => return Err(unclear("a request without Host")),
        (Some(_), Some(_)) => return Err(unclear("a request with more than one Host")),
    };
    for asked in host.iter().chain(uri.authority()) {
        if !is_ours(snapshot, asked.host()) {
            return Err(foreign_host(snapshot, asked.host()));
        }
    }
    let site = HeaderName::from_static("sec-fetch-site");
    let is_foreign = headers
        .get(site)
        .is_some_and(|site| site == "cross-site" || site == "same-site");
    match headers.get(ORIGIN) {
        None if is_foreign => Err(foreign_page("another page")),
        None => Ok(()),
        Some(origin) => {
            let origin = origin.to_str().unwrap_or_default();
            let own = host.map(|host| format!("http://{host}"));
            match own.is_some_and(|own| own.eq_ignore_ascii_case(origin)) {
                true => Ok(()),
                false => Err(foreign_page(origin)),
            }
        }
    }
}

fn authority(host: &str) -> Result<Authority, Problem> {
    let authority: Authority = host.parse().map_err(|_| unclear("a Host that is none"))?;
    match authority.as_str().contains('@') {
        true => Err(unclear("a Host that is none")),
        false => Ok(authority),
    }
}

fn is_ours(snapshot: &Snapshot, host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        let is_overlay = |us: &Member| us.addresses().any(|ours| ours == address);
        return address.is_loopback() || snapshot.us().is_some_and(is_overlay);
    }
    let host = bare.trim_end_matches('.');
    host.eq_ignore_ascii_case("localhost")
        || host.eq_ignore_ascii_case(&endpoint_of(&snapshot.network))
}

fn unclear(what: &str) -> Problem {
    let message = format!("{what} does not say whom it is for");
    Problem::new(StatusCode::BAD_REQUEST, "invalid_host", message)
}

fn foreign_host(snapshot: &Snapshot, host: &str) -> Problem {
    let name = endpoint_of(&snapshot.network);
    let message = format!(
        "this is not '{host}': ask for {name}, localhost, or an address of this machine on the overlay"
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, "invalid_host", message)
}

fn foreign_page(origin: &str) -> Problem {
    let message = format!("web pages may not ask here, and this came from {origin}");
    Problem::new(StatusCode::FORBIDDEN, "cross_origin", message)
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{named, network},
        *,
    };

    fn judged(host: &[&str], more: &[(&'static str, &str)]) -> Result<(), StatusCode> {
        let snapshot = network([named("a").this()], []);
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(HOST, host.parse().unwrap());
        }
        for (name, value) in more {
            headers.append(*name, value.parse().unwrap());
        }
        let uri = Uri::from_static("/v1/models");
        check(&snapshot, &uri, Version::HTTP_11, &headers).map_err(|problem| problem.status)
    }

    #[test]
    fn programs_may_ask_for_every_name_and_address_of_ours() {
        for host in [
            "ai.home.hive.internal",
            "AI.home.hive.internal.",
            "10.77.0.1",
            "[fd00::1]:80",
            "localhost:7780",
            "127.0.0.1:7780",
            "[::1]:7780",
        ] {
            assert_eq!(judged(&[host], &[]), Ok(()), "{host}");
        }
    }

    /// The attack: evil.example resolves to 127.0.0.1 for a moment, and its page asks "itself".
    #[test]
    fn a_name_that_was_made_to_resolve_here_is_refused() {
        for host in [
            "evil.example",
            "ai.home.hive.internal.evil.example",
            "10.77.0.9",
            "localhost.evil.example",
        ] {
            let refused = Err(StatusCode::MISDIRECTED_REQUEST);
            assert_eq!(judged(&[host], &[]), refused, "{host}");
        }
        let unclear = Err(StatusCode::BAD_REQUEST);
        assert_eq!(judged(&[], &[]), unclear);
        assert_eq!(judged(&["localhost", "evil.example"], &[]), unclear);
        assert_eq!(judged(&["localhost@evil.example"], &[]), unclear);
        assert_eq!(judged(&["evil.example@localhost"], &[]), unclear);
    }

    #[test]
    fn an_absolute_target_counts_as_a_host() {
        let snapshot = network([named("a").this()], []);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost".parse().unwrap());
        let uri = Uri::from_static("http://evil.example/v1/models");
        let refused = check(&snapshot, &uri, Version::HTTP_11, &headers).unwrap_err();
        assert_eq!(refused.status, StatusCode::MISDIRECTED_REQUEST);
    }

    #[test]
    fn other_pages_are_refused_and_our_own_is_not() {
        let host = ["localhost:7780"];
        let refused = Err(StatusCode::FORBIDDEN);
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost:3000",
            "https://localhost:7780",
        ] {
            assert_eq!(judged(&host, &[("origin", origin)]), refused, "{origin}");
        }
        assert_eq!(judged(&host, &[("sec-fetch-site", "cross-site")]), refused);
        assert_eq!(judged(&host, &[("sec-fetch-site", "none")]), Ok(()));
        let own = ("origin", "http://localhost:7780");
        assert_eq!(judged(&host, &[own]), Ok(()));
    }
}
