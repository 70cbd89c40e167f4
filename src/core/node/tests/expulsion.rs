//! Expelling a member, everywhere and for good.

use super::*;

#[test]
fn an_expelled_members_live_tunnel_ends_at_once() {
    let (mut world, b, c) = three();
    assert_eq!(world.send(b, c, b"hello"), [b"hello".to_vec()]);
    let ipv4 = world.hosts[b].node.ipv4().unwrap();
    // What b has sealed under the session that c knows, and c opens too late.
    world.revoke(b);
    for at in [0, c] {
        assert!(!world.has_tunnel(at, b) && !world.knows(at, b), "host {at}");
        assert_eq!(world.hosts[at].node.resolve(&ipv4.to_string()), None);
        assert_eq!(world.hosts[at].node.resolve("n2"), None);
    }
    let peers = [world.peer(0), world.peer(c)];
    let is_left = |(a, z): &(usize, usize)| [*a, *z].contains(&b);
    assert!(!world.links.values().any(is_left), "{peers:?} have closed");
    assert_eq!(world.send(0, c, b"go on"), [b"go on".to_vec()]);
}

/// The attack: keep sending under the keys that the victim's session had.
#[test]
fn datagrams_of_an_expelled_member_reach_nobody() {
    let (mut world, b, c) = three();
    assert_eq!(world.send(b, c, b"hello").len(), 1);
    let (source, destination) = (
        world.hosts[b].node.ipv4().unwrap(),
        world.hosts[c].node.ipv4().unwrap(),
    );
    let mut packet = vec![0; 24];
    packet[0] = 0x45;
    packet[3] = 24;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let now = world.now().instant;
    world.hosts[b].node.handle_overlay_packet(&packet, now);
    let sealed: Vec<_> = world.hosts[b]
        .node
        .outbox()
        .datagrams()
        .map(|(_, datagram)| datagram.to_vec())
        .collect();
    assert!(!sealed.is_empty());
    world.hosts[b].node.outbox().clear();
    world.revoke(b);
    for datagram in sealed {
        let from = Path::Direct(endpoint(2));
        world.hosts[c].node.handle_datagram(from, &datagram, now);
    }
    assert!(world.hosts[c].node.inbox().is_empty());
}

#[test]
fn an_expelled_node_knows_it_and_carries_no_packets() {
    let (mut world, b, c) = three();
    world.revoke(b);
    let expelled = Standing::Expelled {
        at: UNIX,
        reason: "the laptop was lost".to_owned(),
    };
    assert_eq!(world.standing(b), expelled);
    assert_eq!(
        world.hosts[b].disk.standings,
        std::slice::from_ref(&expelled)
    );
    assert!(!world.has_tunnel(b, 0) && !world.has_tunnel(b, c));
    world.restart(b);
    assert_eq!(world.standing(b), expelled);
    assert!(!world.has_tunnel(b, 0) && !world.has_tunnel(b, c));
    assert!(!world.knock(b, c));
}

#[test]
fn a_node_that_was_away_learns_of_an_expulsion_from_any_third_one() {
    let (mut world, b, c) = three();
    let d = world.join(4);
    world.connect(0, d);
    world.unplug(b);
    world.unplug(c);
    world.revoke(b);
    assert!(world.knows(c, b), "it was not there");
    // The founder is gone for good.
    world.unplug(0);
    assert!(world.knock(c, d));
    assert!(!world.knows(c, b) && !world.has_tunnel(c, b));
    assert!(!world.knock(b, c));
    assert_eq!(
        world.hosts[c].refused,
        ["the node has been expelled from the network"]
    );
}

#[test]
fn a_node_that_was_expelled_while_away_is_told_so_with_proof() {
    let (mut world, b, c) = three();
    world.unplug(b);
    world.revoke(b);
    assert_eq!(world.standing(b), Standing::Member);
    assert!(!world.knock(b, c));
    assert!(matches!(world.standing(b), Standing::Expelled { .. }));
}

#[test]
fn an_expulsion_survives_the_restart_of_those_who_know_it() {
    let (mut world, b, c) = three();
    let record = world.hosts[b].node.own_record().unwrap();
    world.revoke(b);
    for at in [0, c] {
        world.restart(at);
        assert!(!world.knows(at, b));
        let now = world.now();
        let verdict = world.hosts[at].node.admit(&record, None, now);
        assert_eq!(verdict, Err(Rejection::Revoked));
    }
}

#[test]
fn a_clock_set_back_revives_nothing() {
    let (mut world, b, c) = three();
    let record = world.hosts[b].node.own_record().unwrap();
    world.sleep(3);
    world.revoke(b);
    world.restart(c);
    let mut now = world.now();
    for unix in [UNIX, UnixTime(0)] {
        now.unix = unix;
        let node = &mut world.hosts[c].node;
        assert_eq!(node.admit(&record, None, now), Err(Rejection::Revoked));
    }
    // Nor does it revive what has run out, even over a restart.
    let lapsed = world.hosts[0].node.own_record().unwrap();
    world.unplug(c);
    world.sleep(31);
    world.wake(c);
    world.elapsed = Duration::ZERO;
    world.restart(c);
    now.unix = UNIX;
    let verdict = world.hosts[c].node.admit(&lapsed, None, now);
    assert_eq!(verdict, Err(Rejection::Expired));
}

#[test]
fn an_invite_that_had_admitted_an_expelled_node_does_not_admit_it_again() {
    let mut world = World::new();
    let invite = world.invite(7);
    world.ask(&invite, 2).unwrap();
    let now = world.now();
    let peer = signer(2).peer_id();
    world.hosts[0].node.revoke(&peer, "", now).unwrap();
    let refusal = world.ask(&invite, 2).unwrap_err();
    assert_eq!(refusal, JoinRefusal::Expelled.to_string());
    let fresh = world.invite(8);
    let refusal = world.ask(&fresh, 2).unwrap_err();
    assert_eq!(refusal, JoinRefusal::Expelled.to_string());
}

#[test]
fn a_restored_node_comes_back_by_itself_and_its_old_certificate_does_not() {
    let (mut world, b, c) = three();
    let old = world.hosts[b].node.own_record().unwrap();
    let before = world.hosts[b].node.certificate.clone();
    world.revoke(b);
    world.sleep(1);
    let (peer, now) = (world.peer(b), world.now());
    world.hosts[0].node.restore(&peer, now).unwrap();
    world.settle();
    // It asks whoever it reaches, an ordinary member here, before it shows its certificate.
    assert!(world.knock(b, c));
    assert_eq!(world.standing(b), Standing::Member);
    let after = world.hosts[b].node.certificate.clone();
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(
        (&after.name, after.ipv4, after.admitted_at),
        (&before.name, before.ipv4, before.admitted_at)
    );
    assert_eq!(world.send(b, c, b"again"), [b"again".to_vec()]);
    let node = &mut world.hosts[0].node;
    assert_eq!(node.admit(&old, None, now), Err(Rejection::Revoked));
}

#[test]
fn a_node_that_was_expelled_and_restored_while_away_notices_neither_for_long() {
    let (mut world, b, c) = three();
    world.unplug(b);
    world.revoke(b);
    let (peer, now) = (world.peer(b), world.now());
    world.hosts[0].node.restore(&peer, now).unwrap();
    world.settle();
    assert!(!world.knock(b, c), "its old certificate is void");
    assert!(world.knock(b, c));
    world.pass(Duration::from_secs(2));
    assert_eq!(world.send(b, c, b"again"), [b"again".to_vec()]);
}

#[test]
fn a_restored_node_can_be_expelled_again() {
    let (mut world, b, c) = three();
    world.revoke(b);
    let (peer, now) = (world.peer(b), world.now());
    world.hosts[0].node.restore(&peer, now).unwrap();
    world.settle();
    assert!(world.knows(c, b));
    world.revoke(b);
    assert!(!world.knows(c, b));
    let revoked = world.hosts[c].node.revoked();
    assert_eq!((revoked.len(), revoked[0].generation), (1, 1));
    assert_eq!(revoked[0].name.as_ref().map(Name::as_str), Some("n2"));
    assert_eq!(revoked[0].by, Some(world.peer(0)));
}

#[test]
fn who_may_not_expel_says_who_may() {
    let (mut world, b, c) = three();
    let (peer, founder, now) = (world.peer(c), world.peer(0), world.now());
    let refused = world.hosts[b].node.revoke(&peer, "", now);
    assert_eq!(refused, Err(CannotRevoke::NotDelegated));
    let node = &mut world.hosts[0].node;
    assert_eq!(node.revoke(&founder, "", now), Err(CannotRevoke::Ourselves));
    node.revoke(&peer, "", now).unwrap();
    assert_eq!(
        node.revoke(&peer, "", now),
        Err(CannotRevoke::AlreadyExpelled)
    );
    assert_eq!(node.restore(&founder, now), Err(CannotRestore::IsMember));
    let stranger = signer(99).peer_id();
    assert_eq!(node.restore(&stranger, now), Err(CannotRestore::Forgotten));
}
