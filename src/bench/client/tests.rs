//! Measurements on the loopback address, which stands for the overlay's.

use tokio::{net::TcpListener, sync::Notify};

use super::*;
use crate::bench::{
    responder::Responder,
    wire::{Answer, Ask, Ticket},
};

const HOME: Ipv6Addr = Ipv6Addr::LOCALHOST;
const PLAN: Plan = Plan {
    seconds: 1,
    streams: 2,
};

/// A place where a responder waits.
fn place() -> Place {
    let body = Ask { seconds: 1 }.encode();
    let Answer::Opened(opened) = Responder::default().answer(&body, HOME, HOME) else {
        panic!("the responder has nothing else to do");
    };
    Place {
        own: HOME,
        peer: HOME,
        tcp: opened.tcp,
        udp: opened.udp,
        ticket: opened.ticket,
    }
}

#[tokio::test]
async fn everything_is_measured_in_its_order() {
    let mut client = Client::reach(place(), PLAN).await.unwrap();
    let shown = Cell::new(Vec::new());
    let show = |progress: Progress| {
        let mut phases = shown.take();
        phases.push(progress.phase);
        phases.dedup();
        shown.set(phases);
    };
    let (figures, ended) = client.measure(std::future::pending(), show).await;
    ended.unwrap();
    let idle = figures.idle.unwrap();
    assert_eq!(idle.loss_percent, Some(0.0));
    assert!(idle.latency_ms.is_some());
    for load in [figures.up.unwrap(), figures.down.unwrap()] {
        assert!(load.seconds >= 1.0 && load.bytes > 0, "{load:?}");
        assert!(load.mbit_s > 0.0 && load.mbit_s.is_finite(), "{load:?}");
        assert!(load.echoes.latency_ms.is_some(), "{load:?}");
    }
    let all = [Phase::Idle, Phase::Upload, Phase::Download];
    assert_eq!(shown.take(), all);
}

#[tokio::test]
async fn what_was_measured_before_a_stop_is_kept() {
    let mut client = Client::reach(place(), PLAN).await.unwrap();
    let enough = Notify::new();
    let show = |progress: Progress| {
        if progress.phase == Phase::Upload && progress.mbit_s.is_some() {
            enough.notify_one();
        }
    };
    let (figures, ended) = client.measure(enough.notified(), show).await;
    assert!(matches!(ended, Err(Ended::Stopped)), "{ended:?}");
    assert!(
        figures.idle.is_some() && figures.up.is_some(),
        "{figures:?}"
    );
    assert_eq!(figures.down, None);
}

/// The peer serves the echoes and reports a total, then goes away.
#[tokio::test]
async fn what_was_measured_before_a_stream_broke_is_kept() {
    let listener = TcpListener::bind((HOME, 0)).await.unwrap();
    let socket = UdpSocket::bind((HOME, 0)).await.unwrap();
    let place = Place {
        own: HOME,
        peer: HOME,
        tcp: listener.local_addr().unwrap().port(),
        udp: socket.local_addr().unwrap().port(),
        ticket: Ticket([7; 16]),
    };
    let total = Total {
        bytes: 1000,
        elapsed: Duration::from_millis(100),
    };
    let echoes = async {
        let mut datagram = [0; 100];
        loop {
            let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
            socket.send_to(&datagram[..length], from).await.unwrap();
        }
    };
    let streams = async {
        let _held = listener.accept().await.unwrap();
        let (mut upload, _) = listener.accept().await.unwrap();
        upload.write_all(&total.encode()).await.unwrap();
        upload.shutdown().await.unwrap();
        while upload.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {}
        std::future::pending::<Infallible>().await
    };
    let plan = Plan { streams: 1, ..PLAN };
    let measure = async {
        let mut client = Client::reach(place, plan).await.unwrap();
        client.measure(std::future::pending(), |_| ()).await
    };
    let (figures, ended) = tokio::select! {
        measured = measure => measured,
        never = echoes => never,
        never = streams => match never {},
    };
    assert!(matches!(ended, Err(Ended::Broken(_))), "{ended:?}");
    let up = figures.up.unwrap();
    assert_eq!((up.bytes, up.mbit_s), (1000, 0.08));
    assert_eq!(figures.down, None);
}

#[tokio::test]
async fn a_place_where_nobody_waits_is_named() {
    let mut place = place();
    // Bound, so that nobody else gets the port, but not listening.
    let taken = TcpSocket::new_v6().unwrap();
    taken.bind(own(HOME).into()).unwrap();
    place.tcp = taken.local_addr().unwrap().port();
    let Err(error) = Client::reach(place, PLAN).await else {
        panic!("nobody listens there");
    };
    let shown = format!("{error:#}");
    assert!(shown.contains(&format!("[::1]:{}", place.tcp)), "{shown}");
}
