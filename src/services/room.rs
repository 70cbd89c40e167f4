//! How many connections all services together carry at once.

use std::sync::Arc;

use hivevpn_platform::open_files;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whatever the system would allow.
const MOST: u64 = 4096;
/// Connections through one listener.
pub const OF_ONE_LISTENER: usize = 1024;
/// And of one member through it, so that one that has gone wrong leaves room for others.
pub const OF_ONE_MEMBER: usize = 256;
/// Files that one connection takes: its two ends.
const FILES: u64 = 2;

/// Room for connections. Clones share it.
#[derive(Debug, Clone)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// As much as the limit on open files lets us have, the half of which is for others.
    pub fn of_this_process() -> Self {
        let files = open_files::raise_limit(0).unwrap_or(1024);
        let connections = (files / 2 / FILES).clamp(16, MOST);
        // It is no more than MOST.
        Self(Arc::new(Semaphore::new(connections as usize)))
    }

    /// A place, if there is one.
    pub fn enter(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }
}
