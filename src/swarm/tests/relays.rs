//! Three swarms: a relay, and two nodes that only it can reach.

use super::*;
use crate::swarm::relays::Guests;

/// A relay of network 1, at the returned address.
fn relay() -> (Node, Keypair, Multiaddr) {
    let (keypair, address) = (Keypair::generate_ed25519(), free_address());
    let node = relay_at(&keypair, &address);
    (node, keypair, address)
}

fn relay_at(keypair: &Keypair, address: &Multiaddr) -> Node {
    Node::start(|config| {
        config.keypair = keypair.clone();
        config.listen = vec![address.clone()];
        config.external = vec![address.clone()];
        config.relay = RelayMode::Always;
    })
}

/// A node that nobody can dial.
fn hidden() -> Node {
    Node::start(|config| config.listen = vec![])
}

async fn offer(node: &Node, relay: PeerId, address: &Multiaddr) {
    node.send(Command::Relays(vec![(relay, vec![address.clone()])]))
        .await;
}

/// Waits until the node is reachable through a relay; its address there.
async fn reserved(node: &mut Node) -> Multiaddr {
    node.wait("a reservation", |event| match event {
        Event::Addresses(addresses) => addresses.relayed.first().cloned(),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn two_hidden_members_reach_each_other_through_a_relay() {
    let (mut relay, _, address) = relay();
    let (mut a, mut b) = (hidden(), hidden());
    for node in [&relay, &a, &b] {
        node.enter(1, b"credential").await;
    }
    offer(&a, relay.peer, &address).await;
    authenticate(&mut relay, &mut a).await;
    let circuit = reserved(&mut a).await;

    b.dial(a.peer, &circuit).await;
    let through = Link::Relayed { relay: relay.peer };
    assert_eq!(a.opened(b.peer).await.1, through);
    assert_eq!(b.opened(a.peer).await.1, through);
    authenticate(&mut a, &mut b).await;

    let (to_b, to_a) = (a.carrier(b.peer).await, b.carrier(a.peer).await);
    to_b.try_send(b"ping", 4).unwrap();
    let arrived = |event: &Event| match event {
        Event::Frames { frames, .. } => frames.iter().next().map(<[u8]>::to_vec),
        _ => None,
    };
    assert_eq!(b.wait("the datagram", arrived).await, b"ping");
    to_a.try_send(b"pong", 4).unwrap();
    assert_eq!(a.wait("the datagram", arrived).await, b"pong");
}

#[tokio::test]
async fn a_stranger_joins_through_a_relay_of_the_network() {
    let (mut relay, _, address) = relay();
    let (mut issuer, mut stranger) = (hidden(), hidden());
    relay.enter(1, b"credential").await;
    issuer.enter(1, b"credential").await;
    offer(&issuer, relay.peer, &address).await;
    authenticate(&mut relay, &mut issuer).await;
    let circuit = reserved(&mut issuer).await;

    stranger.dial(issuer.peer, &circuit).await;
    stranger.opened(issuer.peer).await;
    stranger
        .request(issuer.peer, Protocol::Join, 1, b"invite")
        .await;
    let (request, _, _) = issuer.requested().await;
    let body = b"welcome".to_vec();
    issuer.send(Command::Respond { request, body }).await;
    assert_eq!(stranger.response(1).await, Ok(b"welcome".to_vec()));
}

#[tokio::test]
async fn a_relay_reserves_nothing_for_strangers() {
    let (keypair, address) = (Keypair::generate_ed25519(), free_address());
    let members = crate::swarm::gate::Members::default();
    let local = keypair.public().to_peer_id();
    let mut server = crate::swarm::relays::Server::new(
        local,
        members,
        Guests::default(),
        Duration::from_secs(60),
    );
    server.set_relaying(true);
    let mut relay = libp2p::SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_tcp(
            tcp::Config::new(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| server)
        .unwrap()
        .build();
    relay.listen_on(address.clone()).unwrap();
    relay.add_external_address(address.clone());

    let mut stranger = libp2p::SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::new(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_relay_client(noise::Config::new, yamux::Config::default)
        .unwrap()
        .with_behaviour(|_, client| client)
        .unwrap()
        .build();
    stranger
        .listen_on(crate::swarm::addresses::circuit(&address, local))
        .unwrap();
    let refused = async {
        loop {
            tokio::select! {
                event = relay.select_next_some() => {
                    if let swarm::SwarmEvent::Behaviour(
                        libp2p::relay::Event::ReservationReqDenied { src_peer_id, .. },
                    ) = event
                    {
                        return src_peer_id;
                    }
                }
                _ = stranger.select_next_some() => {}
            }
        }
    };
    let refused = timeout(PATIENCE, refused).await.unwrap();
    assert_eq!(refused, *stranger.local_peer_id());
}

#[tokio::test]
async fn a_relay_reserves_nothing_for_members_that_its_owner_did_not_name() {
    let (keypair, address) = (Keypair::generate_ed25519(), free_address());
    let (mut guest, mut other) = (hidden(), hidden());
    let mut relay = Node::start(|config| {
        config.keypair = keypair.clone();
        config.listen = vec![address.clone()];
        config.external = vec![address.clone()];
        config.relay = RelayMode::Always;
        config.relay_for = Some([guest.peer].into());
    });
    for node in [&relay, &guest, &other] {
        node.enter(1, b"credential").await;
    }
    offer(&other, relay.peer, &address).await;
    authenticate(&mut relay, &mut other).await;
    offer(&guest, relay.peer, &address).await;
    authenticate(&mut relay, &mut guest).await;
    reserved(&mut guest).await;
    // The other was there before and has been refused by now, or is at the next request.
    assert!(!other.has_seen(
        |event| matches!(event, Event::Addresses(addresses) if !addresses.relayed.is_empty())
    ));

    relay.send(Command::RelayFor([other.peer].into())).await;
    reserved(&mut other).await;
}

#[tokio::test]
async fn a_reservation_is_made_again_after_the_relay_restarted() {
    let (mut relay, keypair, address) = relay();
    let mut node = hidden();
    relay.enter(1, b"credential").await;
    node.enter(1, b"credential").await;
    offer(&node, relay.peer, &address).await;
    authenticate(&mut relay, &mut node).await;
    reserved(&mut node).await;

    relay.stop().await;
    node.wait("the loss", |event| match event {
        Event::Addresses(addresses) => addresses.relayed.is_empty().then_some(()),
        _ => None,
    })
    .await;
    let mut relay = relay_at(&keypair, &address);
    relay.enter(1, b"credential").await;
    authenticate(&mut relay, &mut node).await;
    reserved(&mut node).await;
}

#[tokio::test]
async fn a_node_that_only_believes_to_be_public_is_reachable_through_a_relay() {
    let (mut relay, _, address) = relay();
    let mut node = Node::start(|config| {
        config.listen = vec![];
        config.external = vec!["/ip4/203.0.113.9/tcp/7777".parse().unwrap()];
    });
    relay.enter(1, b"credential").await;
    node.enter(1, b"credential").await;
    offer(&node, relay.peer, &address).await;
    authenticate(&mut relay, &mut node).await;
    reserved(&mut node).await;
}

#[tokio::test]
async fn a_relay_says_that_it_relays() {
    let (mut relay, _, address) = relay();
    let relaying = |event: &Event| match event {
        Event::Relaying(relaying) => Some(*relaying),
        _ => None,
    };
    assert!(relay.wait("the news", relaying).await);
    let seen = protocols_seen_by_a_stranger(&address).await;
    assert!(seen.contains("/libp2p/circuit/relay/0.2.0/hop"));
}
