//! How others join, and how they do not.

use super::*;

#[test]
fn a_used_invite_admits_nobody_else_but_answers_the_same_node_again() {
    let mut world = World::new();
    let invite = world.invite(7);
    let first = world.ask(&invite, 2).unwrap();
    let again = world.ask(&invite, 2).unwrap();
    assert_eq!(first.certificate, again.certificate);
    let other = world.ask(&invite, 3).unwrap_err();
    assert_eq!(other, JoinRefusal::UsedUp.to_string());
}

#[test]
fn an_admission_that_was_not_saved_leaves_the_invite_good() {
    let mut world = World::new();
    let invite = world.invite(7);
    world.ask(&invite, 2).unwrap();
    world.hosts[0]
        .node
        .handle_redeem_failed(*invite.id().as_bytes());
    assert!(world.ask(&invite, 3).is_ok());
}

#[test]
fn a_flood_of_join_requests_is_cut_off_and_later_ones_are_heard_again() {
    let mut world = World::new();
    let invite = world.invite(7);
    let refusals = (10..60).filter_map(|number| world.ask(&invite, number).err());
    let limited = refusals
        .filter(|refusal| *refusal == JoinRefusal::RateLimited.to_string())
        .count();
    assert_eq!(limited, 30);
    world.pass(Duration::from_secs(1));
    assert_eq!(
        world.ask(&invite, 99).unwrap_err(),
        JoinRefusal::UsedUp.to_string()
    );
}

#[test]
fn a_node_that_may_not_invite_says_who_may() {
    let mut world = World::new();
    let b = world.join(2);
    let request = InviteRequest {
        name: None,
        groups: Default::default(),
        ipv4: None,
        lifetime: Duration::from_secs(60),
    };
    let now = world.now();
    let refusal = world.hosts[b]
        .node
        .invite(request, Vec::new(), Zeroizing::new([1; 32]), now)
        .unwrap_err();
    assert_eq!(refusal, NoInvite::NotDelegated);
    assert!(refusal.to_string().contains("founded the network"));
}
