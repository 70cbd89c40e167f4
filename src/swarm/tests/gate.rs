//! Who gets in, and what the others see.

use super::*;

#[tokio::test]
async fn two_members_authenticate_and_use_the_protocols_of_members() {
    let (mut a, mut b) = members().await;

    b.request(a.peer, Protocol::Sync, 7, b"what do you know?")
        .await;
    let (request, protocol, body) = a.requested().await;
    assert_eq!(
        (protocol, body.as_slice()),
        (Protocol::Sync, &b"what do you know?"[..])
    );
    let body = b"nothing".to_vec();
    a.send(Command::Respond { request, body }).await;
    assert_eq!(b.response(7).await, Ok(b"nothing".to_vec()));

    let (key, value) = (b"key".to_vec(), b"value".to_vec());
    a.send(Command::Publish {
        key: key.clone(),
        value,
    })
    .await;
    let found = loop {
        // The record travels while we look: until it is there, the DHT answers with silence.
        b.send(Command::Lookup { key: key.clone() }).await;
        let found = timeout(
            Duration::from_millis(200),
            b.wait("the record", |event| match event {
                Event::Found { key, value } => Some((key.clone(), value.clone())),
                _ => None,
            }),
        );
        if let Ok(found) = found.await {
            break found;
        }
    };
    assert_eq!(found, (key, b"value".to_vec()));
}

#[tokio::test]
async fn each_side_judges_what_the_other_shows() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    a.enter(1, b"credential of a").await;
    b.enter(1, b"credential of b").await;
    b.dial(a.peer, &address).await;
    assert_eq!(a.credential(b.peer).await.1, b"credential of b");
    assert_eq!(b.credential(a.peer).await.1, b"credential of a");
}

#[tokio::test]
async fn a_stranger_sees_only_the_protocols_for_strangers() {
    let (a, address) = Node::listening().await;
    let mut expected = BTreeSet::from(
        [
            "/hivevpn/join/1",
            "/ipfs/id/1.0.0",
            "/ipfs/id/push/1.0.0",
            "/ipfs/ping/1.0.0",
            "/libp2p/circuit/relay/0.2.0/stop",
        ]
        .map(str::to_owned),
    );
    let seen = protocols_seen_by_a_stranger(&address).await;
    assert_eq!(seen, expected, "before the network is entered");

    a.enter(1, b"credential").await;
    expected.insert("/hivevpn/auth/1".to_owned());
    let mut seen = BTreeSet::new();
    while !seen.contains("/hivevpn/auth/1") {
        // The command may still be on its way.
        seen = protocols_seen_by_a_stranger(&address).await;
    }
    assert_eq!(seen, expected, "a member of a network");
}

#[tokio::test]
async fn members_of_different_networks_show_each_other_nothing() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|config| config.patience = Duration::from_millis(500));
    a.enter(1, b"credential of a").await;
    b.enter(2, b"credential of b").await;
    b.dial(a.peer, &address).await;
    let (connection, _) = b.opened(a.peer).await;
    b.closed(connection).await;
    let (connection, _) = a.opened(b.peer).await;
    a.closed(connection).await;
    assert!(!a.has_seen(is_credential) && !b.has_seen(is_credential));
}

#[tokio::test]
async fn who_is_refused_is_told_and_disconnected() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    a.enter(1, b"credential of a").await;
    b.enter(1, b"expired").await;
    b.dial(a.peer, &address).await;
    b.admit(a.peer).await;
    let (connection, _) = a.credential(b.peer).await;
    let reason = "expired".to_owned();
    a.send(Command::Refuse { connection, reason }).await;
    b.wait("the refusal", |event| match event {
        Event::RefusedByPeer { peer, .. } => (*peer == a.peer).then_some(()),
        _ => None,
    })
    .await;
    a.closed(connection).await;
    let authenticated = |event: &Event| matches!(event, Event::Authenticated { .. });
    assert!(!a.has_seen(authenticated) && !b.has_seen(authenticated));
}

#[tokio::test]
async fn a_member_that_did_not_admit_us_cannot_be_asked() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    a.enter(1, b"credential of a").await;
    b.enter(1, b"credential of b").await;
    b.dial(a.peer, &address).await;
    b.admit(a.peer).await;
    a.credential(b.peer).await; // and no verdict
    b.request(a.peer, Protocol::Sync, 1, b"hello").await;
    assert!(b.response(1).await.is_err());
    assert!(!a.has_seen(|event| matches!(event, Event::Request { .. })));
}

#[tokio::test]
async fn who_joins_is_authenticated_on_the_same_connection() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    a.enter(1, b"credential of a").await;
    b.dial(a.peer, &address).await;
    let (connection, _) = b.opened(a.peer).await;

    b.request(a.peer, Protocol::Join, 1, b"let me in").await;
    let (request, protocol, body) = a.requested().await;
    assert_eq!(
        (protocol, body.as_slice()),
        (Protocol::Join, &b"let me in"[..])
    );
    let body = b"welcome".to_vec();
    a.send(Command::Respond { request, body }).await;
    assert_eq!(b.response(1).await, Ok(b"welcome".to_vec()));

    b.enter(1, b"credential of b").await;
    assert_eq!(authenticate(&mut a, &mut b).await.1, connection);
    a.carrier(b.peer).await;
    b.request(a.peer, Protocol::Sync, 2, b"and now?").await;
    assert_eq!(a.requested().await.1, Protocol::Sync);
}

#[tokio::test]
async fn a_join_message_has_a_greatest_length() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    b.dial(a.peer, &address).await;
    b.opened(a.peer).await;
    b.request(a.peer, Protocol::Join, 1, &vec![0; (64 << 10) + 1])
        .await;
    assert!(b.response(1).await.is_err());
    b.request(a.peer, Protocol::Join, 2, &vec![0; 64 << 10])
        .await;
    assert_eq!(a.requested().await.2.len(), 64 << 10);
}

#[tokio::test]
async fn a_renewed_credential_is_judged_on_the_open_connection() {
    let (mut a, mut b) = members().await;
    b.enter(1, b"renewed").await;
    let (connection, credential) = a.credential(b.peer).await;
    assert_eq!(credential, b"renewed");
    a.send(Command::Admit { connection }).await;
    a.request(b.peer, Protocol::Sync, 1, b"still there?").await;
    assert_eq!(b.requested().await.2, b"still there?");

    b.enter(1, b"forged").await;
    let (connection, _) = a.credential(b.peer).await;
    let reason = "forged".to_owned();
    a.send(Command::Refuse { connection, reason }).await;
    a.closed(connection).await;
}

#[tokio::test]
async fn of_the_idle_connections_only_the_authenticated_one_lasts() {
    let address = free_address();
    let mut a = Node::start(|config| {
        config.listen = vec![address.clone()];
        config.patience = Duration::ZERO;
    });
    let (mut member, stranger) = (Node::start(|_| {}), Node::start(|_| {}));
    a.enter(1, b"credential of a").await;
    member.enter(1, b"credential").await;
    member.dial(a.peer, &address).await;
    let (connection, _) = authenticate(&mut a, &mut member).await;

    stranger.dial(a.peer, &address).await;
    let (strange, _) = a.opened(stranger.peer).await;
    a.closed(strange).await;
    member
        .request(a.peer, Protocol::Sync, 1, b"still here")
        .await;
    assert_eq!(a.requested().await.2, b"still here");

    a.send(Command::Close { connection }).await;
    a.closed(connection).await;
}

#[tokio::test]
async fn a_dial_that_reaches_nobody_says_so() {
    let mut a = Node::start(|_| {});
    let nobody = PeerId::random();
    a.dial(nobody, &free_address()).await;
    a.wait("the failure", |event| match event {
        Event::DialFailed { peer, .. } => (*peer == nobody).then_some(()),
        _ => None,
    })
    .await;
}

#[tokio::test]
async fn a_second_connection_is_made_when_asked_for() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    b.dial(a.peer, &address).await;
    let (first, _) = b.opened(a.peer).await;
    b.dial(a.peer, &address).await; // nothing
    b.send(Command::Dial {
        peer: a.peer,
        addresses: vec![address],
        even_if_connected: true,
    })
    .await;
    assert_ne!(b.opened(a.peer).await.0, first);
    let mut count = 0;
    while count < 2 {
        a.opened(b.peer).await;
        count += 1;
    }
    assert!(!b.has_seen(|event| matches!(event, Event::ConnectionOpened { .. })));
}
