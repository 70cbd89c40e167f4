//! Has what members used of this node's model servers survive this process.
//!
//! The [books](Ledger) are in memory. What changes in them is written down every few seconds, on a thread that may wait for
//! the disk: whoever is served never does. These seconds are what is lost if this process is killed, and requests under way.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use hivevpn_core::membership::Name;

use crate::{
    control::services::Used,
    http::{Key, Ledger, Row},
    store::Shelf,
};

/// What has changed is written down after this.
const PERIOD: Duration = Duration::from_secs(5);
/// And after this, if the disk did not take it.
const RETRY: Duration = Duration::from_secs(60);

/// Keeps the books.
pub struct Bookkeeper {
    ledger: Ledger,
    shelf: Shelf,
    /// Held while it is written, so that what is newer is written later.
    writing: Mutex<()>,
    /// The disk did not take what was written last.
    is_behind: AtomicBool,
    /// Names on the shelf that mean nothing to us.
    unread: Mutex<Vec<String>>,
}

impl Bookkeeper {
    /// Goes on with the books of an earlier run.
    pub fn open(shelf: Shelf) -> Arc<Self> {
        let ledger = Ledger::default();
        let all = shelf.all().unwrap_or_else(|error| {
            tracing::error!(%error, "what was used of this node's model servers cannot be read: it is counted anew");
            Vec::new()
        });
        let mut unread = Vec::new();
        for (name, value) in all {
            if let Err(error) = read(&ledger, &name, &value) {
                let entry = name.escape_debug().to_string();
                tracing::warn!(
                    entry,
                    error = format!("{error:#}"),
                    "part of what was used of this node's model servers is left out, because it cannot be read: \
                     'hivevpn usage --reset' removes it"
                );
                unread.push(name);
            }
        }
        Arc::new(Self {
            ledger,
            shelf,
            writing: Mutex::default(),
            is_behind: AtomicBool::default(),
            unread: unread.into(),
        })
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What members used, by service, member and model.
    pub fn usage(&self) -> Vec<Used> {
        shown(self.ledger.usage(None))
    }

    /// Begins anew, with one service or with all. Returns what was used so far, once the disk has forgotten it; if that
    /// fails, nothing is forgotten.
    pub async fn reset(self: &Arc<Self>, service: Option<&str>) -> Result<Vec<Used>> {
        let service = service.map(Name::parse).transpose()?;
        let this = self.clone();
        let resetting = tokio::task::spawn_blocking(move || this.reset_here(service.as_ref()));
        Ok(shown(resetting.await??))
    }

    fn reset_here(&self, service: Option<&Name>) -> Result<Vec<(Key, Row)>> {
        let _writing = lock(&self.writing);
        let known = self.ledger.usage(service);
        let mut names: Vec<_> = known.iter().map(|(key, _)| key.to_string()).collect();
        let mut unread = lock(&self.unread);
        match service {
            Some(service) if known.is_empty() => bail!("{}", self.unknown(service)),
            Some(_) => {}
            None => names.extend(unread.iter().cloned()),
        }
        let removed = names.into_iter().map(|name| (name, None));
        self.shelf.change(removed).context(
            "nothing is reset, because the disk does not take it: make room there, then restart this node",
        )?;
        if service.is_none() {
            unread.clear();
        }
        Ok(self.ledger.reset(service))
    }

    fn unknown(&self, service: &Name) -> String {
        let used = self.ledger.usage(None).into_iter();
        let known: BTreeSet<_> = used.map(|(key, _)| key.service.to_string()).collect();
        let known = match known.is_empty() {
            true => "nor of any other".to_owned(),
            false => format!("but of {}", Vec::from_iter(known).join(", ")),
        };
        format!("nothing was used of a service called {service}, {known}")
    }

    /// Writes down what changes, as long as it does.
    pub async fn keep(self: Arc<Self>) {
        loop {
            self.ledger.changed().await;
            let pause = match self.is_behind.load(Ordering::Relaxed) {
                true => RETRY,
                false => PERIOD,
            };
            tokio::time::sleep(pause).await;
            self.save().await;
        }
    }

    /// Writes down what has changed. Returns whether it is on the disk now; the log says why, if it is not.
    pub async fn save(self: &Arc<Self>) -> bool {
        let this = self.clone();
        // Whatever panicked there has been logged.
        let saved = tokio::task::spawn_blocking(move || this.save_here()).await;
        saved.unwrap_or(false)
    }

    /// As [`save`](Self::save), on a thread that may wait for the disk.
    pub fn save_here(&self) -> bool {
        let _writing = lock(&self.writing);
        let changes = self.ledger.take_changes();
        if changes.is_empty() {
            return true;
        }
        if let Err(error) = self.write(&changes) {
            self.ledger
                .keep_changes(changes.into_iter().map(|(key, _)| key));
            if !self.is_behind.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    error = format!("{error:#}"),
                    "what was used of this node's model servers cannot be written down: what is counted from here on is \
                     lost at the next start. Make room on the disk, then restart this node"
                );
            }
            return false;
        }
        let rows = changes.iter().filter_map(|(_, row)| row.as_ref());
        let requests = rows.fold(0_u64, |sum, row| sum.saturating_add(row.requests));
        tracing::debug!(entries = changes.len(), requests, "usage is written down");
        if self.is_behind.swap(false, Ordering::Relaxed) {
            tracing::info!("what was used of this node's model servers is written down again");
        }
        true
    }

    fn write(&self, changes: &[(Key, Option<Row>)]) -> Result<()> {
        let values = changes.iter().map(|(key, row)| {
            let value = row.as_ref().map(serde_json::to_vec).transpose()?;
            Ok((key.to_string(), value))
        });
        let values: Vec<_> = values.collect::<Result<_>>()?;
        self.shelf.change(values)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked has left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read(ledger: &Ledger, name: &str, value: &[u8]) -> Result<()> {
    let key = name.parse()?;
    let row = serde_json::from_slice(value).context("its numbers")?;
    ledger.restore(key, row)?;
    Ok(())
}

fn shown(rows: Vec<(Key, Row)>) -> Vec<Used> {
    rows.into_iter()
        .map(|(key, row)| Used::new(key, row))
        .collect()
}

#[cfg(test)]
mod tests;
