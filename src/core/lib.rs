//! The deciding half of hivevpn: no I/O, no clock, no async, no locks.
//!
//! Everything that decides lives here; the shell moves bytes. So whole networks can be simulated with a hand-driven
//! clock. In the order of a packet's way out:
//!
//! - [`node`]: the front door; what goes in, what comes out
//! - [`tunnels`]: every session, path and overlay address; the walks of packets and datagrams
//! - [`allowed_ips`], [`peers`], [`peer`]: which peer owns an address, how peers are found, one peer
//! - [`session`]: a WireGuard tunnel, the only file that knows boringtun
//! - [`tunnel_key`], [`key_exchange`]: the pre-shared keys, and how a pair agrees on its own
//! - [`path`]: the ways to a peer, which of them carries the tunnel now, and how long a packet it takes
//! - [`mss`], [`fragment`], [`icmp`], [`checksum`]: a packet longer than that is kept from being sent, cut, or answered
//! - [`signal`], [`relay`]: what two cores say to each other in their session; datagrams of others passed on
//! - [`schedule`], [`allowance`]: whose timers run when, and how much of something each may have
//! - [`batch`], [`ip_packet`], [`datagram`], [`drop_reason`]: what moves, and why it stopped
//! - [`connection`], [`connections`]: libp2p connections, and which of them are wanted
//! - [`policy`]: who may reach what, and the filter that enforces it
//! - [`registry`]: what members tell all others: their services, and whatever applications leave there
//! - [`membership`]: who belongs to the network, proven by signatures alone
//! - [`output`]: everything that the core may ask the shell to do

// Our own enums are matched in full: a new variant must be thought about wherever it arrives.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod allowance;
pub mod allowed_ips;
pub mod batch;
pub mod checksum;
pub mod connection;
pub mod connections;
pub mod datagram;
pub mod drop_reason;
pub mod fragment;
pub mod icmp;
pub mod ip_packet;
pub mod key_exchange;
pub mod membership;
pub mod mss;
pub mod node;
pub mod output;
pub mod path;
pub mod peer;
pub mod peers;
pub mod policy;
pub mod registry;
pub mod relay;
pub mod schedule;
pub mod session;
pub mod signal;
#[cfg(test)]
mod testing;
pub mod tunnel_key;
pub mod tunnels;
