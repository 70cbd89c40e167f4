//! Who is a member right now, for those who only need to ask.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p::PeerId;

/// The peers that are admitted on at least one open connection. Clones share the set.
#[derive(Debug, Clone, Default)]
pub struct Members(Arc<Mutex<HashMap<PeerId, usize>>>);

impl Members {
    /// Whether `peer` is connected and admitted.
    pub fn contains(&self, peer: &PeerId) -> bool {
        self.lock().contains_key(peer)
    }

    /// Counts one more admitted connection; returns how many there were.
    pub(super) fn insert(&self, peer: PeerId) -> usize {
        let mut members = self.lock();
        let connections = members.entry(peer).or_default();
        *connections += 1;
        *connections - 1
    }

    /// Counts one admitted connection less; returns how many remain.
    pub(super) fn remove(&self, peer: PeerId) -> usize {
        let mut members = self.lock();
        let Some(connections) = members.get_mut(&peer) else {
            return 0;
        };
        *connections -= 1;
        let remaining = *connections;
        if remaining == 0 {
            members.remove(&peer);
        }
        remaining
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
