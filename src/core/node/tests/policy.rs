//! One policy for everybody.

use super::*;
use crate::membership::{GroupGrant, Powers};

fn policies(world: &World, at: usize) -> Vec<&[u8]> {
    let told = world.hosts[at].disk.policies.iter();
    told.flatten().map(Vec::as_slice).collect()
}

#[test]
fn a_new_policy_reaches_everybody_and_survives_a_restart() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    let now = world.now();
    let set = |world: &mut World, body: &[u8]| {
        let node = &mut world.hosts[0].node;
        let version = node.set_policy(body.to_vec(), now);
        world.settle();
        version
    };
    assert_eq!(set(&mut world, b"first"), Ok(1));
    assert_eq!(set(&mut world, b"second"), Ok(2));
    assert_eq!(policies(&world, b), [&b"first"[..], b"second"]);
    // Who was away is told by whom it meets, and is not told what is over.
    world.connect(b, c);
    assert_eq!(policies(&world, c), [&b"second"[..]]);
    world.restart(c);
    assert_eq!(world.hosts[c].node.policy(), Some((2, &b"second"[..])));
    assert_eq!(policies(&world, c), [&b"second"[..], b"second"]);
}

#[test]
fn of_two_policies_set_on_two_sides_of_a_partition_everybody_takes_the_same() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    let (peer, now) = (world.peer(b), world.now());
    let until = now.unix.plus(Duration::from_secs(1_000_000));
    world.hosts[0]
        .node
        .delegate(
            &signer(200),
            &peer,
            Powers::POLICY,
            GroupGrant::Any,
            until,
            now,
        )
        .unwrap();
    world.settle();
    world.unplug(b);
    // The clock on one side is far ahead: that decides nothing.
    let mut ahead = now;
    ahead.unix = now.unix.plus(Duration::from_secs(900_000));
    for (at, body, now) in [(0, &b"ours"[..], now), (b, &b"theirs"[..], ahead)] {
        let set = world.hosts[at].node.set_policy(body.to_vec(), now);
        assert_eq!(set, Ok(1));
    }
    world.settle();
    world.connect(0, c);
    world.connect(b, c);
    world.connect(0, b);
    let in_force = |at: usize| world.hosts[at].node.policy().unwrap();
    assert_eq!(in_force(0), in_force(b));
    assert_eq!(in_force(0), in_force(c));
}
