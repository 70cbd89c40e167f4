//! What a member offers to others: the value of its entry `svc/<name>`.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use minicbor::{Decode, Encode};

use crate::{membership::UnixTime, policy::Selector};

/// What speaks there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(flat)]
pub enum Kind {
    /// An OpenAI-compatible model server.
    #[n(0)]
    OpenAi,
    /// Secure shell.
    #[n(1)]
    Ssh,
    /// PostgreSQL.
    #[n(2)]
    Postgres,
    /// HTTP in plain text: safe inside the overlay, and the peer's identity is put into its headers.
    #[n(3)]
    Http,
    /// HTTP over TLS.
    #[n(4)]
    Https,
    /// Anything over TCP.
    #[n(5)]
    Tcp,
    /// Anything over UDP.
    #[n(6)]
    Udp,
    /// A name server, over UDP.
    #[n(7)]
    Dns,
    /// Metrics in Prometheus' format.
    #[n(8)]
    Metrics,
    /// A kind that somebody made up: `x-<vendor>`, over TCP.
    #[n(9)]
    Vendor(#[n(0)] String),
}

/// A text names no kind of service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is none of openai, ssh, postgres, http, https, tcp, udp, dns, metrics, nor x- and a name of your own"
)]
pub struct InvalidKind(String);

/// What carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Transport {
    /// TCP.
    #[n(0)]
    Tcp,
    /// UDP.
    #[n(1)]
    Udp,
}

/// All that have a fixed name.
const KINDS: [Kind; 9] = [
    Kind::OpenAi,
    Kind::Ssh,
    Kind::Postgres,
    Kind::Http,
    Kind::Https,
    Kind::Tcp,
    Kind::Udp,
    Kind::Dns,
    Kind::Metrics,
];

impl Kind {
    /// What people write.
    pub fn name(&self) -> &str {
        match self {
            Kind::OpenAi => "openai",
            Kind::Ssh => "ssh",
            Kind::Postgres => "postgres",
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::Dns => "dns",
            Kind::Metrics => "metrics",
            Kind::Vendor(name) => name,
        }
    }

    /// What carries it.
    pub fn transport(&self) -> Transport {
        match self {
            Kind::Udp | Kind::Dns => Transport::Udp,
            Kind::OpenAi
            | Kind::Ssh
            | Kind::Postgres
            | Kind::Http
            | Kind::Https
            | Kind::Tcp
            | Kind::Metrics
            | Kind::Vendor(_) => Transport::Tcp,
        }
    }

    /// Whether it is HTTP that we can read and add headers to.
    pub fn is_plain_http(&self) -> bool {
        matches!(self, Kind::OpenAi | Kind::Http | Kind::Metrics)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Kind {
    type Err = InvalidKind;

    fn from_str(text: &str) -> Result<Self, InvalidKind> {
        if let Some(kind) = KINDS.iter().find(|kind| kind.name() == text) {
            return Ok(kind.clone());
        }
        let is_vendor = text.len() <= 63
            && text.strip_prefix("x-").is_some_and(|rest| {
                let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                !rest.is_empty() && rest.bytes().all(is_plain)
            });
        match is_vendor {
            true => Ok(Kind::Vendor(text.to_owned())),
            false => Err(InvalidKind(text.chars().take(80).collect())),
        }
    }
}

/// Whether it answers, as its own node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// It answers.
    #[n(0)]
    Up,
    /// It answers, but not as it should: its models cannot be listed, for example.
    #[n(1)]
    Degraded,
    /// Nothing answers.
    #[n(2)]
    Down,
}

impl State {
    /// What people see.
    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Degraded => "degraded",
            State::Down => "down",
        }
    }
}

/// How a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Health {
    /// Whether it answers.
    #[n(0)]
    pub state: State,
    /// Since when it is in this state.
    #[n(1)]
    pub since: UnixTime,
}

/// A model that a server has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Model {
    /// Its id, as clients write it.
    #[n(0)]
    pub id: String,
    /// Tokens that fit its context.
    #[n(1)]
    pub context: Option<u32>,
    /// The longest answer in tokens.
    #[n(2)]
    pub max_output: Option<u32>,
    /// Price of a million tokens read, in the currency's smallest unit.
    #[n(3)]
    pub price_in: Option<u64>,
    /// Price of a million tokens written, in the currency's smallest unit.
    #[n(4)]
    pub price_out: Option<u64>,
    /// `q4_k_m` and the like.
    #[n(5)]
    pub quantization: Option<String>,
    /// Whether it is in memory; unknown, if the server does not say.
    #[n(6)]
    pub loaded: Option<bool>,
}

/// What a model server says beyond what every service does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenAi {
    /// Its models.
    #[n(0)]
    pub models: Vec<Model>,
    /// What prices are in.
    #[n(1)]
    pub currency: Option<String>,
    /// Who is paid.
    #[n(2)]
    pub payee: Option<String>,
}

/// A service on a member's overlay address.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Service {
    /// What speaks there.
    #[n(0)]
    pub kind: Kind,
    /// What carries it.
    #[n(1)]
    pub transport: Transport,
    /// Where, on each overlay address of its node.
    #[n(2)]
    pub port: u16,
    /// Where its interface begins, for HTTP: `/v1`.
    #[n(3)]
    pub path: Option<String>,
    /// Who may reach it; everyone, if empty. Its own node sees to that, and the policy may forbid more.
    #[n(4)]
    pub to: BTreeSet<Selector>,
    /// How it is.
    #[n(5)]
    pub health: Health,
    /// A sentence for people.
    #[n(6)]
    pub description: Option<String>,
    /// Words to find it by.
    #[n(7)]
    pub tags: BTreeSet<String>,
    /// What a model server says.
    #[n(8)]
    pub openai: Option<OpenAi>,
}

/// How busy a service is. It changes too often to be written into the registry: members tell it each other, unsigned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Load {
    /// Requests that it works on.
    #[n(0)]
    pub active: u32,
    /// Requests that wait.
    #[n(1)]
    pub queued: u32,
    /// Requests that it works on at once before others wait; 0 where that is not known.
    #[n(2)]
    pub slots: u32,
    /// Half of the latest requests had their first token after no more than so many milliseconds.
    #[n(3)]
    pub p50_ms: u32,
    /// Tokens written in a second, lately, by all requests together, times ten.
    #[n(4)]
    pub tokens_per_10s: u32,
}

impl Load {
    /// From 0 (idle) upwards; 1 is as much as it can work on at once.
    pub fn level(&self) -> f64 {
        f64::from(self.active.saturating_add(self.queued)) / f64::from(self.slots.max(1))
    }
}

/// Entries of services live so long, unless told otherwise. They are renewed before half of that is over.
pub const LIFETIME: Duration = Duration::from_secs(90 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_spelt_as_it_is_shown() {
        for kind in KINDS {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let own: Kind = "x-comfy-ui".parse().unwrap();
        assert_eq!(own.to_string(), "x-comfy-ui");
        for bad in ["", "x-", "x-Ü", "gopher"] {
            assert!(bad.parse::<Kind>().is_err(), "{bad}");
        }
    }
}
