//! Holes, and who comes through them.

use std::time::Duration;

use libp2p::{core::Endpoint, multiaddr::Protocol};

use super::{super::*, lab::*};

fn short() -> Setup {
    Setup {
        config: Config {
            handshake_timeout: Duration::from_millis(500),
            ..Config::default()
        },
        ..Setup::default()
    }
}

fn of(node: &Node) -> Multiaddr {
    node.address().with(Protocol::P2p(node.side.peer))
}

/// Runs the transport, as the swarm does, while something else goes on. What arrives is nobody's.
async fn meanwhile<T>(node: &mut Node, work: impl Future<Output = T>) -> T {
    let idle = async {
        loop {
            if let Event::Incoming { .. } = node.event().await {
                panic!("the connection was not recognised");
            }
        }
    };
    tokio::select! {
        result = soon(work) => result,
        () = idle => unreachable!(),
    }
}

#[tokio::test]
async fn a_dialer_comes_through_the_hole_that_the_listener_punches() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let punch = there.dial_as(Endpoint::Listener, of(&here)).unwrap();
    let dial = here.dial(of(&there));
    let both = async { tokio::try_join!(dial, punch) };
    let ((peer, mut dialed), (caller, mut accepted)) = meanwhile(&mut there, both).await.unwrap();
    assert_eq!((peer, caller), (there.side.peer, here.side.peer));
    let (near, far) = stream(&mut dialed, &mut accepted).await;
    exchange(near, far).await;
}

#[tokio::test]
async fn holes_to_several_peers_are_punched_at_once() {
    let (mut one, mut two) = (Node::new(), Node::new());
    let mut there = Node::listening(Setup::default()).await;
    let to_one = there.dial_as(Endpoint::Listener, of(&one)).unwrap();
    let to_two = there.dial_as(Endpoint::Listener, of(&two)).unwrap();
    let dials = (two.dial(of(&there)), one.dial(of(&there)));
    let all = async { tokio::try_join!(to_one, to_two, dials.0, dials.1) };
    let (first, second, ..) = meanwhile(&mut there, all).await.unwrap();
    assert_eq!((first.0, second.0), (one.side.peer, two.side.peer));
}

#[tokio::test]
async fn what_is_punched_with_is_neither_wireguard_nor_quic() {
    let mut there = Node::listening(short()).await;
    let bystander = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let target = address::multiaddr(bystander.local_addr().unwrap());
    let target = target.with(Protocol::P2p(PeerId::random()));
    let punch = there.dial_as(Endpoint::Listener, target).unwrap();
    let look = async {
        for _ in 0..3 {
            let mut buffer = [0; 2000];
            let (length, from) = bystander.recv_from(&mut buffer).await.unwrap();
            assert_eq!(from, there.side.address);
            assert!((32..=64).contains(&length));
            assert_eq!(buffer[0] & 0x40, 0, "a QUIC datagram");
            assert!(!is_wireguard(&buffer));
        }
    };
    let (outcome, ()) = soon(async { tokio::join!(punch, look) }).await;
    assert!(
        matches!(outcome, Err(Error::HandshakeTimedOut(_))),
        "{outcome:?}"
    );
}

/// Whoever owns the address that was punched to, or forges it, does not get to be the peer, and does not end the
/// attempt.
#[tokio::test]
async fn somebody_else_in_the_hole_does_not_take_the_peers_place() {
    let mut there = Node::listening(short()).await;
    let mut stranger = Node::new();
    let hole = stranger.address().with(Protocol::P2p(PeerId::random()));
    let punch = there.dial_as(Endpoint::Listener, hole).unwrap();
    let dial = stranger.dial(of(&there));
    let both = async { tokio::join!(punch, dial) };
    let (outcome, intruder) = meanwhile(&mut there, both).await;
    assert!(
        matches!(outcome, Err(Error::HandshakeTimedOut(_))),
        "{outcome:?}"
    );
    let (_, mut muxer) = intruder.expect("TLS has nothing against the stranger");
    lost(&mut muxer).await;
}

#[tokio::test]
async fn one_attempt_for_one_address_and_the_next_when_it_is_over() {
    let mut there = Node::listening(Setup::default()).await;
    let somewhere = "/ip4/127.0.0.1/udp/9/quic-v1".parse::<Multiaddr>().unwrap();
    let somewhere = somewhere.with(Protocol::P2p(PeerId::random()));
    let first = there
        .dial_as(Endpoint::Listener, somewhere.clone())
        .unwrap();
    let second = there.dial_as(Endpoint::Listener, somewhere.clone());
    assert!(matches!(
        second,
        Err(TransportError::Other(Error::PunchUnderWay(_)))
    ));
    drop(first);
    assert!(there.dial_as(Endpoint::Listener, somewhere).is_ok());
}

#[tokio::test]
async fn a_dialer_is_an_ordinary_caller_when_the_attempt_is_over() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    drop(there.dial_as(Endpoint::Listener, of(&here)).unwrap());
    connect(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_hole_is_punched_for_somebody_and_from_a_listener() {
    let mut there = Node::new();
    let nobody = "/ip4/127.0.0.1/udp/9/quic-v1".parse::<Multiaddr>().unwrap();
    let refused = there.dial_as(Endpoint::Listener, nobody.clone());
    assert!(matches!(
        refused,
        Err(TransportError::Other(Error::PunchForNobody(_)))
    ));
    let somebody = nobody.with(Protocol::P2p(PeerId::random()));
    let refused = there.dial_as(Endpoint::Listener, somebody);
    assert!(matches!(
        refused,
        Err(TransportError::Other(Error::NotListening(_)))
    ));
}
