//! What a node knows of the registry after it was away, and what no clock brings back.

use super::*;

#[test]
fn a_holder_that_restarts_has_what_it_had() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", 40 * HOUR);
    world.publish(b, "llm", 80, HOUR);
    world.restart(c);
    assert_eq!(world.values(c, "a"), ["1"]);
    assert_eq!(world.services(c), ["llm:80"]);
}

/// The new entry lives for a minute, the old one for two days; the holder restarts in between.
#[test]
fn an_old_entry_that_is_replayed_is_refused_after_a_restart_and_after_the_new_one_is_over() {
    let (mut world, b, c) = three();
    world.put(b, "a", "old", 48 * HOUR);
    let old = world.sealed_of(b, "a");
    world.pass(SECOND);
    world.put(b, "a", "new", Duration::from_secs(60));
    world.restart(c);
    let owner = world.hosts[b].node.peer_id();
    let replay = |world: &mut World| {
        let now = world.now();
        let node = &mut world.hosts[c].node;
        let slot = node.entry_slot(&owner, &key("a"));
        let before = node.rejections().of(&Rejection::Outdated);
        node.handle_found_entry(&slot, &old, now);
        let judged = node.judge_for_dht(owner, &slot, &old, None, now);
        assert_eq!(judged, Err(Rejection::Outdated));
        assert_eq!(node.rejections().of(&Rejection::Outdated), before + 2);
    };
    replay(&mut world);
    assert_eq!(world.values(c, "a"), ["new"]);
    world.unplug(c);
    world.pass(Duration::from_secs(90));
    replay(&mut world);
    world.restart(c);
    replay(&mut world);
    assert!(world.values(c, "a").is_empty());
}

#[test]
fn a_deletion_survives_a_restart_of_everybody() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", 48 * HOUR);
    let old = world.sealed_of(b, "a");
    let now = world.now();
    world.hosts[b].node.delete_entry(&key("a"), now).unwrap();
    world.settle();
    for at in [0, b, c] {
        world.restart(at);
        let now = world.now();
        let owner = signer(2).peer_id();
        let node = &mut world.hosts[at].node;
        let slot = node.entry_slot(&owner, &key("a"));
        node.handle_found_entry(&slot, &old, now);
        assert!(world.values(at, "a").is_empty(), "host {at}");
    }
}

#[test]
fn an_owner_that_restarts_goes_on_counting_even_if_its_clock_was_ahead() {
    let (mut world, b, c) = three();
    let first = world.put(b, "a", "1", HOUR);
    for n in 0..5 {
        world.put(b, "a", &n.to_string(), HOUR);
    }
    world.restart(b);
    world.connect(b, c);
    let later = world.put(b, "a", "again", HOUR);
    assert!(later > first + 5, "{first} {later}");
    assert_eq!(world.values(c, "a"), ["again"]);
}

/// Its disk is lost, but not its key.
#[test]
fn an_owner_that_has_forgotten_everything_learns_its_numbers_from_the_others() {
    let (mut world, b, c) = three();
    let before: Vec<u64> = (0..9)
        .map(|_| world.put(b, "svc-like", "x", HOUR))
        .collect();
    world.publish(b, "llm", 80, HOUR);
    world.hosts[b].disk.entries.clear();
    world.restart(b);
    world.publish(b, "llm", 81, HOUR);
    world.connect(b, c);
    world.pass(3 * SECOND);
    assert_eq!(world.values(b, "svc-like"), ["x"]);
    assert!(world.put(b, "svc-like", "y", HOUR) > before[8]);
    assert_eq!(world.values(c, "svc-like"), ["y"]);
    for at in [0, b, c] {
        assert_eq!(world.services(at), ["llm:81"], "host {at}");
    }
}

#[test]
fn a_clock_set_back_revives_nothing() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", HOUR);
    let sealed = world.sealed_of(b, "a");
    world.unplug(c);
    world.pass(HOUR + SECOND);
    assert!(world.values(c, "a").is_empty());
    let back = Now {
        instant: world.now().instant + SECOND,
        unix: UNIX,
    };
    let node = &mut world.hosts[c].node;
    node.handle_timeout(back);
    let slot = node.entry_slot(&signer(2).peer_id(), &key("a"));
    node.handle_found_entry(&slot, &sealed, back);
    let judged = node.judge_for_dht(signer(2).peer_id(), &slot, &sealed, None, back);
    assert_eq!(judged, Err(Rejection::Expired));
    assert!(world.values(c, "a").is_empty());
}

#[test]
fn what_is_long_over_is_forgotten_on_the_disk_too() {
    let mut world = World::new();
    world.put(0, "a", "1", HOUR);
    assert_eq!(world.hosts[0].disk.entries.len(), 1);
    world.elapsed += 50 * HOUR;
    let now = world.now();
    world.hosts[0].node.handle_timeout(now);
    world.settle();
    assert!(world.hosts[0].disk.entries.is_empty());
    assert!(world.hosts[0].node.registry.replica.is_empty());
}

/// The replica of an expelled owner's entries waits on the disk for its return.
#[test]
fn entries_of_an_expelled_owner_are_there_again_after_restart_and_restoration() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", 48 * HOUR);
    let (peer, now) = (world.hosts[b].node.peer_id(), world.now());
    world.hosts[0].node.revoke(&peer, "lost", now).unwrap();
    world.settle();
    world.restart(c);
    assert!(world.values(c, "a").is_empty());
    world.connect(0, c);
    world.hosts[0].node.restore(&peer, now).unwrap();
    world.pass(2 * SECOND);
    assert_eq!(world.values(c, "a"), ["1"]);
}

/// The clock that timers go by stands still while the machine sleeps; the one that entries go by does not.
#[test]
fn what_is_due_after_a_sleep_is_done_at_once() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.publish(b, "llm", 80, HOUR);
    world.put(b, "a", "1", HOUR);
    let awake = world.now();
    let woken = Now {
        instant: awake.instant,
        unix: awake.unix.plus(2 * HOUR),
    };
    for at in [0, b] {
        let node = &mut world.hosts[at].node;
        let changes = node.registry_changes();
        node.handle_network_change(woken);
        assert!(node.poll_timeout() <= woken.instant);
        node.handle_timeout(woken);
        assert_ne!(node.registry_changes(), changes, "what is over is told");
    }
    world.settle();
    assert_eq!(world.services(b), ["llm:80"]);
    assert_eq!(world.services(0), ["llm:80"]);
}

#[test]
fn a_clock_that_is_set_is_noticed_within_a_minute() {
    let mut world = World::new();
    world.publish(0, "llm", 80, HOUR);
    let before = world.now();
    let set = Now {
        instant: before.instant + Duration::from_secs(60),
        unix: before.unix.plus(2 * HOUR),
    };
    let node = &mut world.hosts[0].node;
    assert!(node.poll_timeout() <= set.instant);
    node.handle_timeout(set);
    node.handle_timeout(set);
    assert_eq!(world.services(0), ["llm:80"]);
}
