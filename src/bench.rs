//! Measuring the tunnel to a peer with real packets, between the overlay addresses of the two nodes.
//!
//! 1. The command asks its daemon, the daemon asks the peer's over an authenticated connection ([`asking`]).
//! 2. The peer's daemon opens a TCP and a UDP port on its overlay address, for this asker and this measurement alone
//!    ([`responder`]), and answers with the ports and a ticket.
//! 3. The command measures ([`client`]): echoes of datagrams on the idle tunnel, then again while TCP streams fill it in
//!    one direction, then in the other ([`echoes`]).
//!
//! Interface, kernel and session are all in the figures, because nothing here goes around them. Whoever receives counts:
//! what a sender has handed to its kernel says little about what arrived.
//!
//! Both ends yield after each block, so that a stream at full speed delays neither echoes nor timers by more than the
//! blocks of the other streams.

use std::{
    net::Ipv6Addr,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub mod asking;
pub mod client;
pub mod echoes;
pub mod responder;
pub mod wire;

pub use wire::{MAX_SECONDS, MAX_STREAMS};

use wire::{Ticket, Total};

/// Bytes read or written at once. Smaller costs throughput, larger delays echoes.
const BLOCK: usize = 64 << 10;
/// What is sent. Nothing on the way compresses.
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Where a peer waits for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Our overlay address, the only one that the peer serves.
    pub own: Ipv6Addr,
    /// The peer's.
    pub peer: Ipv6Addr,
    /// Its port for streams.
    pub tcp: u16,
    /// Its port for echoes.
    pub udp: u16,
    /// Shows that we are who asked.
    pub ticket: Ticket,
}

/// Counts what a stream brings within a window of time, which begins with the first byte.
#[derive(Debug)]
struct Meter {
    window: Duration,
    first: Option<Instant>,
    bytes: u64,
}

impl Meter {
    fn new(window: Duration) -> Self {
        Self {
            window,
            first: None,
            bytes: 0,
        }
    }

    fn add(&mut self, bytes: usize) {
        self.first.get_or_insert_with(Instant::now);
        self.bytes += bytes as u64;
    }

    fn total(&self) -> Total {
        Total {
            bytes: self.bytes,
            elapsed: self.first.map_or(Duration::ZERO, |first| first.elapsed()),
        }
    }

    /// When the window ends, once it has begun.
    fn end(&self) -> Option<Instant> {
        self.first.map(|first| first + self.window)
    }

    fn is_over(&self) -> bool {
        self.end().is_some_and(|end| Instant::now() >= end)
    }
}
