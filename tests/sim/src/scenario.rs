//! A network and its misfortunes, drawn from a seed.
//!
//! The first host is public, founds the network and relays; the others are anywhere. When all have started and found
//! their best paths, misfortunes come one after another, while some pairs talk; after each the world is left alone
//! and must come to rest at its best again. At the end nothing happens for a while, and nothing must.

use std::fmt;

use crate::{
    clock::{Moment, millis, seconds},
    invariants::{self, Broken},
    nat::{Dependence, NatKind},
    underlay::{Cut, GatewayKind, HostId, Line, SiteId},
    world::World,
};

pub mod entries;

/// What happens to a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfortune {
    /// The site's gateway loses its memory.
    Reboot(SiteId),
    /// A lid is closed for so long.
    Suspend(HostId, Moment),
    /// Something between two sites drops things, for so long.
    Cut(SiteId, SiteId, Cut, Moment),
    /// A host is carried to another site.
    Carry(HostId, SiteId),
    /// Nobody says anything for so long: mappings run out.
    Silence(Moment),
}

/// What became of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// The whole story as one number.
    pub hash: u64,
    /// How many lines that story has.
    pub lines: u64,
    /// What did not hold.
    pub broken: Vec<Broken>,
    /// How to live through it again.
    pub replay: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}:", self.seed)?;
        for broken in &self.broken {
            writeln!(f, "  {broken}")?;
        }
        write!(f, "  replay: {}", self.replay)
    }
}

/// Lives through the scenario of a seed.
pub fn run(seed: u64) -> Outcome {
    let mut world = World::new(seed);
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    build(&mut world, &mut rng);
    world.run_for(seconds(3));
    invariants::delivery(&mut world, invariants::FIRST_PACKET);
    invariants::best_paths(&mut world, invariants::BEST_PATH);
    for _ in 0..rng.usize(1..=4) {
        let misfortune = draw_misfortune(&world, &mut rng);
        world.begin_chapter(format!("{misfortune:?}"));
        befall(&mut world, misfortune);
        world.run_for(seconds(20));
        invariants::delivery(&mut world, invariants::FIRST_PACKET);
        invariants::best_paths(&mut world, invariants::BEST_PATH_AGAIN);
        invariants::bounded(&mut world);
    }
    world.run_for(seconds(120));
    world.begin_chapter("calm".to_owned());
    invariants::calm(&mut world, seconds(240));
    invariants::delivery(&mut world, invariants::RECOVERY * 2);
    invariants::bounded(&mut world);
    invariants::conservation_of_packets(&mut world);
    shape(seed, &world, replay(seed))
}

/// How to live through this seed again.
pub fn replay(seed: u64) -> String {
    format!("scripts/sim.sh 1 {seed}")
}

fn shape(seed: u64, world: &World, replay: String) -> Outcome {
    Outcome {
        seed,
        hash: world.trace().hash(),
        lines: world.trace().lines(),
        broken: world.broken().to_vec(),
        replay,
    }
}

fn build(world: &mut World, rng: &mut fastrand::Rng) {
    let public = world.add_site(GatewayKind::Open, draw_line(rng));
    world.add_host(public, millis(0));
    let sites: Vec<_> = (0..rng.usize(2..=5))
        .map(|_| {
            let gateway = draw_gateway(rng);
            world.add_site(gateway, draw_line(rng))
        })
        .collect();
    for site in &sites {
        for _ in 0..rng.usize(1..=2) {
            world.add_host(*site, millis(rng.u64(100..3000)));
        }
    }
}

fn draw_gateway(rng: &mut fastrand::Rng) -> GatewayKind {
    match rng.u8(0..10) {
        0 => GatewayKind::Open,
        1 => GatewayKind::NoUdp,
        2 => GatewayKind::Nat(NatKind::FIREWALL),
        _ => {
            let mut draw = || Dependence::ALL[rng.usize(0..3)];
            let (mapping, filtering) = (draw(), draw());
            let is_stable = mapping == Dependence::Endpoint;
            GatewayKind::Nat(NatKind {
                mapping,
                filtering,
                expiry: seconds([30, 60, 120, 300][rng.usize(0..4)]),
                keeps_port: is_stable && rng.bool(),
                hairpins: rng.bool(),
                translates: true,
            })
        }
    }
}

fn draw_line(rng: &mut fastrand::Rng) -> Line {
    let is_rough = rng.u8(0..4) == 0;
    Line {
        latency: millis(rng.u64(2..60)),
        loss: if is_rough { rng.f64() * 0.03 } else { 0.0 },
        reorder: if is_rough { rng.f64() * 0.1 } else { 0.0 },
        mtu: [1500, 1500, 1492, 1492, 1420, 1280][rng.usize(0..6)],
    }
}

fn draw_misfortune(world: &World, rng: &mut fastrand::Rng) -> Misfortune {
    let sites = world.underlay.site_count();
    let host = rng.usize(1..world.host_count());
    let site = rng.usize(1..sites);
    match rng.u8(0..6) {
        0 => Misfortune::Reboot(site),
        1 => Misfortune::Suspend(host, seconds(rng.u64(2..400))),
        2 => Misfortune::Carry(host, site),
        3 => Misfortune::Silence(seconds(rng.u64(60..600))),
        kind => {
            let other = (site + rng.usize(1..sites - 1)) % sites;
            let cut = if kind == 4 { Cut::Udp } else { Cut::Everything };
            Misfortune::Cut(site, other, cut, seconds(rng.u64(20..120)))
        }
    }
}

/// Lets it happen while some pairs talk, and lets it pass.
fn befall(world: &mut World, misfortune: Misfortune) {
    match misfortune {
        Misfortune::Reboot(site) => {
            let pairs = pairs_of(world, |world, host| world.underlay.site_of(host) == site);
            talk(world, &pairs);
            world.underlay.reboot_gateway(site);
            invariants::recovery(world, &pairs);
        }
        Misfortune::Suspend(host, span) => {
            let pairs = pairs_of(world, |_, other| other == host);
            talk(world, &pairs);
            world.suspend(host, span);
            world.run_for(span);
            invariants::recovery(world, &pairs);
        }
        Misfortune::Carry(host, site) => {
            let pairs = pairs_of(world, |_, other| other == host);
            talk(world, &pairs);
            world.carry(host, site);
            invariants::recovery(world, &pairs);
        }
        Misfortune::Cut(a, b, cut, span) => {
            let between = |world: &World, host| [a, b].contains(&world.underlay.site_of(host));
            let mut pairs = pairs_of(world, between);
            pairs.retain(|(one, other)| between(world, *one) && between(world, *other));
            talk(world, &pairs);
            world.underlay.set_cut(a, b, Some(cut));
            invariants::recovery(world, &pairs);
            world.run_for(span);
            world.underlay.set_cut(a, b, None);
        }
        Misfortune::Silence(span) => world.run_for(span),
    }
}

/// The connectable pairs one of whose ends is meant, at most four.
fn pairs_of(world: &World, is_meant: impl Fn(&World, HostId) -> bool) -> Vec<(HostId, HostId)> {
    let mut pairs = invariants::connectable(world);
    pairs.retain(|(a, b)| is_meant(world, *a) || is_meant(world, *b));
    pairs.truncate(4);
    pairs
}

/// A conversation of some seconds, so that the misfortune interrupts one.
fn talk(world: &mut World, pairs: &[(HostId, HostId)]) {
    for _ in 0..20 {
        for (a, b) in pairs {
            world.ask(*a, *b, 200);
        }
        world.run_for(millis(100));
    }
}
