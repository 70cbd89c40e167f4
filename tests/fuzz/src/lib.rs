//! What strangers, members and people may feed to this program, as functions that must not panic, whatever the bytes.
//!
//! - `datagrams`, `packets`, `signals`: the underlay and the inside of the tunnels ([`tunnels`])
//! - `objects`, `signed`, `sync`, `joins`, `invites`: who belongs to us ([`membership`])
//! - `registry`: what members keep for each other, and what the DHT holds ([`registry`])
//! - `exchange`, `carrier`, `messages`, `wires`, `addresses`: streams between nodes ([`streams`])
//! - `config`, `control`: files and commands ([`texts`])
//!
//! A function whose bytes mean several things in a row takes them apart by [`Acts`].

mod membership;
mod registry;
mod streams;
mod texts;
mod tunnels;

pub use membership::{invites, joins, objects, signed, sync};
pub use registry::registry;
pub use streams::{addresses, carrier, exchange, messages, wires};
pub use texts::{config, control};
pub use tunnels::{datagrams, packets, signals};

/// One of the functions.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("addresses", addresses),
    ("carrier", carrier),
    ("config", config),
    ("control", control),
    ("datagrams", datagrams),
    ("exchange", exchange),
    ("invites", invites),
    ("joins", joins),
    ("messages", messages),
    ("objects", objects),
    ("packets", packets),
    ("registry", registry),
    ("signals", signals),
    ("signed", signed),
    ("sync", sync),
    ("wires", wires),
];

/// Something genuine to begin with, by the name of its corpus.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = membership::seeds();
    seeds.extend(streams::seeds());
    seeds.extend(texts::seeds());
    seeds.extend(tunnels::seeds());
    seeds.extend(registry::seeds());
    seeds
}

/// Bytes as a row of acts: what kind (1), the length of the body (2, big endian), the body.
pub struct Acts<'a>(pub &'a [u8]);

/// More are not played: one run should take a moment.
const MAX_ACTS: usize = 32;

impl<'a> Acts<'a> {
    /// The first of them.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let [kind, high, low, after @ ..] = rest else {
                return None;
            };
            let length = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
            let (body, next) = after.split_at(length);
            rest = next;
            Some((*kind, body))
        })
        .take(MAX_ACTS)
    }
}
