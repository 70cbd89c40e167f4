//! Random writers in random misfortune, drawn from a seed.
//!
//! A network as [`super::run`] draws it, whose hosts have clocks that differ by minutes; one of them may keep nothing for
//! others. They write, delete, offer and withdraw while misfortunes happen, restarts among them. When one has passed, all
//! must come to show the same. At the end somebody may be expelled, and then nothing happens, and nothing must.

use std::time::Duration;

use super::{Misfortune, Outcome, build, draw_misfortune, shape};
use crate::{
    clock::{Moment, millis, seconds},
    invariants::{
        self,
        registry::{SAME_ENTRIES, bounded, quiet, same_entries},
    },
    underlay::{Cut, HostId},
    world::World,
};

/// Clocks are this far from the right time at the most: any two differ by less than the core bears, which is ten minutes.
const CLOCKS: i64 = 240;
/// Few keys, so that they meet.
const KEYS: [&str; 4] = ["a", "a/b", "list", "weather/berlin"];
/// Clocks tick once in a second.
const AT_ONCE: Duration = seconds(2);
const LIFETIMES: [Duration; 3] = [seconds(60), seconds(600), seconds(40 * 3600)];

/// What happens while there is writing.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    /// What happens to every network.
    Common(Misfortune),
    /// A host stops without a word, and starts again after so long.
    Restart(HostId, Moment),
    /// The same, and what its disk had of the registry is lost.
    Loss(HostId, Moment),
    /// Nothing passes between a site and the others for so long.
    Apart(usize, Moment),
}

/// Lives through the scenario of a seed.
pub fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    world.carry_registry();
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xe27_41e5);
    build(&mut world, &mut rng);
    for host in 0..world.host_count() {
        world.set_ahead(host, rng.i64(-CLOCKS..=CLOCKS));
    }
    if rng.u8(0..3) == 0 {
        let client = rng.usize(1..world.host_count());
        world.make_client(client);
    }
    world.run_for(seconds(8));
    for _ in 0..rng.usize(2..=4) {
        let trouble = draw(&world, &mut rng);
        world.begin_chapter(format!("{trouble:?}"));
        live_through(&mut world, trouble, &mut rng);
        same_entries(&mut world, SAME_ENTRIES);
    }
    if rng.u8(0..3) == 0 {
        let host = rng.usize(1..world.host_count());
        world.begin_chapter(format!("{host} is expelled"));
        world.expel(host);
        same_entries(&mut world, SAME_ENTRIES);
    }
    world.begin_chapter("calm".to_owned());
    quiet(&mut world, seconds(320));
    same_entries(&mut world, AT_ONCE);
    bounded(&mut world);
    invariants::bounded(&mut world);
    shape(seed, &world, replay(seed))
}

/// How to live through this seed again.
pub fn replay(seed: u64) -> String {
    format!("scripts/sim.sh entries 1 {seed}")
}

fn draw(world: &World, rng: &mut fastrand::Rng) -> Trouble {
    let host = rng.usize(0..world.host_count());
    let site = rng.usize(0..world.underlay.site_count());
    match rng.u8(0..6) {
        0 => Trouble::Restart(host, millis(rng.u64(100..60_000))),
        1 => Trouble::Loss(host, millis(rng.u64(100..60_000))),
        2 => Trouble::Apart(site, seconds(rng.u64(5..200))),
        _ => Trouble::Common(draw_misfortune(world, rng)),
    }
}

/// Lets it happen while hosts write, and lets it pass.
fn live_through(world: &mut World, trouble: Trouble, rng: &mut fastrand::Rng) {
    scribble(world, rng, None);
    match trouble {
        Trouble::Restart(host, span) => {
            world.restart(host, span);
            write_for(world, rng, span, None);
        }
        // What nobody else has cannot come back: first everybody has it, and then it writes nothing.
        Trouble::Loss(host, span) => {
            same_entries(world, SAME_ENTRIES);
            world.restart_without_entries(host, span);
            write_for(world, rng, span, Some(host));
        }
        Trouble::Apart(site, span) => {
            world.set_apart(&[site], true);
            write_for(world, rng, span, None);
            world.set_apart(&[site], false);
        }
        Trouble::Common(Misfortune::Reboot(site)) => {
            world.underlay.reboot_gateway(site);
            write_for(world, rng, seconds(10), None);
        }
        Trouble::Common(Misfortune::Suspend(host, span)) => {
            world.suspend(host, span);
            write_for(world, rng, span, None);
        }
        Trouble::Common(Misfortune::Carry(host, site)) => {
            world.carry(host, site);
            write_for(world, rng, seconds(10), None);
        }
        Trouble::Common(Misfortune::Cut(a, b, cut, span)) => {
            world.underlay.set_cut(a, b, Some(cut));
            write_for(world, rng, span, None);
            if cut == Cut::Everything {
                world.run_for(seconds(rng.u64(0..60)));
            }
            world.underlay.set_cut(a, b, None);
        }
        Trouble::Common(Misfortune::Silence(span)) => world.run_for(span),
    }
}

/// Hosts write now and then for so long; one may not.
fn write_for(world: &mut World, rng: &mut fastrand::Rng, span: Duration, but: Option<HostId>) {
    let end = world.now() + span;
    for _ in 0..4 {
        world.run_for(span * rng.u32(1..100) / 500);
        scribble(world, rng, but);
    }
    world.run_for(end.saturating_sub(world.now()));
    // Whoever was to be there again by now is.
    world.run_for(millis(10));
}

/// A few hosts write something.
fn scribble(world: &mut World, rng: &mut fastrand::Rng, but: Option<HostId>) {
    for _ in 0..rng.usize(1..=3) {
        let host = rng.usize(0..world.host_count());
        let key = KEYS[rng.usize(0..KEYS.len())];
        let lifetime = LIFETIMES[rng.usize(0..LIFETIMES.len())];
        let (what, number) = (rng.u8(0..8), rng.u16(1..1000));
        let can_write = world.running(host).is_some() && world.underlay.is_awake(host);
        if !can_write || Some(host) == but {
            continue;
        }
        let has = |key: &str| world.shown_by(host).contains_key(&(host, key.to_owned()));
        match what {
            0 => world.offer_service(host, "llm", number, lifetime),
            1 if has("svc/llm") => world.withdraw_service(host, "llm"),
            2 | 3 if has(key) => world.delete(host, key),
            _ => world.put(host, key, &number.to_string(), lifetime),
        }
    }
}
