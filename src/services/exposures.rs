//! What this node offers.

use std::sync::Arc;

use anyhow::{Result, bail};
use tokio::sync::watch;

use super::Snapshot;
use crate::{
    control::services::{Expose, Exposed},
    event_loop::Local,
    mailbox,
    store::Shelf,
};

/// All that this node offers.
pub struct Exposures {}

impl Exposures {
    /// Goes on offering what an earlier run offered.
    pub fn open(
        _shelf: Shelf,
        _snapshots: watch::Receiver<Snapshot>,
        _to_loop: mailbox::Sender<Local>,
    ) -> Arc<Self> {
        Arc::new(Self {})
    }

    /// Offers something.
    pub async fn expose(&self, _expose: Expose) -> Result<Exposed> {
        bail!("not yet")
    }

    /// Offers it no more.
    pub async fn unexpose(&self, _name: &str) -> Result<()> {
        bail!("not yet")
    }

    /// What is offered, by name.
    pub fn list(&self) -> Vec<Exposed> {
        Vec::new()
    }

    /// Closes everything, for the next run to offer again.
    pub fn end(&self) {}
}
