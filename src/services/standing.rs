//! How something that is exposed stands, told by those who carry it and those who look at it.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hivevpn_core::registry::State;
use tokio::{sync::Notify, time::Instant};

use super::{probe::Finding, sockets::Refused};

/// Doubts of many connections at once are one.
const DOUBTS: Duration = Duration::from_secs(1);

/// What is known of it at the moment.
#[derive(Debug, Default)]
pub struct Standing {
    /// Connections or flows that are open.
    pub carried: AtomicU64,
    known: Mutex<Known>,
    doubt: Notify,
}

#[derive(Debug, Default)]
struct Known {
    state: Option<State>,
    closed: Option<String>,
    unwell: Option<String>,
    unpublished: Option<String>,
}

impl Standing {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Whoever panicked with the lock held has left whole words behind.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At these addresses nobody can come in. Where others are open, one that this machine does not have, as without IPv6,
    /// is no problem.
    pub fn closed(&self, refused: &[Refused], others_are_open: bool) {
        let problems = refused.iter();
        let problems = problems.filter(|refused| !others_are_open || !refused.may_pass());
        let problems: Vec<_> = problems.map(ToString::to_string).collect();
        let closed = (!problems.is_empty()).then(|| problems.join("; "));
        let mut known = self.known();
        if let Some(problem) = closed.as_ref().filter(|_| known.closed != closed) {
            tracing::debug!(%problem, "not reachable at all of our addresses");
        }
        known.closed = closed;
    }

    /// What a probe has found.
    pub fn found(&self, finding: &Finding) {
        let mut known = self.known();
        known.state = Some(finding.state);
        known.unwell.clone_from(&finding.problem);
    }

    /// What the registry says to it.
    pub fn published(&self, outcome: &Result<(), String>) {
        self.known().unpublished = outcome.as_ref().err().cloned();
    }

    /// Somebody could not reach it: have a look.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Returns when somebody has a doubt, not too soon after `looked`.
    pub async fn doubted(&self, looked: Instant) {
        self.doubt.notified().await;
        tokio::time::sleep_until(looked + DOUBTS).await;
    }

    /// Whether it answers.
    pub fn state(&self) -> Option<State> {
        self.known().state
    }

    /// What is wrong, if anything is.
    pub fn problem(&self) -> Option<String> {
        let known = self.known();
        let problems = [&known.closed, &known.unpublished, &known.unwell];
        problems.into_iter().flatten().next().cloned()
    }

    /// Connections or flows that are open.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}
