//! Transports on the loopback interface, with real sockets and the real quinn.

mod lab;
mod punching;

use std::{future::poll_fn, sync::atomic::Ordering, time::Duration};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{
    Swarm,
    core::muxing::{StreamMuxerBox, StreamMuxerEvent, StreamMuxerExt},
    multiaddr::Protocol,
    ping,
    swarm::SwarmEvent,
};

use self::lab::*;
use super::*;

#[tokio::test]
async fn both_ends_know_each_other_and_a_stream_carries_a_mebibyte_each_way() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (near, far) = stream(&mut dialed, &mut accepted).await;
    exchange(near, far).await;
    let (far, near) = stream(&mut accepted, &mut dialed).await;
    exchange(near, far).await;
}

#[tokio::test]
async fn a_stream_that_is_closed_one_way_still_carries_the_other() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (mut near, mut far) = stream(&mut dialed, &mut accepted).await;
    soon(async {
        near.write_all(b"question").await.unwrap();
        near.close().await.unwrap();
        near.close().await.expect("closing twice is no error");
        near.write_all(b"more").await.unwrap_err();
        let mut received = Vec::new();
        far.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"question");

        far.write_all(b"answer").await.unwrap();
        far.close().await.unwrap();
        drop(far);
        received.clear();
        near.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"answer");
    })
    .await;
}

#[tokio::test]
async fn a_stream_dropped_half_way_does_not_look_complete() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (mut near, mut far) = stream(&mut dialed, &mut accepted).await;
    soon(async {
        near.write_all(b"half a mess").await.unwrap();
        drop(near);
        let error = far.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        // And it is not listened to any more.
        while far.write(b"hello?").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_arrives_although_its_stream_is_dropped_when_the_question_has_ended() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (mut near, mut far) = stream(&mut dialed, &mut accepted).await;
    soon(async {
        near.write_all(b"what?").await.unwrap();
        near.close().await.unwrap();
        far.read_to_end(&mut Vec::new()).await.unwrap();
        far.write_all(b"that").await.unwrap();
        drop(far);
        let mut answer = Vec::new();
        near.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"that");
    })
    .await;
}

#[tokio::test]
async fn somebody_else_than_the_expected_peer_is_refused() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let stranger = there.address().with(Protocol::P2p(PeerId::random()));
    let dial = here.dial(stranger);
    let answer = async { there.incoming().await.await };
    let (dialed, accepted) = soon(async { tokio::join!(dial, answer) }).await;
    assert!(matches!(dialed, Err(Error::Connection(_))), "{dialed:?}");
    // TLS 1.3 lets a server finish before it hears of a refusal, but not for long.
    if let Ok((_, mut muxer)) = accepted {
        lost(&mut muxer).await;
    }

    let expected = there.address().with(Protocol::P2p(there.side.peer));
    connect_by(&mut here, expected, &mut there).await;
}

/// One port for both: whatever WireGuard sends during a transfer comes out on WireGuard's side, all of it, and
/// quinn gets none. That quinn's own datagrams never look like WireGuard's shows in the transfer, and in the count.
#[tokio::test]
async fn wireguard_and_quic_share_the_port_without_ever_meeting() {
    const DATAGRAMS: usize = 400;
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (near, far) = stream(&mut dialed, &mut accepted).await;

    let wireguard = async |from: &Side, to: SocketAddr| {
        for index in 0..DATAGRAMS {
            let mut datagram = vec![0; 32 + index];
            datagram[0] = 1 + (index % 4) as u8;
            datagram[4..8].copy_from_slice(&(index as u32).to_le_bytes());
            from.send(to, &datagram);
            tokio::task::yield_now().await;
        }
    };
    let (here_at, there_at) = (here.side.address, there.side.address);
    tokio::join!(
        exchange(near, far),
        wireguard(&here.side, there_at),
        wireguard(&there.side, here_at),
    );
    for side in [&mut here.side, &mut there.side] {
        for index in 0..DATAGRAMS {
            let datagram = soon(side.wireguard.recv()).await.unwrap();
            assert_eq!(datagram.len(), 32 + index, "lost or out of order");
            assert_eq!(datagram[4..8], (index as u32).to_le_bytes());
        }
        assert!(
            side.wireguard.try_recv().is_err(),
            "QUIC looked like WireGuard"
        );
        assert!(side.counts.quic.load(Ordering::Relaxed) > 0);
    }
}

/// The peer's NAT reboots and maps it to another port. The listener follows, and libp2p is told.
#[tokio::test]
async fn a_connection_survives_the_reboot_of_the_dialers_nat() {
    let config = Config {
        keep_alive: Duration::from_millis(100),
        ..Config::default()
    };
    let setup = || Setup {
        config,
        ..Setup::default()
    };
    let (mut here, mut there) = (Node::with(setup()), Node::listening(setup()).await);
    let nat = Nat::to(there.side.address).await;
    let way = address::multiaddr(nat.inside);
    let (mut dialed, mut accepted) = connect_by(&mut here, way, &mut there).await;
    let before = accepted.remote;
    let (near, far) = stream(&mut dialed, &mut accepted).await;

    nat.reboot();
    let StreamMuxerEvent::AddressChange(moved) =
        soon(poll_fn(|cx| accepted.poll_unpin(cx))).await.unwrap();
    let moved = QuicAddress::parse(&moved).unwrap().socket;
    assert_ne!(moved, before);
    exchange(near, far).await;
    let (far, near) = stream(&mut accepted, &mut dialed).await;
    exchange(near, far).await;
}

/// After a restart nothing of the old connections is left but the keys: they suffice to tell the peers.
#[tokio::test]
async fn a_restarted_node_resets_the_connections_of_its_former_life() {
    let config = Config {
        keep_alive: Duration::from_millis(100),
        ..Config::default()
    };
    let setup = Setup {
        config,
        ..Setup::default()
    };
    let mut here = Node::with(Setup {
        config,
        ..Setup::default()
    });
    let mut there = Node::listening(setup.clone()).await;
    let nat = Nat::to(there.side.address).await;
    let way = address::multiaddr(nat.inside);
    let (mut dialed, _accepted) = connect_by(&mut here, way, &mut there).await;

    let reborn = Node::with(setup);
    nat.retarget(reborn.side.address);
    let error = lost(&mut dialed).await;
    let reset = matches!(error, Error::Connection(quinn::ConnectionError::Reset));
    assert!(reset, "{error}");
}

#[tokio::test]
async fn a_full_inbox_loses_datagrams_and_the_connection_recovers() {
    let small = Setup {
        inbox: 4,
        ..Setup::default()
    };
    let (mut here, mut there) = (Node::new(), Node::listening(small).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (near, far) = stream(&mut dialed, &mut accepted).await;
    let noise = QuicDatagram {
        from: here.side.address,
        local_ip: None,
        ecn: None,
        stride: 0,
        bytes: vec![0x40; 100],
    };
    let flood = async {
        // Within one turn of this single-threaded runtime, so nobody empties the inbox.
        assert!((0..6).any(|_| !there.side.inbox.push(noise.clone())));
    };
    tokio::join!(exchange(near, far), flood);
    assert!(there.side.counts.lost.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn nothing_that_is_pushed_into_the_inbox_stops_the_endpoint() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    for (stride, length) in [
        (0, 0),
        (0, 9),
        (1, 0),
        (1, 200),
        (7, 100_000),
        (200_000, 200_000),
    ] {
        let datagram = QuicDatagram {
            from: here.side.address,
            local_ip: None,
            ecn: None,
            stride,
            bytes: vec![0xc3; length],
        };
        assert!(there.side.inbox.push(datagram));
    }
    connect(&mut here, &mut there).await;
}

#[tokio::test]
async fn dropping_the_muxer_closes_the_connection_though_streams_are_left() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    let (mut near, far) = stream(&mut dialed, &mut accepted).await;
    drop(accepted);
    let error = lost(&mut dialed).await;
    let closed = matches!(
        error,
        Error::Connection(quinn::ConnectionError::ApplicationClosed(_))
    );
    assert!(closed, "{error}");
    soon(near.read(&mut [0])).await.unwrap_err();
    drop(far);
}

#[tokio::test]
async fn dropping_the_transport_ends_everything_it_started() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let (mut dialed, accepted) = connect(&mut here, &mut there).await;
    let unanswered = there.dial("/ip4/127.0.0.1/udp/9/quic-v1".parse().unwrap());
    let Node { transport, side } = there;
    drop(transport);
    lost(&mut dialed).await;
    drop((accepted, unanswered));
    side.socket_released().await;
    assert!(!side.inbox.push(QuicDatagram {
        from: side.address,
        local_ip: None,
        ecn: None,
        stride: 1,
        bytes: vec![0],
    }));
}

#[tokio::test]
async fn without_a_listener_nobody_comes_and_whoever_is_there_stays() {
    let config = Config {
        handshake_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let mut stranger = Node::with(Setup {
        config,
        ..Setup::default()
    });
    let (mut here, mut there) = (Node::new(), Node::new());
    let dial = stranger.dial(there.address());
    assert!(matches!(soon(dial).await, Err(Error::HandshakeTimedOut(_))));

    let listener = there.listen().await;
    let (mut dialed, mut accepted) = connect(&mut here, &mut there).await;
    assert!(there.transport.remove_listener(listener));
    assert!(!there.transport.remove_listener(listener));
    let closed = there.event().await;
    assert!(matches!(
        closed,
        Event::ListenerClosed { reason: Ok(()), .. }
    ));
    let dial = stranger.dial(there.address());
    assert!(matches!(soon(dial).await, Err(Error::HandshakeTimedOut(_))));
    let (near, far) = stream(&mut dialed, &mut accepted).await;
    exchange(near, far).await;

    there.listen().await;
    connect(&mut here, &mut there).await;
}

#[tokio::test]
async fn a_crowd_of_unfinished_handshakes_makes_the_next_prove_its_address() {
    let (mut here, mut there) = (Node::new(), Node::listening(Setup::default()).await);
    let mut crowd = Vec::new();
    for _ in 0..32 {
        let dial = here.dial(there.address());
        let (dial, upgrade) = futures::future::join(dial, there.incoming()).await;
        crowd.push((dial.unwrap(), upgrade));
    }
    assert_eq!(here.side.counts.retries.load(Ordering::Relaxed), 0);
    connect(&mut here, &mut there).await;
    assert!(here.side.counts.retries.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn listening_is_possible_where_the_socket_is_bound_and_nowhere_else() {
    let mut node = Node::new();
    let port = node.side.address.port();
    let other = if port == 1 { 2 } else { 1 };
    for (address, refused) in [
        (
            format!("/ip4/127.0.0.1/udp/{other}/quic-v1"),
            "NotBoundThere",
        ),
        ("/ip4/192.0.2.1/udp/0/quic-v1".to_owned(), "NotBoundThere"),
        ("/ip6/::/udp/0/quic-v1".to_owned(), "NoSocket"),
        ("/ip4/127.0.0.1/tcp/0".to_owned(), "NotSupported"),
        (
            format!("/ip4/127.0.0.1/udp/0/quic-v1/p2p/{}", node.side.peer),
            "NotSupported",
        ),
    ] {
        let error = node
            .transport
            .listen_on(ListenerId::next(), address.parse().unwrap())
            .unwrap_err();
        assert!(
            format!("{error:?}").contains(refused),
            "{address}: {error:?}"
        );
    }
    node.listen().await;
    let again = node.transport.listen_on(ListenerId::next(), node.address());
    assert!(matches!(
        again,
        Err(TransportError::Other(Error::AlreadyListening(_)))
    ));
}

#[tokio::test]
async fn an_unspecified_address_is_reported_as_each_address_of_the_machine() {
    let udp = hivevpn_platform::udp::UdpSocket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = udp.local_addr().unwrap().port();
    let mut node = Node::on(udp, Setup::default());
    node.transport
        .listen_on(
            ListenerId::next(),
            format!("/ip4/0.0.0.0/udp/{port}/quic-v1").parse().unwrap(),
        )
        .unwrap();
    let loopback = format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
        .parse()
        .unwrap();
    loop {
        let Event::NewAddress { listen_addr, .. } = node.event().await else {
            panic!("not an address");
        };
        if listen_addr == loopback {
            break;
        }
    }
}

#[tokio::test]
async fn two_sockets_of_one_family_are_one_too_many() {
    let socket = || {
        let udp = hivevpn_platform::udp::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        SharedSocket::new(udp).0
    };
    let keypair = Keypair::generate_ed25519();
    let error = QuicTransport::new(&keypair, vec![socket(), socket()]).unwrap_err();
    assert!(matches!(error, Error::FamilyTwice(_, _)));
}

#[test]
fn without_a_runtime_there_is_no_transport() {
    let keypair = Keypair::generate_ed25519();
    QuicTransport::new(&keypair, Vec::new()).unwrap_err();
}

/// An idle socket is always writable, so a sender that had to wait must be let go on.
#[tokio::test]
async fn a_sender_waits_only_while_the_socket_is_congested() {
    let udp = hivevpn_platform::udp::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = Arc::new(SharedSocket::new(udp).0);
    let mut poller = Arc::clone(&socket).create_io_poller();
    for congested in [false, true, false, true] {
        socket.pretend_congestion(congested);
        soon(poll_fn(|cx| poller.as_mut().poll_writable(cx)))
            .await
            .unwrap();
        assert!(!socket.is_congested());
    }
}

#[tokio::test]
async fn two_swarms_ping_each_other() {
    let swarm = |setup: Setup| {
        let Node { transport, side } = Node::with(setup);
        let transport = transport
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
            .boxed();
        let config = libp2p::swarm::Config::with_tokio_executor();
        let behaviour = ping::Behaviour::new(ping::Config::new());
        (Swarm::new(transport, behaviour, side.peer, config), side)
    };
    let (mut here, _here) = swarm(Setup::default());
    let (mut there, side) = swarm(Setup::default());
    there.listen_on(address::multiaddr(side.address)).unwrap();
    let answering = tokio::spawn(async move {
        loop {
            there.select_next_some().await;
        }
    });
    here.dial(address::multiaddr(side.address).with(Protocol::P2p(side.peer)))
        .unwrap();
    soon(async {
        loop {
            let SwarmEvent::Behaviour(event) = here.select_next_some().await else {
                continue;
            };
            assert_eq!(event.peer, side.peer);
            event.result.expect("the peer answers");
            break;
        }
    })
    .await;
    answering.abort();
}
