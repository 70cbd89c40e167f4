//! Ports of this machine that lead to members' services.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};
use hivevpn_core::registry::Transport;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Snapshot,
    destination::Destination,
    forward::{Condition, Forward, Kept, Opened},
    listing::transport_name,
    room::Room,
    span,
};
use crate::{
    control::services::{Forward as Shown, ForwardTo},
    store::Shelf,
};

/// More than anybody has.
const MOST: usize = 256;

/// All of them.
pub struct Forwards {
    shelf: Shelf,
    snapshots: watch::Receiver<Snapshot>,
    room: Room,
    running: Mutex<BTreeMap<String, Running>>,
    /// Held while one is begun or ended, which takes more than a moment.
    changing: tokio::sync::Mutex<()>,
}

struct Running {
    kept: Kept,
    condition: Arc<Condition>,
    task: JoinHandle<()>,
}

impl Forwards {
    /// Opens those of an earlier run again.
    pub fn open(shelf: Shelf, snapshots: watch::Receiver<Snapshot>, room: Room) -> Arc<Self> {
        let forwards = Arc::new(Self {
            shelf,
            snapshots,
            room,
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        });
        forwards.resume();
        forwards
    }

    fn resume(self: &Arc<Self>) {
        let all = self.shelf.all().unwrap_or_else(|error| {
            tracing::error!(%error, "the forwards cannot be read: make them again");
            Vec::new()
        });
        for (name, value) in all {
            let read = |value: &[u8]| -> Result<(Kept, Destination)> {
                let kept: Kept = serde_json::from_slice(value)?;
                let to = kept.to.parse()?;
                Ok((kept, to))
            };
            match read(&value) {
                Ok((kept, _)) if span::is_over(kept.end) => self.forget(&name),
                Ok((kept, to)) => self.start(kept, to, None),
                Err(error) => {
                    tracing::error!(forward = %name, %error, "cannot be read: make it again");
                }
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Running>> {
        // Nobody changes more than one entry at a time.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, kept: Kept, to: Destination, opened: Option<Opened>) {
        let condition = Arc::<Condition>::default();
        let forward = Forward {
            kept: kept.clone(),
            to,
            condition: condition.clone(),
            snapshots: self.snapshots.clone(),
            room: self.room.clone(),
        };
        let (this, its_name) = (self.clone(), name(&kept));
        let task = tokio::spawn(async move {
            forward.run(opened).await;
            tokio::spawn(async move { this.lapse(&its_name).await });
        });
        let running = Running {
            kept,
            condition,
            task,
        };
        self.running().insert(name(&running.kept), running);
    }

    /// Its lifetime is over.
    async fn lapse(self: Arc<Self>, name: &str) {
        let _changing = self.changing.lock().await;
        let is_over = |running: &Running| span::is_over(running.kept.end);
        // It may have been made anew meanwhile.
        if self.running().get(name).is_some_and(is_over) {
            tracing::info!(forward = %name, "its lifetime is over");
            self.close(name).await;
            self.forget(name);
        }
    }

    /// Opens one.
    pub async fn forward(self: &Arc<Self>, asked: ForwardTo) -> Result<Shown> {
        let to: Destination = asked.to.parse()?;
        let transport = {
            let snapshot = self.snapshots.borrow();
            let transport = match asked.udp {
                Some(true) => Transport::Udp,
                Some(false) => Transport::Tcp,
                None => to.transport(&snapshot).unwrap_or(Transport::Tcp),
            };
            // Later it may come and go, but whoever asks now wants to know.
            to.places(&snapshot, transport)?;
            transport
        };
        let _changing = self.changing.lock().await;
        let free = (Ipv4Addr::LOCALHOST, 0).into();
        let listen = asked.listen.unwrap_or(free);
        self.check_place(listen, transport)?;
        let opened = Opened::open(listen, transport).map_err(|error| refused(listen, &error))?;
        let kept = Kept {
            listen: opened.address()?,
            udp: transport == Transport::Udp,
            to: to.to_string(),
            end: asked.lifetime_s.map(span::end),
        };
        let name = name(&kept);
        self.shelf
            .put(&name, &serde_json::to_vec(&kept)?)
            .context("cannot write down what is forwarded")?;
        tracing::info!(listen = %kept.listen, %to, "forwarded");
        self.start(kept, to, Some(opened));
        self.shown(&name)
            .with_context(|| format!("{name} has ended already"))
    }

    fn check_place(&self, listen: SocketAddr, transport: Transport) -> Result<()> {
        let running = self.running();
        ensure!(
            running.len() < MOST,
            "a node has no more than {MOST} forwards: close one with 'hivevpn unforward'"
        );
        let is_there = |running: &&Running| {
            running.kept.listen == listen && running.kept.transport() == transport
        };
        if let Some(other) = running.values().find(is_there) {
            bail!(
                "{listen} leads to {} already: close that with 'hivevpn unforward {listen}', or choose another --listen",
                other.kept.to
            );
        }
        Ok(())
    }

    /// Closes one, by its address or its port alone.
    pub async fn unforward(&self, listen: &str) -> Result<()> {
        let _changing = self.changing.lock().await;
        let is_meant = |kept: &Kept| {
            kept.listen.to_string() == listen || kept.listen.port().to_string() == listen
        };
        let meant: Vec<String> = {
            let running = self.running();
            let all = running
                .iter()
                .filter(|(_, running)| is_meant(&running.kept));
            all.map(|(name, _)| name.clone()).collect()
        };
        ensure!(
            !meant.is_empty(),
            "nothing is forwarded from {listen}: 'hivevpn forwards' shows what is"
        );
        let addresses: std::collections::BTreeSet<_> = meant
            .iter()
            .filter_map(|name| Some(self.running().get(name)?.kept.listen))
            .collect();
        ensure!(
            addresses.len() == 1,
            "several addresses have port {listen}: say which, as in 'hivevpn unforward 127.0.0.1:{listen}'"
        );
        for name in meant {
            self.close(&name).await;
            self.forget(&name);
            tracing::info!(forward = %name, "forwarded no more");
        }
        Ok(())
    }

    /// Closes its port and cuts its connections. Returns when that is done.
    async fn close(&self, name: &str) {
        let Some(running) = self.running().remove(name) else {
            return;
        };
        running.task.abort();
        // How it ended is not of interest, only that it has.
        let _ = running.task.await;
    }

    fn forget(&self, name: &str) {
        if let Err(error) = self.shelf.remove(name) {
            tracing::error!(forward = %name, %error, "it will be opened again at the next start");
        }
    }

    /// All of them, by where they listen.
    pub fn list(&self) -> Vec<Shown> {
        let names: Vec<_> = self.running().keys().cloned().collect();
        let mut list: Vec<_> = names.iter().filter_map(|name| self.shown(name)).collect();
        list.sort_by_key(|shown| (shown.listen, shown.protocol.clone()));
        list
    }

    fn shown(&self, name: &str) -> Option<Shown> {
        let running = self.running();
        let Running {
            kept, condition, ..
        } = running.get(name)?;
        Some(Shown {
            listen: kept.listen,
            protocol: transport_name(kept.transport()).to_owned(),
            to: kept.to.clone(),
            left_s: span::left(kept.end),
            connections: condition.carried(),
            problem: condition.problem(),
        })
    }

    /// Closes all, for the next run to open again.
    pub async fn end(&self) {
        let running = std::mem::take(&mut *self.running());
        running.values().for_each(|running| running.task.abort());
        for running in running.into_values() {
            let _ = running.task.await;
        }
    }
}

/// What it is kept under: TCP and UDP have ports of their own.
fn name(kept: &Kept) -> String {
    format!("{}/{}", transport_name(kept.transport()), kept.listen)
}

fn refused(listen: SocketAddr, error: &io::Error) -> anyhow::Error {
    let what_to_do = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has that port: choose another with --listen",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 take CAP_NET_BIND_SERVICE: choose another with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose another with --listen"
        }
        _ => "choose another with --listen",
    };
    anyhow::anyhow!("cannot listen on {listen} ({error}): {what_to_do}")
}
