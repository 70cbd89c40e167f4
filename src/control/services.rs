//! Services, as commands and daemon speak of them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::admin::Sealed;
use crate::http;

/// A question about services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum Ask {
    /// Offer what listens on this machine. [`Exposed`].
    Expose(Expose),
    /// Stop offering it. Nothing.
    Unexpose {
        /// Its name.
        name: String,
    },
    /// A list of [`Exposed`]: what this node offers.
    Exposed,
    /// Make a member's service a port of this machine. [`Forward`].
    Forward(ForwardTo),
    /// Close such a port. Nothing.
    Unforward {
        /// The address it listens on, or the port alone.
        listen: String,
    },
    /// A list of [`Forward`].
    Forwards,
    /// A list of [`Listed`]: what all members offer.
    Services,
    /// A list of [`Used`]: what members used of this node's model servers.
    Usage,
    /// Begin to count anew. A list of [`Used`]: what was counted until now.
    ResetUsage {
        /// Of this service alone.
        service: Option<String>,
    },
    /// [`Models`].
    Models,
    /// [`Names`](super::names::Names).
    Names,
}

/// What to offer, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expose {
    /// Where it listens.
    pub target: SocketAddr,
    /// What it is called.
    pub name: String,
    /// What speaks there.
    pub kind: String,
    /// The port on the overlay; the target's, if none.
    pub port: Option<u16>,
    /// Who may reach it, as in a policy; everyone, if empty.
    pub to: Vec<String>,
    /// Seconds after which it is over; never, if none.
    pub lifetime_s: Option<u64>,
    /// A sentence for people.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Offer it to everyone although it lets everyone in.
    pub unauthenticated: bool,
    /// What a model server asks for: members need not know it.
    #[serde(default)]
    pub api_key: Option<Sealed>,
}

/// What this node offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// What it is called.
    pub name: String,
    /// What speaks there.
    pub kind: String,
    /// Where it listens on this machine.
    pub target: SocketAddr,
    /// Where members find it.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// Who may reach it; everyone, if empty.
    pub to: Vec<String>,
    /// `up`, `degraded` or `down`.
    pub health: String,
    /// Seconds until it is over.
    pub left_s: Option<u64>,
    /// Connections that are open.
    pub connections: u64,
    /// What is wrong with it at the moment.
    pub problem: Option<String>,
    /// `tcp` or `udp`.
    #[serde(default)]
    pub protocol: String,
    /// What whoever exposed it should know; only in the answer to that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Which service to bring here, and where to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardTo {
    /// `<service>`, `<service>.<node>` or `<node>:<port>`.
    pub to: String,
    /// Where to listen on this machine; a free port of 127.0.0.1, if none.
    pub listen: Option<SocketAddr>,
    /// TCP or UDP; what the service has, if none.
    pub udp: Option<bool>,
    /// Seconds after which it is over; never, if none.
    pub lifetime_s: Option<u64>,
}

/// A port of this machine that leads to a member's service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// Where it listens.
    pub listen: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where it leads, as asked for.
    pub to: String,
    /// Seconds until it is over.
    pub left_s: Option<u64>,
    /// Connections that are open.
    pub connections: u64,
    /// What is wrong with it at the moment.
    pub problem: Option<String>,
}

/// One of `services --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// What its owner calls it.
    pub name: String,
    /// What speaks there.
    pub kind: String,
    /// The member that offers it.
    pub node: String,
    /// Its overlay address.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// `up`, `degraded` or `down`; `offline` when its node is not reached.
    pub health: String,
    /// The models of a model server.
    pub models: Vec<String>,
    /// Seconds since its node said so.
    pub age_s: u64,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Who may reach it, as its owner says; everyone, if empty.
    pub to: Vec<String>,
    /// A sentence for people.
    pub description: Option<String>,
    /// Words to find it by.
    pub tags: Vec<String>,
}

/// `models --json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// An OpenAI-compatible interface that this machine reaches, for all of them.
    pub endpoint: String,
    /// Every live model of every member.
    pub models: Vec<ListedModel>,
}

/// A model of a member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedModel {
    /// What clients call it.
    pub id: String,
    /// The member that has it.
    pub node: String,
    /// From 0 (idle) upwards; 1 is as much as its server can work on at once.
    pub load: f64,
    /// Round trip through the tunnel in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Whether it is in memory; unknown, if its server does not say.
    pub loaded: Option<bool>,
    /// The service it belongs to.
    pub service: String,
    /// `up` or `degraded`.
    pub health: String,
    /// Tokens that fit its context.
    pub context: Option<u32>,
    /// Requests that wait there.
    pub queued: u32,
    /// Tokens written in a second, lately.
    pub tokens_per_s: f64,
    /// Price of a million tokens read, in the currency's smallest unit.
    pub price_in: Option<u64>,
    /// Price of a million tokens written, in the currency's smallest unit.
    pub price_out: Option<u64>,
    /// What prices are in.
    pub currency: Option<String>,
}

/// One of `usage --json`: what a member used of a model here, until that is reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The service, as this node calls it.
    pub service: String,
    /// The member.
    pub member: String,
    /// Its peer id; none for all those together that are too many to be told apart.
    pub peer_id: Option<String>,
    /// The model, as it was asked for; empty where a request named none.
    pub model: String,
    /// Requests that went to the server.
    pub requests: u64,
    /// Those of them that failed there.
    pub errors: u64,
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// How many of the tokens written are an estimate, because the server did not say.
    pub estimated_tokens: u64,
    /// Half of the latest answers began after no more than so many milliseconds.
    pub first_byte_ms: Option<u32>,
    /// When the first of these requests was counted, in seconds since 1970. None, if the node does not say.
    #[serde(default)]
    pub since: Option<u64>,
    /// When the last one was, the same way.
    #[serde(default)]
    pub until: Option<u64>,
}

impl Used {
    /// A row of the books.
    pub fn new(key: http::Key, row: http::Row) -> Self {
        Self {
            service: key.service.to_string(),
            member: row.member,
            peer_id: key.peer.map(|peer| peer.to_string()),
            model: key.model,
            requests: row.requests,
            errors: row.errors,
            prompt_tokens: row.prompt_tokens,
            completion_tokens: row.completion_tokens,
            estimated_tokens: row.estimated_tokens,
            first_byte_ms: row.first_bytes.median(),
            since: Some(row.since),
            until: Some(row.until),
        }
    }
}
