//! Datagrams on a stream.

use super::*;

/// The datagrams that arrive next, as many as `pick` wants.
async fn frames(node: &mut Node) -> Vec<Vec<u8>> {
    node.wait("frames", |event| match event {
        Event::Frames { frames, .. } => Some(frames.iter().map(<[u8]>::to_vec).collect()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn ten_thousand_datagrams_arrive_in_order_both_ways() {
    const COUNT: u32 = 10_000;
    let (a, b) = members().await;
    let (a_peer, b_peer) = (a.peer, b.peer);

    async fn exchange(mut node: Node, with: PeerId) -> (Node, Carrier) {
        let carrier = node.carrier(with).await;
        let sender = carrier.clone();
        let sending = tokio::task::spawn_blocking(move || {
            for number in 0..COUNT {
                // Of a WireGuard data message's size, more or less.
                let mut datagram = vec![4; 100 + number as usize % 1400];
                datagram[..4].copy_from_slice(&number.to_be_bytes());
                while sender.try_send(&datagram, datagram.len()) == Err(Dropped::Full) {
                    std::thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < COUNT {
            for frame in frames(&mut node).await {
                assert_eq!(frame[..4], next.to_be_bytes());
                assert_eq!(frame.len(), 100 + next as usize % 1400);
                next += 1;
            }
        }
        sending.await.unwrap();
        (node, carrier)
    }

    let (a, b) = tokio::join!(
        tokio::spawn(exchange(a, b_peer)),
        tokio::spawn(exchange(b, a_peer))
    );
    drop((a.unwrap(), b.unwrap()));
}

#[tokio::test]
async fn what_the_peer_does_not_read_is_dropped_and_not_kept() {
    let (mut a, address) = Node::listening().await;
    let mut b = Node::start_with_mailbox(8, |_| {});
    a.enter(1, b"credential of a").await;
    b.enter(1, b"credential of b").await;
    b.dial(a.peer, &address).await;
    authenticate(&mut a, &mut b).await;
    let carrier = a.carrier(b.peer).await;
    b.carrier(a.peer).await;

    // From here on nobody reads b's mailbox. What is on the way fills it, the stream's window and the sockets.
    const LENGTH: usize = 60_000;
    const BOUND: usize = 64 << 20;
    let (mut taken, mut dropped_in_a_row) = (0, 0);
    while dropped_in_a_row < 100 {
        match carrier.try_send(&vec![4; LENGTH], LENGTH) {
            Ok(()) => (taken, dropped_in_a_row) = (taken + 1, 0),
            Err(Dropped::Full) => {
                dropped_in_a_row += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(taken * LENGTH < BOUND, "someone remembers it all");
    }
    assert!(carrier.dropped() >= 100);

    // The control plane of the peer is stuck as well, which is what a full mailbox means; but it comes back.
    let mut arrived = 0;
    while arrived < taken {
        arrived += frames(&mut b).await.len();
    }
    a.request(b.peer, Protocol::Sync, 1, b"alive?").await;
    assert_eq!(b.requested().await.2, b"alive?");
}

#[tokio::test]
async fn the_carrier_ends_with_its_connection() {
    let (mut a, mut b) = members().await;
    let carrier = a.carrier(b.peer).await;
    b.carrier(a.peer).await;
    b.stop().await;
    a.wait("the end of the connection", |event| match event {
        Event::ConnectionClosed { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(carrier.try_send(&[4], 1), Err(Dropped::Closed));
}
