//! Names for what is on the overlay: `gpu.home.hive.internal`, `llm.gpu.home.hive.internal`, `llm.svc.home.hive.internal`.
//!
//! Every node has a resolver of its own, on its own overlay addresses, which answers this machine and nobody else from what
//! the node knows anyway: no name is ever asked over the network. It knows the names of its network and nothing more, so
//! nothing can leak from it. How programs come to ask it:
//!
//! - where systemd-resolved runs, now or later, that asks us for names of this network and its addresses ([`resolved`]);
//! - if the user wants it, we stand in front of the servers in `/etc/resolv.conf` and pass on what is not ours
//!   ([`resolv_conf`], [`forward`]);
//! - else by asking for it: `dig @<our overlay address> gpu.home.hive.internal`.
//!
//! What there is to say is in [`zone`], the sockets are in [`server`]. A daemon in several networks has a resolver for
//! each, and none knows the names of another.

use std::{
    io::{self, ErrorKind},
    net::IpAddr,
    time::Duration,
};

use anyhow::{Context, Result};
use hivevpn_platform::process;
use tokio::{
    sync::{oneshot, watch},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use crate::{control::names::Names, services::Snapshot};

pub mod forward;
pub mod listing;
pub mod resolv_conf;
pub mod resolved;
pub mod server;
pub mod zone;

use forward::Upstream;
use resolv_conf::{ResolvConf, Standing};
use server::{Server, Sockets};
use zone::Zone;
pub use zone::endpoint_of;

/// An address that was given to the interface just now may not be there yet.
const RETRY: Duration = Duration::from_millis(200);
/// But it is after so many times.
const RETRIES: u32 = 10;
/// How often to look whether systemd-resolved was started.
const LOOK: Duration = Duration::from_secs(5);
/// When to tell it again what it has not taken: it may not know the interface yet. Then after twice as long, and so on.
const AGAIN: Duration = Duration::from_secs(1);
/// But not more seldom: somebody may have given us the right to tell it.
const LATEST_AGAIN: Duration = Duration::from_secs(60);
/// For undoing everything.
const END_LIMIT: Duration = Duration::from_secs(2);

/// What the user has configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether to answer at all, which takes port 53 of our overlay addresses.
    pub resolver: bool,
    /// Whether names without a dot are looked for in the network.
    pub search: bool,
    /// Whether we may stand in front of what `/etc/resolv.conf` names, where systemd-resolved does not run.
    pub resolv_conf: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            resolver: true,
            search: false,
            resolv_conf: false,
        }
    }
}

/// What it takes to start.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// What the user has configured.
    pub config: Config,
    /// The file, opened by whoever may, if we are to write to it.
    pub resolv_conf: Option<ResolvConf>,
}

/// Running names.
pub struct Handle {
    view: View,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What commands see of it.
#[derive(Clone)]
pub struct View {
    snapshots: watch::Receiver<Snapshot>,
    reached: watch::Receiver<Reached>,
    search: bool,
}

/// How programs get to our resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Reached {
    servers: Vec<IpAddr>,
    through: Through,
    trouble: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Through {
    #[default]
    Nothing,
    Resolved,
    ResolvConf,
}

impl Through {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Resolved => "systemd-resolved",
            Self::ResolvConf => "resolv.conf",
        }
    }
}

/// Starts on the current runtime.
pub fn start(snapshots: watch::Receiver<Snapshot>, start: Start) -> Handle {
    let (end, ended) = oneshot::channel();
    let off = "names are switched off ([names] resolver, or --names off)";
    let (reaching, reached) = watch::channel(Reached {
        trouble: (!start.config.resolver).then(|| off.to_owned()),
        ..Reached::default()
    });
    let search = start.config.search;
    let resolver = Resolver {
        snapshots: snapshots.clone(),
        start,
        reaching,
    };
    Handle {
        view: View {
            snapshots,
            reached,
            search,
        },
        end,
        task: tokio::spawn(resolver.run(ended)),
    }
}

impl View {
    /// What resolves, and how.
    pub fn list(&self) -> Names {
        let snapshot = self.snapshots.borrow().clone();
        let reached = self.reached.borrow().clone();
        Names {
            domain: Zone::of(&snapshot).map_or_else(String::new, |zone| zone.apex()),
            servers: reached.servers,
            through: reached.through.name().to_owned(),
            search: self.search && reached.through != Through::Nothing,
            trouble: reached.trouble,
            names: listing::list(&snapshot),
        }
    }
}

impl Handle {
    /// Whether programs of this machine come to ask our resolver by themselves, as that changes.
    pub fn is_asked(&self) -> watch::Receiver<bool> {
        let mut reached = self.view.reached.clone();
        let (telling, is_asked) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                telling.send_replace(reached.borrow_and_update().through != Through::Nothing);
                if reached.changed().await.is_err() || telling.is_closed() {
                    return;
                }
            }
        });
        is_asked
    }

    /// What commands see of it.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Ends everything and puts back what was there before.
    pub async fn end(self) {
        // It may have ended by itself: the snapshots do.
        let _ = self.end.send(());
        let abort = self.task.abort_handle();
        match timeout(END_LIMIT, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the resolver has failed"),
            Err(_) => {
                abort.abort();
                tracing::warn!("the resolver does not end in time");
            }
        }
    }
}

/// What a resolver is built on. When it changes, another one is built.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    domain: String,
    interface: String,
    addresses: Vec<IpAddr>,
    reverse: Vec<String>,
}

impl Place {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        let us = snapshot.us()?;
        Some(Self {
            domain: Zone::of(snapshot)?.apex(),
            interface: snapshot.interface.clone(),
            addresses: us.addresses().collect(),
            reverse: zone::reverse_domains(&snapshot.ranges),
        })
    }
}

/// The resolver of one network, wherever it stands.
struct Resolver {
    snapshots: watch::Receiver<Snapshot>,
    start: Start,
    reaching: watch::Sender<Reached>,
}

/// A resolver that stands.
struct Stand {
    /// Ends with it.
    _serving: JoinSet<()>,
    servers: Vec<IpAddr>,
    /// Why it does not answer on all of our addresses.
    unbound: Option<String>,
    way: Way,
    watch: Watch,
}

/// What systemd-resolved was told, and when to look after it.
struct Watch {
    /// Its run at that time.
    run: Option<resolved::Run>,
    /// How long to wait before it is told again what it has not taken.
    again: Option<Duration>,
    at: Instant,
}

/// What there is to undo.
enum Way {
    Nothing,
    Resolved(resolved::Link),
    ResolvConf(ResolvConf, IpAddr),
}

impl Resolver {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        let mut place = None;
        let mut stand: Option<Stand> = None;
        loop {
            let next = Place::of(&self.snapshots.borrow_and_update())
                .filter(|_| self.start.config.resolver);
            if next != place {
                if let Some(stand) = stand.take() {
                    stand.undo().await;
                    self.reaching.send_replace(Reached::default());
                }
                place = next;
                if let Some(place) = &place {
                    stand = tokio::select! {
                        stand = self.stand_up(place) => stand,
                        _ = &mut ended => break,
                    };
                }
            }
            let look = stand.as_ref().and_then(Stand::looks_at);
            tokio::select! {
                changed = self.snapshots.changed() => if changed.is_err() { break },
                _ = &mut ended => break,
                () = until(look) => if let (Some(stand), Some(place)) = (&mut stand, &place) {
                    tokio::select! {
                        () = self.look_after_resolved(place, stand) => {}
                        _ = &mut ended => break,
                    }
                },
            }
        }
        if let Some(stand) = stand {
            stand.undo().await;
        }
    }

    async fn stand_up(&self, place: &Place) -> Option<Stand> {
        let mut bound = Vec::new();
        let mut trouble = None;
        for address in &place.addresses {
            match bind(*address).await {
                Ok(sockets) => bound.push((*address, sockets)),
                Err(error) => trouble = Some(why_unbound(*address, &error)),
            }
        }
        let servers: Vec<_> = bound.iter().map(|(address, _)| *address).collect();
        if servers.is_empty() {
            let trouble = trouble.unwrap_or_default();
            tracing::warn!("names of {} do not resolve: {trouble}", place.domain);
            self.reaching.send_replace(Reached {
                trouble: Some(trouble),
                ..Reached::default()
            });
            return None;
        }
        let (forwarding, upstream) = watch::channel(None);
        let server = Server::new(self.snapshots.clone(), upstream);
        let mut serving = JoinSet::new();
        for (_, sockets) in bound {
            serving.spawn(server.clone().serve(sockets));
        }
        let mut stand = Stand {
            _serving: serving,
            servers,
            unbound: trouble,
            way: Way::Nothing,
            watch: Watch::over(resolved::running(), None),
        };
        let why = self.lead_here(place, &mut stand, &forwarding).await.err();
        self.say(place, &stand, why);
        Some(stand)
    }

    /// Has programs ask us, one way or the other.
    async fn lead_here(
        &self,
        place: &Place,
        stand: &mut Stand,
        forwarding: &watch::Sender<Option<Upstream>>,
    ) -> Result<()> {
        let told = self.tell_resolved(place, stand).await;
        if !self.start.config.resolv_conf || told.as_ref().is_ok_and(|()| stand.is_told()) {
            return told;
        }
        if let Err(error) = told {
            tracing::debug!("{error:#}");
        }
        stand.way = self.stand_in_front(place, &stand.servers, forwarding)?;
        Ok(())
    }

    /// Has systemd-resolved ask us, if it runs, and for our network.
    async fn tell_resolved(&self, place: &Place, stand: &mut Stand) -> Result<()> {
        let run = resolved::running();
        let again = stand
            .watch
            .again
            .map_or(AGAIN, |again| LATEST_AGAIN.min(2 * again));
        stand.watch = Watch::over(run, None);
        if run.is_none() || !resolved::is_ours(&stand.servers) {
            stand.way = Way::Nothing;
            return Ok(());
        }
        let settings = resolved::Settings {
            interface: &place.interface,
            servers: &stand.servers,
            domain: &place.domain,
            reverse: &place.reverse,
            search: self.start.config.search,
        };
        match resolved::Link::take(&settings).await {
            Ok(link) => {
                stand.way = Way::Resolved(link);
                Ok(())
            }
            Err(error) => {
                stand.way = Way::Nothing;
                stand.watch = Watch::over(run, Some(again));
                Err(error.context(
                    "systemd-resolved does not take our names: only root may tell it, or whom a rule of polkit lets \
                     (config/hivevpn.rules)",
                ))
            }
        }
    }

    /// Tells systemd-resolved what it does not know, because it was started since or has not taken it.
    async fn look_after_resolved(&self, place: &Place, stand: &mut Stand) {
        if stand.watch.again.is_none() && stand.watch.run == resolved::running() {
            stand.watch.at = Instant::now() + LOOK;
            return;
        }
        let why = self.tell_resolved(place, stand).await.err();
        self.say(place, stand, why);
    }

    /// Lets others know how programs get here, and why they do not.
    fn say(&self, place: &Place, stand: &Stand, why: Option<anyhow::Error>) {
        let why = why.map(|error| format!("{error:#}"));
        let through = stand.way.through();
        let reached = Reached {
            servers: stand.servers.clone(),
            through,
            trouble: why.clone().or_else(|| stand.unbound.clone()),
        };
        let is_news = *self.reaching.borrow() != reached;
        if !is_news {
            return;
        }
        if let Some(why) = why {
            tracing::warn!("programs do not find the names of {}: {why}", place.domain);
        }
        tracing::info!(domain = %place.domain, servers = ?stand.servers, through = through.name(), "names");
        self.reaching.send_replace(reached);
    }

    /// Puts us in front of the servers in `/etc/resolv.conf`.
    fn stand_in_front(
        &self,
        place: &Place,
        servers: &[IpAddr],
        forwarding: &watch::Sender<Option<Upstream>>,
    ) -> Result<Way> {
        let file = self.start.resolv_conf.clone();
        let file = file.map_or_else(|| ResolvConf::open(resolv_conf::PATH.as_ref()), Ok)?;
        let server = *servers.first().context("somebody answers")?;
        let pid = std::process::id();
        let started = process::started(pid).context("this process cannot be told from others")?;
        let standing = Standing {
            domain: place.domain.clone(),
            server,
            search: self.start.config.search,
            process: (pid, started),
        };
        let behind = file.stand_in_front(standing)?;
        let others = behind.into_iter().filter(|other| other.ip() != server);
        forwarding.send_replace(Some(Upstream::new(others).behind(file.clone(), server)));
        Ok(Way::ResolvConf(file, server))
    }
}

impl Way {
    fn through(&self) -> Through {
        match self {
            Self::Nothing => Through::Nothing,
            Self::Resolved(_) => Through::Resolved,
            Self::ResolvConf(..) => Through::ResolvConf,
        }
    }
}

impl Watch {
    fn over(run: Option<resolved::Run>, again: Option<Duration>) -> Self {
        Self {
            run,
            again,
            at: Instant::now() + again.unwrap_or(LOOK),
        }
    }
}

impl Stand {
    /// Whether systemd-resolved asks us.
    fn is_told(&self) -> bool {
        self.way.through() == Through::Resolved
    }

    /// When to look after systemd-resolved, unless we do without.
    fn looks_at(&self) -> Option<Instant> {
        (self.way.through() != Through::ResolvConf).then_some(self.watch.at)
    }

    /// Programs ask others first, then nobody is there to be asked.
    async fn undo(self) {
        match self.way {
            Way::Nothing => {}
            Way::Resolved(link) => link.give_back().await,
            Way::ResolvConf(file, server) => {
                if let Err(error) = file.step_back(server) {
                    tracing::warn!("{error:#}");
                }
            }
        }
    }
}

/// Takes back from `/etc/resolv.conf` what a daemon that was killed has left there; says what it did.
pub fn repair() -> Result<Option<&'static str>> {
    use resolv_conf::Repair;
    Ok(match resolv_conf::repair(resolv_conf::PATH.as_ref())? {
        Repair::Nothing => None,
        Repair::Repaired => {
            Some("/etc/resolv.conf is again what it was before a daemon changed it that was killed")
        }
        Repair::LeftAlone => Some(
            "somebody else has changed /etc/resolv.conf since a daemon stood in front there: it is left alone. What was \
             there before is in it as comments",
        ),
    })
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn bind(address: IpAddr) -> io::Result<Sockets> {
    let mut tries = 0;
    loop {
        match Sockets::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && tries < RETRIES => {
                tries += 1;
                tokio::time::sleep(RETRY).await;
            }
            result => return result,
        }
    }
}

fn why_unbound(address: IpAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::AddrInUse => {
            ": another program has it, probably on all addresses ('ss -lnptu sport = 53' shows which); have it listen on \
             its own"
        }
        ErrorKind::PermissionDenied => {
            ": a daemon that root does not start needs CAP_NET_BIND_SERVICE for it"
        }
        _ => "",
    };
    format!("cannot answer on port 53 of {address} ({error}){advice}")
}
