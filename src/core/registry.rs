//! The registry: what members tell all others, under keys, for a time.
//!
//! An **entry** is a value that its **owner**, a member, keeps under a [`Key`]. Under one key there may be entries of many
//! owners, one each; nobody writes another's. An entry has a sequence number, and a higher one replaces a lower one; it has
//! a lifetime, after which it is gone; and it is deleted by a **tombstone**, an entry without a value.
//!
//! What a member offers to others, a [`Service`], is the value of its entry `svc/<name>`.

pub mod key;
pub mod service;

pub use key::{InvalidKey, Key};
pub use service::{Health, Kind, Load, Model, OpenAi, Service, State, Transport};
