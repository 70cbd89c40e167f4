//! The registry between whole nodes: stories, and random writers in random misfortune.

use std::time::Duration;

use hivevpn_sim::{
    clock::{millis, seconds},
    invariants::registry::{SAME_ENTRIES, bounded, quiet, same_entries, same_entries_among},
    nat::NatKind,
    scenario::entries,
    underlay::{GOOD_LINE, GatewayKind, Line},
    world::World,
};

const HOUR: Duration = seconds(3600);
/// What is new reaches everybody who is connected in this time.
const AT_ONCE: Duration = seconds(2);
/// And whoever comes back, as soon as it has connections again.
const SOON: Duration = seconds(60);
const GATEWAYS: [GatewayKind; 4] = [
    GatewayKind::Open,
    GatewayKind::Nat(NatKind::PORT_RESTRICTED),
    GatewayKind::Nat(NatKind::FULL_CONE),
    GatewayKind::Nat(NatKind::SYMMETRIC),
];

/// A founder and others, each at a site of its own, behind all kinds of gateways.
fn hosts_on(count: usize, line: Line) -> World {
    let mut world = World::new(1);
    world.carry_registry();
    for number in 0..count {
        let site = world.add_site(GATEWAYS[number % GATEWAYS.len()], line);
        world.add_host(site, millis(100) * number as u32);
    }
    world
}

/// The same, connected with each other.
fn hosts(count: usize) -> World {
    let mut world = hosts_on(count, GOOD_LINE);
    world.run_for(seconds(10));
    world
}

/// All show the same now, and go on doing so without asking each other for more than they should.
fn ends_well(mut world: World) {
    quiet(&mut world, seconds(400));
    same_entries(&mut world, AT_ONCE);
    bounded(&mut world);
    assert_eq!(world.broken(), []);
}

#[test]
fn what_one_writes_all_show_and_what_it_deletes_nobody_does() {
    let mut world = hosts(6);
    world.put(3, "weather/berlin", "rain", HOUR);
    world.offer_service(4, "llm", 8000, HOUR);
    same_entries(&mut world, AT_ONCE);
    assert_eq!(world.values(5, "weather/berlin"), ["rain"]);
    world.put(3, "weather/berlin", "sun", HOUR);
    world.offer_service(4, "llm", 8001, HOUR);
    same_entries(&mut world, AT_ONCE);
    assert_eq!(world.values(5, "weather/berlin"), ["sun"]);
    world.delete(3, "weather/berlin");
    world.withdraw_service(4, "llm");
    same_entries(&mut world, AT_ONCE);
    assert!(world.shown_by(5).is_empty());
    ends_well(world);
}

#[test]
fn both_sides_of_a_partition_go_on_and_agree_when_it_heals() {
    let mut world = hosts(6);
    for host in 0..6 {
        world.put(host, "list", "before", HOUR);
    }
    same_entries(&mut world, AT_ONCE);
    world.set_apart(&[0, 1, 2], true);
    world.run_for(seconds(40));
    for host in 0..6 {
        world.put(host, "list", "during", HOUR);
    }
    world.delete(2, "list");
    world.delete(4, "list");
    same_entries_among(&mut world, &[0, 1, 2], AT_ONCE);
    assert_eq!(
        world.values(0, "list"),
        ["during", "during", "before", "before", "before"]
    );
    world.run_for(seconds(100));
    world.set_apart(&[0, 1, 2], false);
    same_entries(&mut world, SOON);
    assert_eq!(world.values(0, "list").len(), 4);
    ends_well(world);
}

/// It holds what was deleted while it slept; whoever deleted it has left before it wakes.
#[test]
fn a_tombstone_wins_over_a_member_that_was_away_also_when_its_owner_has_left() {
    let mut world = hosts(5);
    world.put(1, "a", "old", 40 * HOUR);
    world.put(1, "b", "old", 40 * HOUR);
    same_entries(&mut world, AT_ONCE);
    world.suspend(3, seconds(300));
    world.run_for(seconds(30));
    world.delete(1, "a");
    world.put(1, "b", "new", 40 * HOUR);
    world.run_for(seconds(30));
    world.suspend(1, seconds(10_000));
    world.run_for(seconds(238));
    assert_eq!(world.values(3, "b"), ["old"], "it sleeps");
    world.run_for(seconds(2));
    same_entries_among(&mut world, &[0, 2, 3, 4], SOON);
    assert_eq!(world.values(3, "b"), ["new"]);
    assert!(world.values(3, "a").is_empty());
    assert_eq!(world.broken(), []);
}

/// One alone has heard of the deletion; it hands it on and leaves, and so do all others in turn, holders of the old among
/// them.
#[test]
fn a_tombstone_outlives_every_holder_that_leaves() {
    let mut world = hosts(5);
    world.put(1, "a", "old", 40 * HOUR);
    same_entries(&mut world, AT_ONCE);
    world.set_apart(&[1, 2], true);
    world.run_for(seconds(40));
    world.delete(1, "a");
    world.run_for(AT_ONCE);
    world.suspend(1, seconds(100_000));
    world.set_apart(&[1, 2], false);
    for (leaves, knows) in [(2, [0, 3, 4]), (0, [3, 4, 4])] {
        same_entries_among(&mut world, &[leaves, 3, 4], SOON);
        assert!(knows.iter().all(|host| world.values(*host, "a").is_empty()));
        world.restart(leaves, HOUR);
        world.run_for(seconds(40));
    }
    world.restart(3, seconds(1));
    world.run_for(seconds(30));
    assert!(world.values(3, "a").is_empty());
    assert_eq!(world.broken(), []);
}

#[test]
fn ten_who_write_under_one_key_at_once_are_all_kept() {
    let mut world = hosts(11);
    for round in 0..3 {
        for host in 1..11 {
            world.put(host, "list", &format!("{round} of {host}"), HOUR);
        }
    }
    same_entries(&mut world, AT_ONCE);
    let values = world.values(0, "list");
    assert_eq!(values.len(), 10);
    assert!(values.iter().all(|value| value.starts_with('2')));
    ends_well(world);
}

#[test]
fn an_owner_that_restarts_writes_on_and_one_that_lost_its_disk_as_well() {
    let mut world = hosts(5);
    for n in 0..50 {
        world.put(2, "a", &n.to_string(), 40 * HOUR);
    }
    world.offer_service(2, "llm", 80, HOUR);
    world.delete(2, "a");
    world.put(2, "b", "kept", 40 * HOUR);
    same_entries(&mut world, AT_ONCE);
    world.restart(2, seconds(5));
    world.run_for(seconds(6));
    assert_eq!(world.values(2, "b"), ["kept"]);
    world.put(2, "a", "again", 40 * HOUR);
    world.offer_service(2, "llm", 81, HOUR);
    same_entries(&mut world, SOON);
    world.restart_without_entries(2, seconds(5));
    world.run_for(seconds(6));
    world.put(2, "a", "once more", 40 * HOUR);
    same_entries(&mut world, SOON);
    assert_eq!(world.values(2, "b"), ["kept"]);
    assert_eq!(world.values(4, "a"), ["once more"]);
    ends_well(world);
}

/// The founder's is right; the others' are up to four minutes and a half off, so any two differ by less than ten minutes.
#[test]
fn clocks_that_differ_by_minutes_do_no_harm() {
    let mut world = hosts_on(6, GOOD_LINE);
    for (host, ahead) in [(1, 270), (2, -270), (3, 60), (4, -120), (5, 270)] {
        world.set_ahead(host, ahead);
    }
    world.run_for(seconds(10));
    for host in 0..6 {
        world.put(host, "long", "1", HOUR);
        world.put(host, "short", "1", seconds(120));
        world.put(host, "deleted", "1", HOUR);
    }
    same_entries(&mut world, AT_ONCE);
    for host in 0..6 {
        world.delete(host, "deleted");
        world.put(host, "long", "2", HOUR);
    }
    same_entries(&mut world, AT_ONCE);
    for _ in 0..20 {
        world.run_for(seconds(30));
        same_entries(&mut world, AT_ONCE);
    }
    assert_eq!(world.values(0, "long").len(), 6);
    ends_well(world);
}

/// The DHT serves anything that it ever had in a slot.
#[test]
fn an_old_entry_out_of_the_dht_takes_no_new_ones_place() {
    let mut world = hosts(4);
    world.put(1, "a", "1", 40 * HOUR);
    world.put(1, "a", "2", seconds(60));
    world.put(1, "b", "1", 40 * HOUR);
    world.delete(1, "b");
    same_entries(&mut world, AT_ONCE);
    for round in 0..40 {
        world.seek(2 + round % 2, ["a", "b"][round / 2 % 2], 1);
        world.run_for(seconds(3));
    }
    same_entries(&mut world, AT_ONCE);
    assert!(world.shown_by(2).is_empty());
    assert_eq!(world.broken(), []);
}

/// It keeps nothing for others and serves nobody; what it has to say it says itself.
#[test]
fn a_node_that_serves_nobody_reads_all_and_is_read_by_all() {
    let mut world = hosts_on(
        5,
        Line {
            loss: 0.05,
            ..GOOD_LINE
        },
    );
    world.make_client(2);
    world.run_for(seconds(20));
    for round in 0..6 {
        for host in 0..5 {
            world.put(host, "list", &round.to_string(), 40 * HOUR);
        }
        world.set_apart(&[2], true);
        world.run_for(seconds(15 * round));
        world.delete(2, "list");
        world.put(2, &format!("r/{round}"), "1", 40 * HOUR);
        world.put(3, "list", "last", 40 * HOUR);
        world.set_apart(&[2], false);
        same_entries(&mut world, SAME_ENTRIES);
    }
    world.restart(2, seconds(3));
    world.run_for(seconds(4));
    same_entries(&mut world, SOON);
    ends_well(world);
}

#[test]
fn members_that_restart_at_random_lose_nothing_over_lines_that_lose_much() {
    let mut world = hosts_on(
        6,
        Line {
            loss: 0.1,
            reorder: 0.1,
            ..GOOD_LINE
        },
    );
    world.run_for(seconds(20));
    let mut rng = fastrand::Rng::with_seed(7);
    for n in 0..30 {
        let (writer, stops) = (rng.usize(0..6), rng.usize(0..6));
        if world.underlay.is_awake(writer) {
            world.put(writer, &format!("k{}", n % 7), &n.to_string(), 40 * HOUR);
        }
        if world.underlay.is_awake(stops) {
            world.restart(stops, millis(rng.u64(100..20_000)));
        }
        world.run_for(millis(rng.u64(0..8000)));
    }
    world.run_for(seconds(20));
    same_entries(&mut world, SAME_ENTRIES);
    bounded(&mut world);
    assert_eq!(world.broken(), []);
}

#[test]
fn nothing_of_an_expelled_member_is_shown_by_anybody_who_was_away_either() {
    let mut world = hosts(5);
    world.put(2, "a", "1", 40 * HOUR);
    world.offer_service(2, "llm", 80, HOUR);
    world.put(3, "a", "1", 40 * HOUR);
    same_entries(&mut world, AT_ONCE);
    world.suspend(4, seconds(100));
    world.run_for(seconds(20));
    world.expel(2);
    same_entries(&mut world, AT_ONCE);
    world.run_for(seconds(81));
    same_entries(&mut world, SOON);
    assert_eq!(world.values(4, "a"), ["1"]);
    ends_well(world);
}

/// An owner that has as many as it may have deletes some and writes others, while somebody is away.
#[test]
fn room_that_was_made_is_used_by_everybody() {
    let mut world = hosts(4);
    for n in 0..256 {
        world.put(1, &format!("z{n}"), "1", 40 * HOUR);
        world.run_for(millis(20));
    }
    same_entries(&mut world, SOON);
    world.suspend(3, seconds(100));
    world.run_for(seconds(40));
    for n in 0..20 {
        world.delete(1, &format!("z{n}"));
        world.put(1, &format!("a{n}"), "1", 40 * HOUR);
    }
    world.run_for(seconds(61));
    same_entries(&mut world, SOON);
    ends_well(world);
}

/// Everybody sleeps through the end of all entries, and of the time for which their ends are remembered.
#[test]
fn what_is_long_over_takes_no_room() {
    let mut world = hosts(3);
    for n in 0..10 {
        world.put(1, &format!("k{n}"), "1", HOUR);
    }
    world.delete(1, "k0");
    same_entries(&mut world, AT_ONCE);
    for host in 0..3 {
        world.suspend(host, 97 * HOUR);
    }
    world.run_for(97 * HOUR + seconds(30));
    for host in 0..3 {
        let kept = world.running(host).map(|host| host.entries_kept());
        assert_eq!(kept, Some(0), "{host}");
    }
    ends_well(world);
}

/// Seeds of random scenarios. `scripts/sim.sh entries` lives through many more.
const SEEDS: u64 = 40;

#[test]
fn writers_in_misfortune_keep_every_invariant() {
    let mut broken = Vec::new();
    for seed in 0..SEEDS {
        let outcome = entries::run(seed);
        if !outcome.broken.is_empty() {
            broken.push(outcome.to_string());
        }
    }
    assert!(
        broken.is_empty(),
        "{} of {SEEDS}:\n{}",
        broken.len(),
        broken.join("\n")
    );
}

#[test]
fn the_same_seed_is_the_same_story_of_the_registry() {
    for seed in 0..2 {
        assert_eq!(entries::run(seed), entries::run(seed), "seed {seed}");
    }
}
