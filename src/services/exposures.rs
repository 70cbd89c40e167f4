//! What this node offers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hivevpn_core::{
    membership::Name,
    policy,
    registry::{Kind, State},
};
use tokio::{sync::watch, task::JoinHandle};

use super::{
    Snapshot, Told,
    bookkeeper::Bookkeeper,
    exposure::{Exposure, Kept, Opened, Published},
    listing::transport_name,
    probe::Finding,
    room::Room,
    sockets::Refused,
    span,
    standing::Standing,
};
use crate::{
    control::services::{Expose, Exposed},
    event_loop::Local,
    http::Limits,
    mailbox,
    store::Shelf,
};

/// As many as the registry takes of one node.
const MOST: usize = 64;

/// Who exposes something waits for a look at it.
const FIRST_LOOK: Duration = Duration::from_secs(4);

/// All that this node offers.
pub struct Exposures {
    shelf: Shelf,
    snapshots: watch::Receiver<Snapshot>,
    to_loop: mailbox::Sender<Local>,
    room: Room,
    limits: Limits,
    books: Arc<Bookkeeper>,
    running: Mutex<BTreeMap<Name, Running>>,
    /// Held while something is begun or ended, which takes more than a moment.
    changing: tokio::sync::Mutex<()>,
}

/// Something that is offered.
struct Running {
    kept: Kept,
    standing: Arc<Standing>,
    task: JoinHandle<()>,
}

impl Exposures {
    /// Goes on offering what an earlier run offered.
    pub fn open(
        shelf: Shelf,
        snapshots: watch::Receiver<Snapshot>,
        to_loop: mailbox::Sender<Local>,
        room: Room,
        limits: Limits,
        books: Arc<Bookkeeper>,
    ) -> Arc<Self> {
        let exposures = Arc::new(Self {
            shelf,
            snapshots,
            to_loop,
            room,
            limits,
            books,
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        });
        tokio::spawn(exposures.clone().resume());
        exposures
    }

    async fn resume(self: Arc<Self>) {
        let _changing = self.changing.lock().await;
        for (name, kept) in self.kept() {
            if span::is_over(kept.end) {
                self.forget(&name).await;
                continue;
            }
            let opened = Opened::new(&kept);
            self.start(self.exposure(name, kept), opened, None);
        }
        self.tell_exposed().await;
        self.withdraw_leftovers().await;
    }

    fn kept(&self) -> Vec<(Name, Kept)> {
        let all = self.shelf.all().unwrap_or_else(|error| {
            tracing::error!(%error, "what this node offered cannot be read: expose it again");
            Vec::new()
        });
        let read = |(name, value): (String, Vec<u8>)| {
            let kept = serde_json::from_slice::<Kept>(&value);
            match (Name::parse(&name), kept) {
                (Ok(name), Ok(kept)) => Some((name, kept)),
                (Err(_), _) | (_, Err(_)) => {
                    tracing::error!(service = %name, "cannot be read: expose it again");
                    None
                }
            }
        };
        all.into_iter().filter_map(read).collect()
    }

    /// What the registry still has of an earlier run that ended before it could say so.
    async fn withdraw_leftovers(&self) {
        let mut snapshots = self.snapshots.clone();
        let known = snapshots.wait_for(|snapshot| snapshot.us().is_some());
        let Ok(leftovers) = known.await.map(|snapshot| {
            let us = snapshot.us().map(|us| us.peer_id);
            let ours = snapshot.services.iter().filter(|s| Some(s.owner) == us);
            let running = self.running();
            let leftovers = ours.filter(|service| !running.contains_key(&service.name));
            leftovers
                .map(|service| service.name.clone())
                .collect::<Vec<_>>()
        }) else {
            return;
        };
        for name in leftovers {
            self.tell(Told::Withdraw { name }).await;
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        // Nobody changes more than one entry at a time.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exposure(&self, name: Name, kept: Kept) -> Exposure {
        Exposure {
            front: kept.front(&name, &self.snapshots, &self.limits, self.books.ledger()),
            name,
            kept,
            standing: Arc::default(),
            snapshots: self.snapshots.clone(),
            to_loop: self.to_loop.clone(),
            room: self.room.clone(),
        }
    }

    fn start(self: &Arc<Self>, exposure: Exposure, opened: Opened, published: Option<Published>) {
        let (name, kept, standing) = (
            exposure.name.clone(),
            exposure.kept.clone(),
            exposure.standing.clone(),
        );
        let (this, its_name) = (self.clone(), name.clone());
        let task = tokio::spawn(async move {
            exposure.run(opened, published).await;
            // It cannot wait for its own end, which is what taking it back does.
            tokio::spawn(async move { this.lapse(&its_name).await });
        });
        let running = Running {
            kept,
            standing,
            task,
        };
        self.running().insert(name, running);
    }

    /// Its lifetime is over.
    async fn lapse(self: Arc<Self>, name: &Name) {
        let _changing = self.changing.lock().await;
        let is_over = |running: &Running| span::is_over(running.kept.end);
        // It may have been exposed anew meanwhile.
        if self.running().get(name).is_some_and(is_over) {
            tracing::info!(service = %name, "its lifetime is over");
            self.close(name).await;
            self.forget(name).await;
            self.tell_exposed().await;
        }
    }

    /// Offers something, in place of what had that name.
    pub async fn expose(self: &Arc<Self>, asked: Expose) -> Result<Exposed> {
        let name = Name::parse(&asked.name)?;
        let is_unauthenticated_meant = asked.unauthenticated;
        let kept = kept(asked)?;
        ensure!(
            self.snapshots.borrow().us().is_some(),
            "this node is not a member yet: ask again in a moment"
        );
        // Without holding anything up: a server may be slow.
        let finding = kept.probe(FIRST_LOOK).await;

        let _changing = self.changing.lock().await;
        self.check_room(&name, &kept)?;
        if kept.kind == Kind::OpenAi && !is_unauthenticated_meant {
            self.check_strangers(&kept, &finding)?;
        }
        // The port may be that of what is replaced.
        let replaced = self.close(&name).await;
        let begun = self
            .begin(name.clone(), kept, &finding, is_unauthenticated_meant)
            .await;
        let notes = match begun {
            Ok(notes) => notes,
            Err(error) => {
                if let Some(kept) = replaced {
                    let opened = Opened::new(&kept);
                    self.start(self.exposure(name, kept), opened, None);
                }
                return Err(error);
            }
        };
        self.tell_exposed().await;
        let mut exposed = self
            .shown(&name)
            .with_context(|| format!("{name} has ended already"))?;
        exposed.notes = notes;
        Ok(exposed)
    }

    /// Opens, keeps and publishes it. Returns what its user should know.
    async fn begin(
        self: &Arc<Self>,
        name: Name,
        mut kept: Kept,
        finding: &Finding,
        is_unauthenticated_meant: bool,
    ) -> Result<Vec<String>> {
        let mut opened = Opened::new(&kept);
        let scope = self.exposure(name.clone(), kept.clone()).scope();
        let (refused, is_everywhere) = opened.fit(&scope);
        let is_final = |refused: &&Refused| !refused.may_pass();
        let all_refused = refused.len() >= scope.addresses().len();
        if let Some(why) = refused.iter().find(is_final) {
            bail!("{why}");
        } else if let (true, Some(why)) = (all_refused, refused.first()) {
            bail!("{why}");
        }
        kept.is_everywhere = is_everywhere;
        if is_everywhere {
            check_everywhere(&kept, finding, is_unauthenticated_meant)?;
        }
        let exposure = self.exposure(name.clone(), kept.clone());
        let published = exposure.publish(finding, None).await;
        let published =
            published.map_err(|reason| anyhow!("the registry does not take {name}: {reason}"))?;
        let value = serde_json::to_vec(&kept)?;
        self.shelf
            .put(name.as_str(), &value)
            .context("cannot write down what is exposed")?;
        self.start(exposure, opened, Some(published));
        tracing::info!(service = %name, kind = %kept.kind, target = %kept.target, port = kept.port, "exposed");
        Ok(notes(&kept, finding))
    }

    fn check_room(&self, name: &Name, kept: &Kept) -> Result<()> {
        let running = self.running();
        let others = || running.iter().filter(|(other, _)| *other != name);
        ensure!(
            others().count() < MOST,
            "a node offers no more than {MOST} services: take one back with 'hivevpn unexpose'"
        );
        let same_port = |other: &&(&Name, &Running)| other.1.kept.traffic() == kept.traffic();
        if let Some((other, _)) = others().find(|other| same_port(&other)) {
            bail!(
                "port {} on the overlay is {other}'s: choose another with --port, or take that back with 'hivevpn unexpose {other}'",
                kept.port
            );
        }
        Ok(())
    }

    /// A model server that asks nobody for a key is not for whoever knows the network's password.
    fn check_strangers(&self, kept: &Kept, finding: &Finding) -> Result<()> {
        let is_for_everyone = kept.to.is_empty() || kept.to.contains(&policy::Selector::Everyone);
        if !self.snapshots.borrow().admits_by_password || !is_for_everyone {
            return Ok(());
        }
        let what = match finding.needs_key {
            // Whose key is shown for whoever shows none.
            Some(true) if kept.api_key.is_some() => {
                "is opened to whoever asks by the key that it is exposed with"
            }
            Some(true) => return Ok(()),
            Some(false) => "asks nobody for a key",
            None => "does not say whether it asks for a key",
        };
        bail!(
            "{} {what}, and whoever knows the network's password would have it. Say which you mean:\n  \
             --to group:NAME       only members of a group (repeatable)\n  \
             --unauthenticated     every member, as it is\n  \
             or have the server ask for a key that its users show themselves",
            kept.target
        )
    }

    /// Offers it no more.
    pub async fn unexpose(&self, name: &str) -> Result<()> {
        let name = Name::parse(name)?;
        let _changing = self.changing.lock().await;
        let known: Vec<_> = self.running().keys().map(ToString::to_string).collect();
        if self.close(&name).await.is_none() {
            let known = match known.is_empty() {
                true => "it offers nothing".to_owned(),
                false => format!("it offers {}", known.join(", ")),
            };
            bail!("this node offers no service called {name}: {known}");
        }
        self.forget(&name).await;
        self.tell_exposed().await;
        tracing::info!(service = %name, "exposed no more");
        Ok(())
    }

    /// Closes its port and cuts its connections. Returns when that is done.
    async fn close(&self, name: &Name) -> Option<Kept> {
        let running = self.running().remove(name)?;
        running.task.abort();
        // How it ended is not of interest, only that it has.
        let _ = running.task.await;
        self.books.save().await;
        Some(running.kept)
    }

    /// The others learn that it is no more, and so does the next run.
    async fn forget(&self, name: &Name) {
        self.tell(Told::Withdraw { name: name.clone() }).await;
        if let Err(error) = self.shelf.remove(name.as_str()) {
            tracing::error!(service = %name, %error, "it will be exposed again at the next start");
        }
    }

    async fn tell_exposed(&self) {
        let exposed = self.running().values().map(|r| r.kept.traffic()).collect();
        self.tell(Told::Exposed(exposed)).await;
    }

    async fn tell(&self, told: Told) {
        // A loop that has ended publishes nothing any more.
        let _ = self.to_loop.send(Local::Services(told)).await;
    }

    /// What is offered, by name.
    pub fn list(&self) -> Vec<Exposed> {
        let names: Vec<_> = self.running().keys().cloned().collect();
        names.iter().filter_map(|name| self.shown(name)).collect()
    }

    fn shown(&self, name: &Name) -> Option<Exposed> {
        let running = self.running();
        let Running { kept, standing, .. } = running.get(name)?;
        let snapshot = self.snapshots.borrow();
        let address = snapshot.us().map(|us| us.address().to_string());
        Some(Exposed {
            name: name.to_string(),
            kind: kept.kind.to_string(),
            target: kept.target,
            address: address.unwrap_or_default(),
            port: kept.port,
            to: kept.to.iter().map(ToString::to_string).collect(),
            health: standing.state().unwrap_or(State::Down).name().to_owned(),
            left_s: span::left(kept.end),
            connections: standing.carried(),
            problem: standing.problem(),
            protocol: transport_name(kept.kind.transport()).to_owned(),
            notes: Vec::new(),
        })
    }

    /// Closes everything, for the next run to offer again.
    pub async fn end(&self) {
        let running = std::mem::take(&mut *self.running());
        running.values().for_each(|running| running.task.abort());
        for running in running.into_values() {
            let _ = running.task.await;
        }
    }
}

/// What is asked for, if it makes sense.
fn kept(asked: Expose) -> Result<Kept> {
    let target = match asked.target.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, asked.target.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, asked.target.port()).into(),
        IpAddr::V4(_) | IpAddr::V6(_) => asked.target,
    };
    let port = asked.port.unwrap_or(target.port());
    ensure!(
        target.port() != 0 && port != 0,
        "port 0 is none that anybody can listen on"
    );
    let to = asked.to.iter().map(|who| who.parse());
    Ok(Kept {
        target,
        kind: asked.kind.parse()?,
        port,
        to: to.collect::<Result<_, _>>()?,
        end: asked.lifetime_s.map(span::end),
        description: asked.description,
        tags: asked.tags.into_iter().collect(),
        api_key: asked.api_key,
        is_everywhere: false,
    })
}

/// What listens on all addresses is reached without us, so that we can restrict nothing.
fn check_everywhere(kept: &Kept, finding: &Finding, is_unauthenticated_meant: bool) -> Result<()> {
    let (target, port) = (kept.target, kept.port);
    let everyone = [policy::Selector::Everyone].into();
    ensure!(
        kept.to.is_empty() || kept.to == everyone,
        "what listens on port {port} listens on all addresses of this machine, so members reach it without this node's \
         help and --to would keep nobody out. Have it listen on 127.0.0.1 only, expose it at another port (--port), or \
         restrict it with 'hivevpn policy'"
    );
    ensure!(
        kept.kind != Kind::OpenAi || is_unauthenticated_meant || finding.needs_key == Some(true),
        "the model server on port {port} listens on all addresses of this machine and asks nobody for a key: whoever \
         reaches this machine has it, members or not. Have it listen on {target} only, have it ask for a key, or say \
         --unauthenticated"
    );
    Ok(())
}

/// What its user should know.
fn notes(kept: &Kept, finding: &Finding) -> Vec<String> {
    let mut notes = Vec::new();
    if kept.is_everywhere {
        notes.push(format!(
            "it listens on all addresses of this machine already: members reach it as it is, and so does whoever reaches this \
             machine otherwise; nothing listens on port {} in its place",
            kept.port
        ));
    }
    let is_open = finding.needs_key == Some(false) || kept.api_key.is_some();
    if kept.to.is_empty() && is_open && !kept.is_everywhere {
        notes.push(
            "no member needs a key for it: every member of the network can use it (--to restricts that)".to_owned(),
        );
    }
    notes.extend(finding.problem.clone());
    notes
}
