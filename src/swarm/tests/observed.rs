//! What a node believes of its own addresses.

use super::*;

/// What members see the node as, if the event tells.
fn observed(event: &Event) -> Option<Vec<Multiaddr>> {
    match event {
        Event::Addresses(ours) => Some(ours.observed.clone()),
        _ => None,
    }
}

/// What a node pushes to a peer holds the peer's address: taken for the node's own, it sends hole punches astray.
#[tokio::test]
async fn a_node_does_not_take_what_it_tells_a_peer_for_its_own_address() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    a.enter(1, b"credential of a").await;
    b.enter(1, b"credential of b").await;
    b.dial(a.peer, &address).await;
    // Both push to each other here, since admission opens protocols.
    authenticate(&mut a, &mut b).await;
    b.request(a.peer, Protocol::Sync, 1, b"how are you").await;
    let (request, ..) = a.requested().await;
    a.send(Command::Respond {
        request,
        body: b"well".to_vec(),
    })
    .await;
    b.response(1).await.unwrap();
    b.has_seen(|_| false);
    let seen: Vec<_> = b.seen.iter().filter_map(observed).flatten().collect();
    assert!(!seen.contains(&address), "{seen:?} are b's, not a's");
}
