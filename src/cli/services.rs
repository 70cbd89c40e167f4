//! The command line of services: what is offered, what others offer, and ports that lead there.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use hivevpn_core::{membership::Name, policy::Selector, registry::Kind};

use super::JsonArg;
use crate::config::parse_span;

pub(super) const EXPOSE_HELP: &str = "\
Offer what listens on this machine to the network.

Opens the same port on this node's overlay addresses (or --port), carries what comes in to ADDRESS, and publishes name, \
kind and health for all members to find: 'hivevpn services', NAME.svc.<network>.hive.internal, 'hivevpn forward'. What \
listens on 127.0.0.1 alone is reached too. It stays through restarts until 'hivevpn unexpose', or for --lifetime.

The kind says how it is looked at (every 30 s), and what stands in front of it:

  openai           an OpenAI-compatible model server: its models are read from /v1/models and published
  http             HTTP in plain text, which is safe inside the overlay; metrics the same, for Prometheus
  https, tcp       anything over TCP; x-VENDOR the same, under a name of your own
  ssh, postgres    looked at by their greetings
  udp, dns         over UDP; whether anything answers cannot be told, so they count as up

Who may use it: every member, or with --to those that a policy's words name ('group:gpu', a node's name, a peer id). It \
counts for live connections too: they are cut when somebody leaves the group. The network's policy may forbid more \
('hivevpn policy'), and does not need to allow it where its mode is 'published'.

A model server that asks nobody for a key can be used by every member: that is what 'expose' says, with a note. It is \
refused where that would be more than members you chose: while this node admits whoever knows the network's password, \
or when the server listens on all addresses of this machine anyway. Then restrict it (--to), have it ask for a key, or \
say --unauthenticated. Where the server asks for a key, --api-key-file shows it for those who may use the service and \
show none of their own: they need not know it.

Backends of openai, http and metrics learn who calls from X-Hive-Name, X-Hive-Peer, X-Hive-Groups, X-Hive-Network and \
X-Forwarded-For, which no member can forge. How much of a model server each may have is [services.limits] in \
network.toml; what they had is 'hivevpn usage'.

A server that listens on all addresses already, at the port that it is to have on the overlay, is published as it is, \
without a listener of this node's; --to cannot restrict it then.

Ports 53 and 80 of the overlay are this node's own, for names and models, unless its configuration says otherwise.

Bounds: 64 services a node; 1024 connections each, 256 of one member; 512 UDP flows each, which end after 5 minutes of \
rest. Connections may rest as long as they like.";

pub(super) const EXPOSE_EXAMPLES: &str = "\
Examples:
  hivevpn expose 127.0.0.1:8000 --as llm --kind openai
  hivevpn expose 5432 --as db --kind postgres --to group:backend
  hivevpn expose 22 --as ssh --kind ssh --lifetime 2h
  hivevpn expose localhost:3000 --as wiki --kind http --port 8080 --description 'Our wiki'
  hivevpn expose 127.0.0.1:53 --as zone --kind dns --port 5300";

/// Arguments of `expose`.
#[derive(Debug, Args)]
pub struct ExposeArgs {
    /// Where it listens: 8000, 127.0.0.1:8000, localhost:8000, `[::1]:8000`
    #[arg(value_name = "ADDRESS", value_parser = parse_place)]
    pub target: SocketAddr,

    /// What to call it
    #[arg(long = "as", value_name = "NAME", value_parser = Name::parse)]
    pub name: Name,

    /// What speaks there: openai, ssh, postgres, http, https, tcp, udp, dns, metrics, x-VENDOR
    #[arg(long, value_name = "KIND", default_value = "tcp")]
    pub kind: Kind,

    /// The port on the overlay [default: the one in ADDRESS]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Who may use it: group:NAME, a node's name or a peer id (repeatable) [default: every member]
    #[arg(long, value_name = "WHO")]
    pub to: Vec<Selector>,

    /// Take it back after this time, e.g. 30m, 2h, 7d [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub lifetime: Option<Duration>,

    /// A sentence for people
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,

    /// A word to find it by (repeatable)
    #[arg(long = "tag", value_name = "WORD")]
    pub tags: Vec<String>,

    /// Private file with the key that a model server asks for; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,

    /// Offer a model server to whoever reaches it although it asks nobody for a key
    #[arg(long)]
    pub unauthenticated: bool,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `unexpose`.
#[derive(Debug, Args)]
pub struct UnexposeArgs {
    /// What it is called
    #[arg(value_name = "NAME")]
    pub name: String,
}

pub(super) const EXPOSED_HELP: &str = "\
List what this node offers, with where it listens, how it is, and who may use it.

With --json a list of {\"name\", \"kind\", \"target\", \"address\", \"port\", \"protocol\", \"to\", \"health\", \"left_s\", \
\"connections\", \"problem\"}.";

/// Arguments of `exposed` and `forwards`.
pub type ListArgs = JsonArg;

pub(super) const SERVICES_HELP: &str = "\
List what all members offer.

  up         it answered its own node within the last 30 s
  degraded   it answers, but not as its kind should
  down       nothing answers there at the moment
  offline    its node is not reached

With --json a list of {\"name\", \"kind\", \"node\", \"address\", \"port\", \"health\", \"models\", \"age_s\", \"protocol\", \"to\", \
\"description\", \"tags\"}; age_s are the seconds since its node said so.";

pub(super) const SERVICES_EXAMPLES: &str = "\
Examples:
  hivevpn services --kind openai
  hivevpn services --model 'llama*'
  psql -h $(hivevpn services --kind postgres --json | jq -r '.[0].address')";

/// Arguments of `services`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    /// Only services of this kind
    #[arg(long, value_name = "KIND")]
    pub kind: Option<Kind>,

    /// Only servers that have such a model; * stands for anything
    #[arg(long, value_name = "PATTERN")]
    pub model: Option<String>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const USAGE_HELP: &str = "\
List what members used of the model servers that this node offers, by service, member and model.

It adds up, through restarts and also when a service is taken back or offered anew, until --reset; SINCE says when the \
first of the requests was counted. It is written down every few seconds: a node that is killed loses no more than these, \
and the requests under way.

Tokens are what the server says at the end of an answer; of a stream that does not say (its client did not ask for usage, \
or hung up), the pieces are counted instead, and shown with ~.

With --reset, what is listed is counted anew from here on, so that no request is in two lists, or in none.

With --json a list of {\"service\", \"member\", \"peer_id\", \"model\", \"requests\", \"errors\", \"prompt_tokens\", \
\"completion_tokens\", \"estimated_tokens\", \"first_byte_ms\", \"since\", \"until\"}; estimated_tokens are the part of \
completion_tokens that the server did not say, since and until the times of the first and the last request.";

pub(super) const USAGE_EXAMPLES: &str = "\
Examples:
  hivevpn usage
  hivevpn usage llm --reset --json > october.json";

/// Arguments of `usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Of this service alone
    #[arg(value_name = "SERVICE", value_parser = Name::parse)]
    pub service: Option<Name>,

    /// Count anew from here on
    #[arg(long)]
    pub reset: bool,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

pub(super) const FORWARD_HELP: &str = "\
Make a member's service a port of this machine.

For programs that cannot use an overlay address, or should not care which node has a service. WHAT is

  SERVICE        a service by its name, whoever offers it: each connection goes to one that is healthy, reached and near;
                 if it does not answer, to the next
  SERVICE.NODE   that of one node
  NODE:PORT      any port of a node: name, overlay address or peer id

It listens on 127.0.0.1, at a free port unless --listen names one, and says where. A connection that finds nobody waits \
up to 10 s for a node that is coming back. It stays through restarts until 'hivevpn unforward', or for --lifetime. \
--listen with another address lets whoever reaches that address use it in this node's name.";

pub(super) const FORWARD_EXAMPLES: &str = "\
Examples:
  hivevpn forward db --listen 15432 && psql -h 127.0.0.1 -p 15432
  hivevpn forward ssh.gpu
  hivevpn forward gpu:9100 --listen 127.0.0.1:9100 --lifetime 1h
  hivevpn forward zone.gpu --listen 5353";

/// Arguments of `forward`.
#[derive(Debug, Args)]
pub struct ForwardArgs {
    /// SERVICE, SERVICE.NODE or NODE:PORT
    #[arg(value_name = "WHAT")]
    pub to: String,

    /// Where to listen: 15432, 127.0.0.1:15432 [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", value_parser = parse_place)]
    pub listen: Option<SocketAddr>,

    /// Carry UDP, not TCP [default: what the service has]
    #[arg(long)]
    pub udp: bool,

    /// Close it after this time, e.g. 30m, 2h, 7d [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    pub lifetime: Option<Duration>,

    /// Print JSON for machines
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `unforward`.
#[derive(Debug, Args)]
pub struct UnforwardArgs {
    /// Where it listens, or its port alone
    #[arg(value_name = "ADDRESS")]
    pub listen: String,
}

/// A place on this machine: a port alone is one of 127.0.0.1.
fn parse_place(text: &str) -> Result<SocketAddr, String> {
    let wrong = || {
        format!(
            "'{text}' is no place to listen on: write 8000, 127.0.0.1:8000, localhost:8000 or [::1]:8000"
        )
    };
    let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    if let Ok(place) = text.parse() {
        return Ok(place);
    }
    let (host, port) = match text.rsplit_once(':') {
        None => (Ipv4Addr::LOCALHOST.into(), port(text)?),
        Some(("localhost", number)) => (Ipv4Addr::LOCALHOST.into(), port(number)?),
        Some(("*", number)) => (Ipv4Addr::UNSPECIFIED.into(), port(number)?),
        // `::1:8000` might be an address of its own: brackets say what is meant.
        Some((host, number)) => match host.parse::<Ipv6Addr>() {
            Ok(Ipv6Addr::LOCALHOST) => (IpAddr::V6(Ipv6Addr::LOCALHOST), port(number)?),
            Ok(_) | Err(_) => return Err(wrong()),
        },
    };
    Ok(SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_may_be_short() {
        for (text, place) in [
            ("8000", "127.0.0.1:8000"),
            ("localhost:8000", "127.0.0.1:8000"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[::1]:8000", "[::1]:8000"),
            ("::1:8000", "[::1]:8000"),
            ("*:8000", "0.0.0.0:8000"),
        ] {
            assert_eq!(parse_place(text).unwrap().to_string(), place, "{text}");
        }
        for bad in [
            "",
            "localhost",
            "localhost:",
            ":80",
            "gpu:80",
            "65536",
            "fd00::1:80",
        ] {
            let error = parse_place(bad).unwrap_err();
            assert!(error.contains("127.0.0.1:8000"), "{error}");
        }
    }
}
