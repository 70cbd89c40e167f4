//! What must hold of the registry, in worlds that carry it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    chronicle::{Place, Written},
    clock::seconds,
    swarm::questions::Asked,
    underlay::HostId,
    world::World,
};

/// From the moment at which members can reach each other again until all show the same: one round of anti-entropy, which is
/// five minutes, and some. Mostly it is seconds.
pub const SAME_ENTRIES: Duration = seconds(330);
/// Questions that one write may cost for each host: the owner tells everybody, and each tells a few others, who may ask for
/// what they lack.
const QUESTIONS_OF_WRITE: u64 = 12;
/// Questions that one new connection may cost at each end: how much is the same, what differs, and what is lacking of it.
const QUESTIONS_OF_GREETING: u64 = 6;
/// The same of one round of anti-entropy, or of one question that was lost.
const QUESTIONS_OF_ROUND: u64 = 4;
/// One in this time.
const ROUND: Duration = seconds(300);

// ---- whenever a host may show something else ---------------------------------------------------------------

pub(crate) fn on_every_change(world: &mut World, here: HostId) {
    let shows = world.shown_by(here);
    nothing_forged(world, here, &shows);
    nothing_comes_back(world, here, &shows);
    bounded_memory(world, here);
}

/// Nobody shows what its owner did not write.
fn nothing_forged(world: &mut World, here: HostId, shows: &BTreeMap<Place, Written>) {
    for (owner, key) in world.chronicle().forged(shows) {
        let what = format!("{here} shows what {owner} never wrote under {key}");
        world.report("nothing forged", what);
    }
}

/// Nobody shows an older version after a newer one, or one again that was gone.
fn nothing_comes_back(world: &mut World, here: HostId, shows: &BTreeMap<Place, Written>) {
    let chronicle = &mut world.registry_mut().chronicle;
    for (owner, key) in chronicle.gone_back(here, shows) {
        let what = format!("{here} shows again what {owner} had under {key}");
        world.report("nothing comes back", what);
    }
}

/// One entry or mark is kept for each place that was ever written to, and no more.
fn bounded_memory(world: &mut World, here: HostId) {
    let kept = world.running(here).map_or(0, |host| host.entries_kept());
    let places = world.chronicle().places();
    if kept > places {
        let what = format!("{here} keeps {kept} entries of {places} places");
        world.report("bounded memory", what);
    }
}

// ---- at quiet points ---------------------------------------------------------------------------------------

/// The same entries: within `limit` all members that are awake show the newest version of everything, nothing that was
/// deleted, nothing that is over by their clocks, and nothing of whoever was expelled. Returns how long it took.
pub fn same_entries(world: &mut World, limit: Duration) -> Option<Duration> {
    let everybody: Vec<_> = (0..world.host_count()).collect();
    same_entries_among(world, &everybody, limit)
}

/// The same for members that reach each other, but not all others. What those have written lately they cannot know; but
/// whatever they know of it, all of them do.
pub fn same_entries_among(
    world: &mut World,
    group: &[HostId],
    limit: Duration,
) -> Option<Duration> {
    let took = world.run_until(limit, seconds(1), |world| differing(world, group).is_none());
    if took.is_none()
        && let Some(what) = differing(world, group)
    {
        world.report("same entries", format!("after {limit:?} {what}"));
    }
    took
}

/// What is not as it should be, if anything.
fn differing(world: &World, group: &[HostId]) -> Option<String> {
    let is_member = |host: &&HostId| {
        let is_up = world.running(**host).is_some() && world.underlay.is_awake(**host);
        is_up && !world.chronicle().is_expelled(**host)
    };
    let members: Vec<_> = group.iter().filter(is_member).copied().collect();
    let mut elsewhere: Option<BTreeMap<Place, Written>> = None;
    for here in &members {
        let (own, others): (BTreeMap<_, _>, BTreeMap<_, _>) = world
            .shown_by(*here)
            .into_iter()
            .partition(|((owner, _), _)| members.contains(owner));
        let mut wanted = world.chronicle().live(world.hosts_clock(*here));
        wanted.retain(|(owner, _), _| members.contains(owner));
        if own != wanted {
            return Some(told(*here, &own, &wanted));
        }
        let first = elsewhere.get_or_insert_with(|| others.clone());
        if others != *first {
            return Some(told(*here, &others, first));
        }
    }
    None
}

fn told(
    here: HostId,
    shows: &BTreeMap<Place, Written>,
    wanted: &BTreeMap<Place, Written>,
) -> String {
    let lacks = wanted
        .iter()
        .find(|(place, entry)| shows.get(*place) != Some(*entry));
    let number = |entry: Option<&Written>| entry.map_or(0, |entry| entry.seq);
    match lacks {
        Some((place, entry)) => {
            let (owner, key) = place;
            let has = number(shows.get(place));
            format!(
                "{here} shows {has} of {owner} under {key}, not {}",
                entry.seq
            )
        }
        None => {
            let more = shows.keys().find(|place| !wanted.contains_key(*place));
            format!("{here} shows {more:?}, which is not there any more")
        }
    }
}

/// Quiet: in `span` nobody writes anything but what is renewed, and nobody asks for more than that, one comparison in each
/// round, and what new connections and lost questions cost.
pub fn quiet(world: &mut World, span: Duration) {
    let asked = |world: &World| -> Vec<Asked> {
        let hosts = 0..world.host_count();
        hosts.map(|host| world.swarm().asked_by(host)).collect()
    };
    let (before, writes) = (asked(world), world.chronicle().writes());
    world.run_for(span);
    let renewed = (world.chronicle().writes() - writes) as u64;
    let rounds = span.as_secs().div_ceil(ROUND.as_secs()) + 1;
    for (host, (before, after)) in before.into_iter().zip(asked(world)).enumerate() {
        let questions = after.questions - before.questions;
        let explained = rounds
            + QUESTIONS_OF_WRITE * renewed
            + QUESTIONS_OF_GREETING * (after.greetings - before.greetings)
            + QUESTIONS_OF_ROUND * (after.lost - before.lost);
        if questions > explained {
            let what =
                format!("{host} asks {questions} questions in {span:?}, {explained} are explained");
            world.report("quiet registry", what);
        }
    }
}

/// Bounded: all questions so far are explained by what was written, by new connections, by lost questions and by time.
pub fn bounded(world: &mut World) {
    let count = world.host_count() as u64;
    let mut all = Asked::default();
    for host in 0..world.host_count() {
        let asked = world.swarm().asked_by(host);
        all.questions += asked.questions;
        all.greetings += asked.greetings;
        all.lost += asked.lost;
    }
    let rounds = count * (world.now().as_secs() / ROUND.as_secs() + 1);
    let writes = world.chronicle().writes() as u64;
    let explained = QUESTIONS_OF_WRITE * writes * count
        + QUESTIONS_OF_GREETING * all.greetings
        + QUESTIONS_OF_ROUND * (rounds + all.lost);
    if all.questions > explained {
        let what = format!("{} questions, {explained} are explained", all.questions);
        world.report("bounded messages", what);
    }
}
