//! What members may leave in each other's part of the DHT.

use std::time::{SystemTime, UNIX_EPOCH};

use hivevpn_core::membership::{Descriptor, Features, MemberRecord};

use super::*;

/// A network of today, with the record of its founder in which the descriptor has this number.
fn founded() -> (Network, PeerId, impl Fn(u64) -> Vec<u8>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let founder = founder();
    let founded = founded_at(1, UnixTime(now.as_secs()));
    let (credential, id, peer) = (founded.credential, founded.network.id(), founder.peer_id());
    let record = move |seq| {
        let descriptor = Descriptor {
            network: id,
            seq,
            wireguard_key: [7; 32],
            name: Name::parse("founder").unwrap(),
            addresses: Vec::new(),
            features: Features::NONE,
        };
        MemberRecord {
            credential: credential.clone(),
            descriptor: descriptor.seal(&founder),
        }
        .encode()
    };
    (founded.network, peer, record)
}

async fn put(node: &Node, key: &[u8], value: Vec<u8>) {
    let key = key.to_vec();
    node.send(Command::Publish { key, value }).await;
}

/// Puts it there until that is refused as it should be: at first the two may not have found each other in the DHT.
async fn is_refused(from: &Node, by: &mut Node, key: &[u8], value: Vec<u8>, rule: &str) {
    loop {
        put(from, key, value.clone()).await;
        let refused = by.wait("the refusal", |event| match event {
            Event::Rejected(reason) => (reason.code() == rule).then_some(()),
            _ => None,
        });
        if timeout(Duration::from_millis(500), refused).await.is_ok() {
            return;
        }
    }
}

/// Looks until the DHT, which is the node alone, has something under this key.
async fn found(node: &mut Node, key: &[u8]) -> Vec<u8> {
    loop {
        let key = key.to_vec();
        node.send(Command::Lookup { key }).await;
        let found = node.wait("the record", |event| match event {
            Event::Found { value, .. } => Some(value.clone()),
            _ => None,
        });
        if let Ok(found) = timeout(Duration::from_millis(200), found).await {
            return found;
        }
    }
}

#[tokio::test]
async fn only_records_of_members_are_kept_and_each_under_its_own_key_and_never_older() {
    let (network, member, record) = founded();
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start(|_| {});
    for node in [&a, &b] {
        node.send(Command::EnterNetwork {
            network: network.clone(),
            credential: b"credential".to_vec(),
        })
        .await;
    }
    b.dial(a.peer, &address).await;
    authenticate(&mut a, &mut b).await;
    let key = network.record_key(&member);

    is_refused(&b, &mut a, b"anything", b"garbage".to_vec(), "malformed").await;
    is_refused(&b, &mut a, b"another's place", record(1), "wrong-subject").await;
    is_refused(&b, &mut a, &key, Vec::new(), "malformed").await;

    put(&b, &key, record(2)).await;
    while found(&mut a, &key).await != record(2) {}
    put(&b, &key, record(1)).await;
    // What came before on the same connection has been looked at by then.
    is_refused(&b, &mut a, b"another's place", record(1), "wrong-subject").await;
    b.stop().await;
    assert_eq!(found(&mut a, &key).await, record(2));
}
