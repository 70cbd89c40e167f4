//! Coming back after one's certificate has run out, and changing one's key.

use super::*;

#[test]
fn a_node_that_was_off_for_longer_than_its_certificate_lived_comes_back_by_itself() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let before = world.hosts[b].node.certificate.clone();
    world.unplug(b);
    world.sleep(100);
    // The founder renews its own while it can, and remembers who was there.
    world.restart(0);
    world.restart(b);
    assert_eq!(world.standing(b), Standing::Lapsed);
    assert!(world.knock(b, 0));
    assert_eq!(world.standing(b), Standing::Member);
    let after = world.hosts[b].node.certificate.clone();
    assert_eq!(
        (after.name, after.ipv4, after.admitted_at, after.generation),
        (
            before.name,
            before.ipv4,
            before.admitted_at,
            before.generation
        )
    );
    world.pass(Duration::from_secs(2));
    assert_eq!(world.send(b, 0, b"back"), [b"back".to_vec()]);
}

#[test]
fn who_may_not_admit_renews_nobody() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.unplug(b);
    world.sleep(20);
    let c = world.join(3);
    world.connect(0, c);
    world.unplug(0);
    world.sleep(15);
    world.wake(c);
    assert_eq!(world.standing(c), Standing::Member);
    world.restart(b);
    assert!(!world.knock(b, c));
    assert_eq!(world.standing(b), Standing::Lapsed);
}

#[test]
fn a_node_that_was_off_for_too_long_is_not_remembered() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.unplug(b);
    // 30 days of the certificate, 90 of memory, and one; nobody was there to renew it meanwhile.
    world.sleep(121);
    world.restart(0);
    world.restart(b);
    assert!(!world.knock(b, 0));
    assert_eq!(world.standing(b), Standing::Lapsed);
}

#[test]
fn an_expelled_node_is_not_revived_by_running_out() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.unplug(b);
    world.revoke(b);
    world.sleep(40);
    world.restart(0);
    world.restart(b);
    assert!(!world.knock(b, 0));
    assert!(matches!(world.standing(b), Standing::Expelled { .. }));
}

#[test]
fn a_founder_that_was_off_for_long_renews_itself() {
    let mut world = World::new();
    world.sleep(200);
    world.restart(0);
    assert_eq!(world.standing(0), Standing::Member);
    assert!(world.hosts[0].node.ipv4().is_some());
}

/// A stranger asks for a certificate, or a member for somebody else's: the connection says who asks.
#[test]
fn nobody_is_handed_what_is_not_its_own() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let now = world.now();
    let body = JoinMessage::Renewal.encode();
    let stranger = signer(99).peer_id();
    let mut ask = |peer: PeerId| {
        let node = &mut world.hosts[0].node;
        node.handle_join_request(RequestId(0), peer, &body, now);
        world.settle();
        JoinAnswer::renewed(&world.hosts[0].answers.pop().unwrap())
    };
    let refusal = ask(stranger).unwrap_err().to_string();
    assert_eq!(refusal, JoinRefusal::NothingToRenew.to_string());
    let peer = signer(2).peer_id();
    let handed = ask(peer).unwrap().credential.unwrap();
    let genesis = world.hosts[0].node.network.genesis().clone();
    let certificate = handed.verify(&genesis, UNIX, &peer).unwrap();
    assert_eq!(certificate.subject, signer(2).key());
}

#[test]
fn a_new_wireguard_key_needs_nobodys_leave() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    assert_eq!(world.send(b, 0, b"old").len(), 1);
    let now = world.now();
    let identity = session::Identity::new([222; 32]);
    let key = identity.public().0;
    world.hosts[b].node.rotate_wireguard(identity, now);
    world.settle();
    let known = world.hosts[0].node.directory.get(&world.peer(b)).unwrap();
    assert_eq!(known.descriptor.wireguard_key, key);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.send(b, 0, b"new"), [b"new".to_vec()]);
    assert_eq!(world.send(0, b, b"and back"), [b"and back".to_vec()]);
}

/// It was expelled and restored long ago: an invite admits it like anybody else.
#[test]
fn a_node_that_was_restored_once_may_be_invited_after_it_has_lapsed() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.unplug(b);
    world.revoke(b);
    let (peer, now) = (world.peer(b), world.now());
    world.hosts[0].node.restore(&peer, now).unwrap();
    world.settle();
    world.sleep(40);
    world.restart(0);
    assert!(!world.knows(0, b));
    let invite = world.invite(9);
    let now = world.now();
    let request = JoinRequest::seal(&invite, &signer(2), "n2", None);
    let body = JoinMessage::Invite(request).encode();
    let node = &mut world.hosts[0].node;
    node.handle_join_request(RequestId(0), peer, &body, now);
    world.settle();
    let answer = world.hosts[0].answers.pop().unwrap();
    let joined = JoinAnswer::accept(&answer, &invite, &signer(2).key(), now.unix).unwrap();
    assert_eq!(joined.certificate.generation, 1);
    assert_eq!(joined.certificate.admitted_at, UNIX);
}

#[test]
fn a_node_without_a_certificate_looks_for_those_it_knew() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.unplug(b);
    world.sleep(40);
    world.restart(b);
    let founder = world.peer(0);
    let now = world.now();
    let node = &mut world.hosts[b].node;
    node.handle_timeout(now);
    let dials: Vec<_> = std::iter::from_fn(|| node.poll_output())
        .filter(|output| matches!(output, Output::Dial { peer, .. } if *peer == founder))
        .collect();
    assert_eq!(dials.len(), 1);
}
