//! Who is a member, and for how long.

use super::*;

/// A member connects and shows another member's record: true, valid, and not its own.
#[test]
fn a_member_cannot_pass_for_another_by_showing_its_record() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    let stolen = world.hosts[b].node.own_record().unwrap();
    let thief = world.hosts[c].node.peer_id();
    let now = world.now();
    let founder = &mut world.hosts[0].node;
    founder.handle_connection_opened(ConnectionId(50), thief, Link::Quic(endpoint(3)), now);
    founder.handle_credential(ConnectionId(50), thief, &stolen, now);
    world.settle();
    assert_eq!(
        world.hosts[0].refused,
        ["the certificate belongs to another node"]
    );
}

#[test]
fn a_certificate_of_another_network_is_refused() {
    let mut world = World::new();
    let founding = Founding {
        name: Name::parse("home").unwrap(),
        ipv4_prefix: genesis::DEFAULT_IPV4_PREFIX,
        certificate_lifetime: genesis::DEFAULT_CERTIFICATE_LIFETIME,
        founder_name: Name::parse("n5").unwrap(),
        founder_ipv4: None,
        policy_mode: None,
    };
    let other = Network::found(
        founding,
        &signer(201),
        &signer(5),
        [1; 16],
        Zeroizing::new([1; 32]),
        UNIX,
    )
    .unwrap();
    let stranger = Node::new(
        start(5, other.network, other.credential, Vec::new()),
        world.now(),
    )
    .unwrap();
    let (record, peer) = (stranger.own_record().unwrap(), stranger.peer_id());
    let now = world.now();
    let node = &mut world.hosts[0].node;
    node.handle_connection_opened(ConnectionId(9), peer, Link::Quic(endpoint(5)), now);
    node.handle_credential(ConnectionId(9), peer, &record, now);
    world.settle();
    assert_eq!(world.hosts[0].refused.len(), 1);
    assert_eq!(world.names_known_to(0).len(), 1);
}

#[test]
fn a_member_whose_certificate_ran_out_is_cut_off() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    assert_eq!(world.send(b, 0, b"hello").len(), 1);
    // Nobody is left who could renew it.
    world.hosts[0].node.issuer = None;
    world.elapsed += genesis::DEFAULT_CERTIFICATE_LIFETIME + Duration::from_secs(120);
    let now = world.now();
    world.hosts[0].node.handle_timeout(now);
    world.settle();
    assert!(world.hosts[0].node.peers().is_empty());
    assert!(world.links.is_empty(), "its connection is closed");
    // Even a handshake of its own leads to nobody.
    let founder = world.hosts[0].node.peer_id();
    let now = world.now().instant;
    world.hosts[b].node.tunnels.open_path(
        &founder,
        Path::Direct(endpoint(1)),
        crate::path::PathKind::Direct,
        now,
    );
    world.pass(Duration::from_secs(10));
    let drops = world.hosts[0].node.drops();
    assert!(drops.of(DropReason::UnknownPeer) + drops.of(DropReason::UnknownSession) > 0);
}

/// The founder renews at half of its life, and the member takes over what it is sent.
#[test]
fn a_member_outlives_its_first_certificate() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let first = world.hosts[b].node.certificate.clone();
    world.elapsed += genesis::DEFAULT_CERTIFICATE_LIFETIME * 3 / 4;
    let now = world.now();
    world.hosts[0].node.handle_timeout(now);
    world.settle();
    let renewed = world.hosts[b].node.certificate.clone();
    assert!(renewed.serial > first.serial && renewed.not_after > first.not_after);
    assert_eq!((renewed.ipv4, renewed.name), (first.ipv4, first.name));
    world.elapsed += genesis::DEFAULT_CERTIFICATE_LIFETIME / 2;
    for at in [0, b] {
        let now = world.now();
        world.hosts[at].node.handle_timeout(now);
    }
    world.settle();
    assert_eq!(world.names_known_to(0).len(), 2);
    assert!(world.hosts[b].node.ipv4().is_some());
}

#[test]
fn the_founder_renews_its_own_certificate_in_time() {
    let mut world = World::new();
    let before = world.hosts[0].node.certificate.not_after;
    world.elapsed += genesis::DEFAULT_CERTIFICATE_LIFETIME * 3 / 4;
    let now = world.now();
    world.hosts[0].node.handle_timeout(now);
    assert!(world.hosts[0].node.certificate.not_after > before);
    assert!(world.hosts[0].node.ipv4().is_some());
}
