//! The registry: what members tell all others, under keys, for a time.
//!
//! An **entry** is a value that its **owner**, a member, keeps under a [`Key`]. Under one key there may be entries of many
//! owners, one each; nobody writes another's. An entry has a sequence number, and a higher one replaces a lower one; it has
//! a lifetime, after which it is gone; and it is deleted by a **tombstone**, an entry without a value.
//!
//! What a member offers to others, a [`Service`], is the value of its entry `svc/<name>`.
//!
//! Entries are signed by their owners ([`entry`]) and **sealed** for the network ([`seal`]), so that they may lie anywhere:
//! at other members, on disks, in the DHT. Wherever one comes from, it goes through one pipeline ([`validator`]) before it
//! is believed, and what time changes is looked at again whenever it is read. A node may add rules of its own
//! ([`predicates`]). What was believed is in the node's **replica** ([`replica`]), and replicas are brought together by
//! messages between members ([`sync`]).

pub mod entry;
pub mod key;
pub mod predicates;
pub mod replica;
mod schema;
pub mod seal;
pub mod service;
pub mod sync;
pub mod validator;

pub use entry::Entry;
pub use key::{InvalidKey, Key};
pub use predicates::{InvalidPattern, KeyPattern, MaxBytes, Quota, Role, Rules, TimeWindow};
pub use replica::Replica;
pub use service::{Health, Kind, Load, Model, OpenAi, Service, State, Transport};
pub use validator::{Candidate, Validator};

#[cfg(test)]
mod tests;
