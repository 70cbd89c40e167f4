//! Who may act on a node, as far as its directory decides.

use super::*;
use crate::membership::{
    Administration, Roles,
    administration::{
        Step,
        message::{Ask, Refusal},
    },
};

/// What the founder answers to a member that wants in without a password.
fn enter(world: &mut World, listed: &[(&str, Roles)], from: u8) -> Step {
    let seed = Zeroizing::new([3; 32]);
    let mut administration = Administration::new(seed.clone(), &seed, [4; 16]);
    let listed = listed.iter().map(|(who, roles)| (who.to_string(), *roles));
    let (from, now) = (signer(from).peer_id(), world.now());
    let founder = &mut world.hosts[0].node;
    founder.administer(
        &mut administration,
        &listed.collect(),
        &from,
        &Ask::Enter.encode(),
        now,
    )
}

fn roles(step: &Step) -> Option<Roles> {
    match step {
        Step::Granted { grant, .. } => Some(grant.roles),
        Step::Begun { .. } | Step::Call { .. } | Step::Refused { .. } => None,
    }
}

#[test]
fn a_listed_member_is_known_by_its_id_and_by_the_name_in_its_certificate() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let id = signer(2).peer_id().to_string();
    let listed = [("n2", Roles::METRICS), (&id, Roles::CONFIG)];
    let step = enter(&mut world, &listed, 2);
    assert_eq!(roles(&step), Some(Roles::METRICS | Roles::CONFIG));
}

/// A member that calls itself like one that is listed: names are chosen, certificates are not.
#[test]
fn the_name_that_a_member_gives_itself_gives_it_nothing() {
    let mut world = World::new();
    let invite = world.invite(3);
    let joined = world.ask(&invite, 3).unwrap();
    let mut start = start(3, joined.network, joined.credential, joined.records);
    start.name = Name::parse("laptop").unwrap();
    world.start_host(start, 3);
    world.connect(0, 1);
    let called = world.hosts[0].node.name_of(&signer(3).peer_id());
    assert_eq!(called.as_str(), "laptop");
    let step = enter(&mut world, &[("laptop", Roles::ALL)], 3);
    assert_eq!(roles(&step), None);
    let step = enter(&mut world, &[("n3", Roles::METRICS)], 3);
    assert_eq!(roles(&step), Some(Roles::METRICS));
}

#[test]
fn whoever_is_no_member_gets_nothing() {
    let mut world = World::new();
    let id = signer(9).peer_id().to_string();
    let step = enter(&mut world, &[(&id, Roles::ALL)], 9);
    let why = Refusal::NotAdministrator;
    assert_eq!(step, Step::Refused { user: None, why });
}
