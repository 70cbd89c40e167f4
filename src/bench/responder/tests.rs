//! Sessions on the loopback address, which stands for the overlay's.

use std::net::Ipv6Addr;

use super::*;
use crate::bench::wire::Total;

const HOME: Ipv6Addr = Ipv6Addr::LOCALHOST;
/// Nobody here has this address.
const ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// Only ends a test that has failed already.
const PATIENCE: Duration = Duration::from_secs(30);

fn ask(responder: &Responder, asker: Ipv6Addr) -> Answer {
    responder.answer(&Ask { seconds: 1 }.encode(), HOME, asker)
}

fn opened(responder: &Responder, asker: Ipv6Addr) -> Opened {
    match ask(responder, asker) {
        Answer::Opened(opened) => opened,
        other => panic!("{other:?}"),
    }
}

async fn stream(place: &Opened, ticket: Ticket, errand: Errand) -> TcpStream {
    let mut stream = TcpStream::connect((HOME, place.tcp)).await.unwrap();
    let seconds = 1;
    let header = Header {
        ticket,
        errand,
        seconds,
    };
    stream.write_all(&header.encode()).await.unwrap();
    stream
}

/// Whether the other end closes the stream without having sent anything.
async fn is_closed(mut stream: TcpStream) -> bool {
    let read = timeout(PATIENCE, stream.read(&mut [0; 16])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// Whether nobody listens at a port any more, within [`PATIENCE`].
async fn closes(port: u16) -> bool {
    let gone = async {
        while TcpStream::connect((HOME, port)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.is_ok()
}

#[tokio::test]
async fn two_are_served_at_once_and_a_third_when_one_has_ended() {
    let responder = Responder::default();
    let (first, _second) = (opened(&responder, HOME), opened(&responder, HOME));
    assert_eq!(ask(&responder, HOME), Answer::Busy);
    let held = stream(&first, first.ticket, Errand::Hold).await;
    assert_eq!(ask(&responder, HOME), Answer::Busy);
    drop(held);
    assert!(closes(first.tcp).await);
    let free = async {
        while ask(&responder, HOME) == Answer::Busy {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, free).await.unwrap();
}

#[tokio::test]
async fn what_is_not_understood_opens_nothing() {
    let responder = Responder::default();
    for wrong in [&b""[..], &[1, 0], &[9, 9, 9]] {
        let answer = responder.answer(wrong, HOME, HOME);
        assert_eq!(answer, Answer::NotUnderstood);
    }
    let answer = responder.answer(&Ask { seconds: 1 }.encode(), ELSEWHERE, HOME);
    assert_eq!(answer, Answer::Unable, "the address is not ours");
    assert_eq!(responder.free.available_permits(), SESSIONS);
}

/// Somebody finds the port, perhaps even knows the ticket, but is not the member it was opened for.
#[tokio::test]
async fn only_the_asker_is_served() {
    let responder = Responder::default();
    let place = opened(&responder, ELSEWHERE);
    let held = stream(&place, place.ticket, Errand::Hold).await;
    for errand in [Errand::Download, Errand::Upload] {
        assert!(is_closed(stream(&place, place.ticket, errand).await).await);
    }
    assert!(is_closed(held).await);

    let bind = |ip: [u8; 4]| UdpSocket::bind((IpAddr::from(ip), 0));
    let [ours, asker, stranger] = [1, 2, 3].map(|last| bind([127, 0, 0, last]));
    let (ours, asker, stranger) = tokio::try_join!(ours, asker, stranger).unwrap();
    let there = ours.local_addr().unwrap();
    let datagram = Echo {
        ticket: place.ticket,
        number: 1,
    }
    .encode();
    stranger.send_to(&datagram, there).await.unwrap();
    asker.send_to(&datagram, there).await.unwrap();
    let ip = asker.local_addr().unwrap().ip();
    let mut back = [0; Echo::LENGTH];
    tokio::select! {
        ended = echo(&ours, ip, place.ticket) => panic!("{ended:?}"),
        came = timeout(PATIENCE, asker.recv(&mut back)) => assert_eq!(came.unwrap().unwrap(), back.len()),
    }
    // Its datagram was the first, so its answer would be here.
    let nothing = stranger.try_recv(&mut back).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

/// Another program on the asker's machine has the right address, but was not told the ticket.
#[tokio::test]
async fn nobody_is_served_without_the_ticket() {
    let responder = Responder::default();
    let place = opened(&responder, HOME);
    let guess = Ticket([0; 16]);
    assert!(is_closed(stream(&place, guess, Errand::Hold).await).await);
    let _held = stream(&place, place.ticket, Errand::Hold).await;
    assert!(is_closed(stream(&place, guess, Errand::Download).await).await);

    let socket = UdpSocket::bind((HOME, 0)).await.unwrap();
    socket.connect((HOME, place.udp)).await.unwrap();
    let echo = |ticket, number| Echo { ticket, number }.encode();
    let longer = [&echo(place.ticket, 2)[..], &[0]].concat();
    for refused in [&echo(guess, 1)[..], &longer, b"", &[0; 1400]] {
        socket.send(refused).await.unwrap();
    }
    socket.send(&echo(place.ticket, 3)).await.unwrap();
    let mut datagram = [0; 2000];
    let received = timeout(PATIENCE, socket.recv(&mut datagram)).await;
    let length = received.unwrap().unwrap();
    assert_eq!(&datagram[..length], &echo(place.ticket, 3));
}

#[tokio::test]
async fn an_upload_is_counted_until_its_window_ends() {
    let responder = Responder::default();
    let place = opened(&responder, HOME);
    let _held = stream(&place, place.ticket, Errand::Hold).await;
    let mut upload = stream(&place, place.ticket, Errand::Upload).await;
    upload.write_all(&[0; 1000]).await.unwrap();
    let mut last = Total::default();
    let mut bytes = [0; Total::LENGTH];
    while timeout(PATIENCE, upload.read_exact(&mut bytes))
        .await
        .unwrap()
        .is_ok()
    {
        last = Total::decode(bytes);
        if last.elapsed >= Duration::from_secs(1) {
            break;
        }
    }
    assert_eq!(last.bytes, 1000);
    assert!(last.elapsed >= Duration::from_secs(1), "{last:?}");
}
