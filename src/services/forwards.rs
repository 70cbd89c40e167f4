//! Ports of this machine that lead to members' services.

use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::Snapshot;
use crate::{
    control::services::{Forward, ForwardTo},
    store::Shelf,
};

/// All of them.
pub struct Forwards {}

impl Forwards {
    /// Opens those of an earlier run again.
    pub fn open(_shelf: Shelf, _snapshots: watch::Receiver<Snapshot>) -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Opens one.
    pub async fn forward(&self, _to: ForwardTo) -> Result<Forward> {
        bail!("not yet")
    }

    /// Closes one.
    pub fn unforward(&self, _listen: &str) -> Result<()> {
        bail!("not yet")
    }

    /// All of them, by where they listen.
    pub fn list(&self) -> Vec<Forward> {
        Vec::new()
    }

    /// Closes all, for the next run to open again.
    pub fn end(&self) {}
}
