//! What must hold, one function each. Some hold at every moment and are checked after every step; the others are
//! demanded by whoever knows that the world is quiet, or has just harmed it.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    clock::{Moment, millis, seconds},
    host::PeerPath,
    theory::{self, Best},
    underlay::{HostId, Tally},
    world::World,
};

pub mod registry;

/// From the start of both ends until a packet has gone there and back.
pub const FIRST_PACKET: Duration = seconds(15);
/// From the start of both ends until the best path is in use.
pub const BEST_PATH: Duration = seconds(30);
/// The same from the end of a misfortune that nobody was told of: attempts have become rare, one in a minute.
pub const BEST_PATH_AGAIN: Duration = seconds(75);
/// From a misfortune until packets flow again, where theory knows a direct way.
pub const RECOVERY: Duration = seconds(5);
/// The same where TCP is the only way: first the old connection is given up after five seconds, then there is a new one.
pub const STREAM_RECOVERY: Duration = seconds(8);
/// The same where a relay is the only way: both ends may first have to find back to it.
pub const RELAY_RECOVERY: Duration = seconds(12);
/// The same over lines that lose datagrams: a lost handshake is repeated after five seconds.
pub const ROUGH_RECOVERY: Duration = seconds(15);
/// Changes of path that a pair may still make in four minutes when nothing happens.
pub const LATE_CHANGES: usize = 1;
/// The same over lines that lose or reorder datagrams: one in half a minute.
pub const ROUGH_CHANGES: usize = 8;
/// Datagrams of the core in a second, both ways together, that an idle pair may cost.
pub const IDLE_DATAGRAMS: f64 = 1.0;
/// The same with those of the swarm: anything above is a storm.
pub const IDLE_ALL: f64 = 3.5;
/// Datagrams in a second, for each ordered pair of hosts, that make a storm. A burst of attempts at many candidates takes
/// a few dozen, and the applications here send ten.
const STORM: u64 = 100;
/// Timers that may fire on one host in a second.
const WAKEUPS: u32 = 200;
/// Messages that may wait on one connection.
const QUEUE: usize = 512;
/// Packets to one peer that wait for a session at the most.
const WAITING: u64 = 16;
/// How often packets are tried where one is to get through.
const TRY_PERIOD: Duration = millis(250);
const SHORT: usize = 100;

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub invariant: &'static str,
    /// When.
    pub at: Moment,
    /// How.
    pub what: String,
    /// What the world was told last before.
    pub after: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.as_secs_f64();
        let Self {
            invariant,
            what,
            after,
            ..
        } = self;
        write!(f, "{invariant} at {at:.3} s: {what} (after {after})")
    }
}

// ---- at every moment ---------------------------------------------------------------------------------------

pub(crate) fn after_every_step(world: &mut World) {
    no_error_event(world);
    conservation_of_datagrams(world);
    bounded_wakeups(world);
    no_storm(world);
}

/// The core logs no error: nothing that happens here is one.
fn no_error_event(world: &mut World) {
    for line in world.complaints() {
        world.report("no error event", line);
    }
}

/// Every datagram that was sent is delivered, under way, or counted as lost.
fn conservation_of_datagrams(world: &mut World) {
    let tally = world.underlay.tally();
    let accounted = tally.delivered + tally.in_flight + tally.lost.values().sum::<u64>();
    if tally.sent != accounted {
        let what = format!("{} sent, {accounted} accounted for", tally.sent);
        world.report("conservation", what);
    }
}

/// No timer spins.
fn bounded_wakeups(world: &mut World) {
    for host in 0..world.host_count() {
        if world.wakeups_now(host) == WAKEUPS + 1 {
            let what = format!("{host} was woken more than {WAKEUPS} times in a second");
            world.report("bounded", what);
        }
    }
}

/// No storm: hosts have better things to do than to answer each other's probes.
fn no_storm(world: &mut World) {
    let (now, sent) = (world.now().as_secs(), world.underlay.tally().sent);
    let (second, before) = world.second;
    if now != second {
        world.second = (now, sent);
        return;
    }
    let count = world.host_count() as u64;
    if sent - before > STORM * count * count {
        let what = format!("{} datagrams in a second", sent - before);
        world.report("no storm", what);
        world.stop();
    }
}

// ---- at quiet points ---------------------------------------------------------------------------------------

/// Pairs between which theory knows a way, each once.
pub fn connectable(world: &World) -> Vec<(HostId, HostId)> {
    let count = world.host_count();
    let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
    let is_up = |host| world.running(host).is_some() && !world.has_stopped();
    pairs
        .filter(|(a, b)| is_up(*a) && is_up(*b))
        .filter(|(a, b)| theory::best(&world.underlay, *a, *b).is_some())
        .collect()
}

/// Delivery: between every two hosts that theory can connect, a packet goes there and back within `limit`. Returns how
/// long each pair took.
pub fn delivery(world: &mut World, limit: Duration) -> BTreeMap<(HostId, HostId), Duration> {
    let begin = world.now();
    let mut missing = connectable(world);
    let mut took = BTreeMap::new();
    let mut asked: BTreeMap<(HostId, HostId), Vec<u64>> = BTreeMap::new();
    while !missing.is_empty() && world.now() - begin < limit {
        for (a, b) in &missing {
            let number = world.ask(*a, *b, SHORT);
            asked.entry((*a, *b)).or_default().push(number);
        }
        world.run_for(TRY_PERIOD);
        missing.retain(|pair| {
            let numbers = asked.get(pair).into_iter().flatten();
            let answered = numbers
                .filter_map(|number| world.echo.get(*number).answered)
                .min();
            if let Some(at) = answered {
                took.insert(*pair, at - begin);
            }
            answered.is_none()
        });
    }
    for (a, b) in missing {
        let paths = [world.kind_of_path(a, b), world.kind_of_path(b, a)];
        let what = format!("{a} and {b} exchange no packet in {limit:?}; paths {paths:?}");
        world.report("delivery", what);
    }
    took
}

/// Direct when possible: within `limit` every pair has the best path that theory knows, at both ends. Where TCP is the
/// best, a relay will do: a direct connection is then dialled once in five minutes.
pub fn best_paths(world: &mut World, limit: Duration) {
    let pairs = connectable(world);
    let is_best = |world: &World, a, b| {
        let best = match theory::best(&world.underlay, a, b) {
            Some(Best::Stream) => Some(Best::Relay),
            best => best,
        };
        let paths = [world.kind_of_path(a, b), world.kind_of_path(b, a)];
        let kinds = paths.map(theory::Best::named);
        kinds.iter().all(|kind| kind.is_some() && *kind <= best)
    };
    let begin = world.now();
    while world.now() - begin < limit {
        let worse: Vec<_> = pairs
            .iter()
            .filter(|(a, b)| !is_best(world, *a, *b))
            .collect();
        if worse.is_empty() {
            break;
        }
        // Nothing better is sought for a pair that has nothing to say.
        for (a, b) in worse {
            world.ask(*a, *b, SHORT);
        }
        world.run_for(seconds(1));
    }
    for (a, b) in pairs {
        if !is_best(world, a, b) {
            let best = theory::best(&world.underlay, a, b).map(theory::Best::name);
            let gateways = [a, b].map(|h| world.underlay.kind_of(world.underlay.site_of(h)));
            let paths = [world.kind_of_path(a, b), world.kind_of_path(b, a)];
            let what = format!("{a} and {b} could be {best:?} but are {paths:?}: {gateways:?}");
            world.report("direct when possible", what);
        }
    }
}

/// Recovery: from now on the pair exchanges packets all the time, and the first of them gets through within the limit.
/// Returns how long it took.
pub fn recovery(world: &mut World, pairs: &[(HostId, HostId)]) {
    let begin = world.now();
    let mut numbers: BTreeMap<(HostId, HostId), Vec<u64>> = BTreeMap::new();
    while world.now() - begin < ROUGH_RECOVERY {
        for (a, b) in pairs {
            let number = world.ask(*a, *b, SHORT);
            numbers.entry((*a, *b)).or_default().push(number);
        }
        world.run_for(millis(100));
    }
    for ((a, b), numbers) in numbers {
        if theory::best(&world.underlay, a, b).is_none() {
            continue;
        }
        let limit = recovery_limit(world, a, b);
        let answered = numbers
            .iter()
            .filter_map(|number| world.echo.get(*number).answered);
        let took = answered.min().map(|at| at - begin);
        if took.is_none_or(|took| took > limit) {
            let what = match took {
                Some(took) => format!("{a} and {b} were silent for {took:?}"),
                None => format!("{a} and {b} were silent for more than {ROUGH_RECOVERY:?}"),
            };
            world.report("recovery", what);
        }
    }
}

/// How long a pair may be silent after a misfortune.
fn recovery_limit(world: &World, a: HostId, b: HostId) -> Duration {
    if is_rough(world, a, b) {
        return ROUGH_RECOVERY;
    }
    match theory::best(&world.underlay, a, b) {
        Some(Best::Direct) => RECOVERY,
        Some(Best::Stream) => STREAM_RECOVERY,
        Some(Best::Relay) | None => RELAY_RECOVERY,
    }
}

/// Whether a line between the two, or to a relay that may be between them, loses or reorders datagrams.
fn is_rough(world: &World, a: HostId, b: HostId) -> bool {
    let underlay = &world.underlay;
    let has_helped = |relay: HostId| underlay.is_public(relay) && underlay.is_rough(a, relay);
    underlay.is_rough(a, b) || underlay.all_hosts().any(has_helped)
}

/// Quiet when idle, and no flapping: for `span` nobody has anything to say, and nothing happens.
pub fn calm(world: &mut World, span: Duration) {
    let begin = world.now();
    let before = world.underlay.tally().clone();
    let mut paths: BTreeMap<HostId, BTreeMap<HostId, PeerPath>> = BTreeMap::new();
    let mut changes: BTreeMap<(HostId, HostId), usize> = BTreeMap::new();
    while world.now() - begin < span {
        world.run_for(millis(500));
        for host in 0..world.host_count() {
            let now = world.paths_of(host);
            let Some(then) = paths.insert(host, now.clone()) else {
                continue;
            };
            for (peer, path) in now {
                if then
                    .get(&peer)
                    .is_none_or(|before| before.differs_from(&path))
                {
                    *changes.entry((host, peer)).or_default() += 1;
                }
            }
        }
    }
    no_flapping(world, &changes);
    quiet_when_idle(world, &before, span);
}

/// No flapping: a pair to which nothing happens keeps its path.
fn no_flapping(world: &mut World, changes: &BTreeMap<(HostId, HostId), usize>) {
    for ((host, peer), count) in changes {
        let limit = if is_rough(world, *host, *peer) {
            ROUGH_CHANGES
        } else {
            LATE_CHANGES
        };
        if *count > limit {
            let what = format!("{host} changed its path to {peer} {count} times");
            world.report("no flapping", what);
        }
    }
}

/// Quiet when idle: heartbeats and QUIC's keep-alives are all that is sent.
fn quiet_when_idle(world: &mut World, before: &Tally, span: Duration) {
    let count = world.host_count();
    let pairs = (count * (count - 1) / 2).max(1) as f64;
    let rate = |sent: u64| sent as f64 / span.as_secs_f64() / pairs;
    let now = world.underlay.tally();
    let core = rate(now.sent_wireguard - before.sent_wireguard);
    let all = rate(now.sent - before.sent);
    if core > IDLE_DATAGRAMS || all > IDLE_ALL {
        let what = format!("{core:.2} datagrams a second and pair, {all:.2} with the swarm's");
        world.report("quiet when idle", what);
    }
}

/// Bounded: nothing piles up.
pub fn bounded(world: &mut World) {
    let longest = world.swarm().longest_queue();
    if longest > QUEUE {
        let what = format!("{longest} messages wait on one connection");
        world.report("bounded", what);
    }
}

/// Conservation: a packet that was given to a node and not delivered is explained by a datagram that was lost, by a
/// carrier that was full, by a drop that the core counted, or still waits for a session.
pub fn conservation_of_packets(world: &mut World) {
    let missing = world.echo.offered.saturating_sub(world.echo.delivered);
    let count = world.host_count() as u64;
    let drops: u64 = (0..world.host_count())
        .filter_map(|host| Some(world.running(host)?.drops()))
        .sum();
    let tally = world.underlay.tally();
    let explained = tally.lost_wireguard
        + tally.in_flight
        + world.swarm().frames_lost()
        + drops
        + WAITING * count * count;
    if missing > explained {
        let what = format!("{missing} packets vanished, {explained} are explained");
        world.report("conservation", what);
    }
}
