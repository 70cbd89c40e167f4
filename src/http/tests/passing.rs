//! What passes through as it is.

use super::*;

const ASK: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// The backend sends each event only when the client has the one before.
#[tokio::test]
async fn a_stream_is_not_held_back() {
    let stand = Stand::new(Kind::OpenAi, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        .await;
    let mut backend = stand.accept().await;
    backend.until("{}").await;
    backend.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    assert_eq!(status(&client.head().await), 200);
    for number in 0..100 {
        let event = format!("data: {{\"n\":{number:03}}}\n\n");
        backend
            .send(&format!("{:x}\r\n{event}\r\n", event.len()))
            .await;
        client.until(&format!("{event}\r\n")).await;
    }
    backend.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
}

/// The client sends each piece only when the backend has the one before.
#[tokio::test]
async fn an_upload_is_not_held_back() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    backend.head().await;
    for number in 0..100 {
        let piece = format!("3\r\n{number:03}\r\n");
        client.send(&piece).await;
        assert_eq!(backend.until(&piece).await, piece);
    }
    client.send("0\r\n\r\n").await;
    backend.until("0\r\n\r\n").await;
}

/// Nobody reads, so nobody can write without end: what lies between is a few buffers.
#[tokio::test]
async fn who_does_not_read_stops_the_other_end() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    backend.head().await;
    backend.send("HTTP/1.1 200 OK\r\n\r\n").await;
    let piece = vec![b'z'; 64 * 1024];
    let mut written = 0;
    // It stops when a second brings nothing: that may come late on a busy machine, but it comes.
    while let Ok(wrote) =
        tokio::time::timeout(Duration::from_secs(1), backend.0.write(&piece)).await
    {
        written += wrote.unwrap();
        assert!(written < 64 << 20, "{written} bytes lie between");
    }
    // All of it is still there.
    backend.0.shutdown().await.unwrap();
    client.head().await;
    let body = client.rest().await;
    assert_eq!(body.bytes().filter(|byte| *byte == b'z').count(), written);
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    let body: Vec<u8> = (0..8 << 20)
        .map(|number: u32| (number % 251) as u8)
        .collect();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (mut reading, mut writing) = client.0.split();
    let sending = async {
        writing.write_all(head.as_bytes()).await.unwrap();
        writing.write_all(&body).await.unwrap();
    };
    let echo = async {
        let mut backend = stand.accept().await;
        let asked = backend.head().await;
        assert_eq!(values(&asked, "content-length"), [body.len().to_string()]);
        let mut read = vec![0; body.len()];
        backend.0.read_exact(&mut read).await.unwrap();
        backend
            .send(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                read.len()
            ))
            .await;
        backend.0.write_all(&read).await.unwrap();
    };
    let receiving = async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reading.read_u8().await.unwrap());
        }
        let mut read = vec![0; body.len()];
        reading.read_exact(&mut read).await.unwrap();
        assert!(read == body);
    };
    within(async { tokio::join!(sending, echo, receiving) }).await;
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_until_both_ends_are_done() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    let head = backend.head().await;
    assert_eq!(values(&head, "upgrade"), ["websocket"]);
    assert_eq!(values(&head, "connection"), ["Upgrade"]);
    assert_eq!(values(&head, "sec-websocket-key"), ["k"]);
    assert_eq!(values(&head, "x-hive-name"), ["a"]);
    // Its first words come along with the answer.
    backend
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\n\r\nhello")
        .await;
    let head = client.head().await;
    assert_eq!(status(&head), 101);
    assert_eq!(values(&head, "upgrade"), ["websocket"]);
    assert_eq!(values(&head, "sec-websocket-accept"), ["s"]);
    assert_eq!(client.until("hello").await, "hello");
    for _ in 0..3 {
        client.send("\u{81}ping").await;
        backend.until("ping").await;
        backend.send("\u{81}pong").await;
        client.until("pong").await;
    }
    // One direction ends, the other goes on.
    client.0.shutdown().await.unwrap();
    assert_eq!(backend.rest().await, "");
    backend.send("bye").await;
    drop(backend);
    assert_eq!(client.rest().await, "bye");
}

#[tokio::test]
async fn a_backend_that_refuses_the_upgrade_opens_no_tunnel() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    backend.head().await;
    backend
        .send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(status(&client.head().await), 426);
    client
        .send("GET /2 HTTP/1.1\r\nHost: x\r\nX-Hive-Name: admin\r\n\r\n")
        .await;
    let (_backend, head) = stand.next(backend).await;
    assert_eq!(values(&head, "x-hive-name"), ["a"]);
}

#[tokio::test]
async fn a_client_waits_for_the_backend_to_want_its_body() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    let ask = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.send(ask).await;
    let mut backend = stand.accept().await;
    let head = backend.head().await;
    assert_eq!(values(&head, "expect"), ["100-continue"]);
    backend.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    backend.until("body").await;
    backend.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(status(&client.head().await), 204);

    // Who is refused is not told to go on.
    let mut client = stand.client(A).await;
    client.send(ask).await;
    let (mut backend, _) = stand.next(backend).await;
    backend
        .send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(status(&client.head().await), 413);
}

#[tokio::test]
async fn a_head_alone_has_the_length_of_what_it_stands_for() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut backend = stand.accept().await;
    assert!(backend.head().await.starts_with("HEAD / "));
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-Own: 1\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(values(&head, "content-length"), ["12345"]);
    assert_eq!(values(&head, "x-own"), ["1"]);
    // And the connection is good for more.
    client.send(ASK).await;
    assert!(stand.next(backend).await.1.starts_with("GET / "));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    let head = backend.head().await;
    assert_eq!(values(&head, "te"), ["trailers"]);
    backend.until("x-sum: 1\r\n\r\n").await;
    backend
        .send("HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\nX-Sum: 2\r\n\r\n")
        .await;
    client.head().await;
    assert_eq!(
        client.until("\r\n\r\n").await,
        "1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n"
    );
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served_too() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let mut backend = stand.accept().await;
    let head = backend.head().await;
    assert_eq!(
        values(&head, "host").len(),
        1,
        "HTTP/1.1 asks for it: {head}"
    );
    backend
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
        .await;
    let answer = client.rest().await;
    assert!(answer.ends_with("\r\n\r\nok"), "not chunked: {answer}");
}

/// `nc -N` and its kind: everything is said, and the answer is waited for.
#[tokio::test]
async fn a_client_that_has_said_everything_gets_its_answer() {
    for ask in [
        ASK,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let stand = Stand::new(Kind::Http, Limits::default()).await;
        let mut client = stand.client(A).await;
        client.send(ask).await;
        client.0.shutdown().await.unwrap();
        let mut backend = stand.accept().await;
        // The backend sees that too, after the whole request.
        let asked = backend.rest().await;
        let body = ask.split_once("\r\n\r\n").unwrap().1;
        assert!(asked.ends_with(&format!("\r\n\r\n{body}")), "{asked}");
        backend
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        let answer = client.rest().await;
        assert!(answer.ends_with("\r\n\r\nok"), "{ask:?}: {answer}");
    }
}

#[tokio::test]
async fn a_backend_hears_at_once_that_its_client_hung_up() {
    let sent = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    let half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\nbody";
    let begun = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    for (ask, answer) in [(sent, ""), (sent, begun), (half, ""), (half, begun)] {
        let stand = Stand::new(Kind::OpenAi, Limits::default()).await;
        let mut client = stand.client(A).await;
        client.send(ask).await;
        let mut backend = stand.accept().await;
        backend.until("body").await;
        backend.send(answer).await;
        if !answer.is_empty() {
            client.until("data: 1\n\n").await;
        }
        drop(client);
        // It says nothing, and sees the end.
        assert_eq!(backend.rest().await, "", "{ask:?} {answer:?}");
        drop(backend);
        let is_idle = async {
            while stand.front.load().active > 0 {
                tokio::task::yield_now().await;
            }
        };
        within(is_idle).await;
    }
}

/// A client that aborts, not one that may still read: nothing is worth being finished.
#[tokio::test]
async fn a_reset_ends_the_request_however_long_the_backend_would_go_on() {
    let stand = Stand::new(Kind::OpenAi, Limits::default()).await;
    let mut client = stand.client(A).await;
    client.send(ASK).await;
    let mut backend = stand.accept().await;
    backend.head().await;
    backend
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        .await;
    client.head().await;
    drop(client);
    let going_on = async {
        while backend.0.write_all(b"data: 1\n\n").await.is_ok() {
            tokio::task::yield_now().await
        }
    };
    within(going_on).await;
}

#[tokio::test]
async fn connections_to_the_backend_are_used_again() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut backend = None;
    for _ in 0..5 {
        // Each from a connection of its own.
        let mut client = stand.client(A).await;
        client.send(ASK).await;
        let wire = match backend.take() {
            None => stand.accept().await,
            Some(kept) => kept,
        };
        let wire = backend.insert(wire);
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        client.until("ok").await;
        drop(client);
        // What was answered is put back before anybody asks again.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_meets_a_closing_connection_is_sent_again_if_it_does_no_harm() {
    for (again, is_safe) in [
        (ASK, true),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
            false,
        ),
    ] {
        let stand = Stand::new(Kind::Http, Limits::default()).await;
        let mut client = stand.client(A).await;
        client.send(ASK).await;
        let mut backend = stand.accept().await;
        backend.head().await;
        backend
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        client.until("ok").await;
        client.send(again).await;
        // It has read the request, and hangs up all the same.
        backend.head().await;
        drop(backend);
        if is_safe {
            let mut backend = stand.accept().await;
            backend.head().await;
            backend.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
        let expected = if is_safe { 204 } else { 502 };
        assert_eq!(status(&client.head().await), expected, "{again:?}");
    }
}

#[tokio::test]
async fn a_backend_that_is_down_is_named() {
    for (kind, content) in [
        (Kind::Http, "text/plain; charset=utf-8"),
        (Kind::OpenAi, "application/json"),
    ] {
        let Stand {
            front,
            ledger,
            snapshots: _snapshots,
            backend,
        } = Stand::new(kind, Limits::default()).await;
        let target = backend.local_addr().unwrap();
        drop(backend);
        let stand = Stand {
            front,
            ledger,
            snapshots: _snapshots,
            backend: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        assert_ne!(stand.backend.local_addr().unwrap(), target);
        let mut client = stand.client(A).await;
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        let answer = client.rest().await;
        assert_eq!(status(&answer), 502);
        assert_eq!(values(&answer, "content-type"), [content]);
        assert!(
            answer
                .contains("the service 'llm' of this node gives no answer: nothing answers there"),
            "{answer}"
        );
        within(stand.front.unreachable()).await;
    }
}

#[tokio::test]
async fn a_backend_that_says_nothing_is_given_up_but_a_stream_may_rest() {
    let limits = Limits {
        head_timeout_s: 1,
        ..Limits::default()
    };
    let stand = Stand::new(Kind::Http, limits).await;
    let mut streaming = stand.client(A).await;
    streaming.send(ASK).await;
    let mut stream = stand.accept().await;
    stream.head().await;
    stream.send("HTTP/1.1 200 OK\r\n\r\n").await;
    streaming.head().await;

    let mut client = stand.client(A).await;
    client.send(ASK).await;
    let mut backend = stand.accept().await;
    backend.head().await;
    assert_eq!(status(&client.head().await), 504);
    assert_eq!(backend.rest().await, "", "and the backend knows");

    // What was over for the one in that time is not for the other.
    stream.send("late").await;
    streaming.until("late\r\n").await;
}

/// The time a front adds before the first byte, on loopback. It prints, and judges nothing.
#[tokio::test]
#[ignore = "measures: cargo test --lib -- --ignored --nocapture time_to_first_byte"]
async fn time_to_first_byte() {
    async fn median(mut once: impl AsyncFnMut() -> Duration) -> Duration {
        let mut times = Vec::new();
        for _ in 0..2000 {
            times.push(once().await);
        }
        times.sort();
        times[times.len() / 2]
    }
    const ASK: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"model\":\"llm\"}";
    let stand = Stand::new(Kind::OpenAi, Limits::default()).await;
    let target = stand.backend.local_addr().unwrap();
    let Stand {
        front,
        ledger,
        snapshots,
        backend,
    } = stand;
    tokio::spawn(async move {
        while let Ok((stream, _)) = backend.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut wire = Wire(stream);
                loop {
                    let head = wire.head_or_end().await;
                    if head.is_empty() {
                        return;
                    }
                    wire.0.read_exact(&mut [0; 15]).await.unwrap();
                    let _ = wire.0.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n").await;
                }
            });
        }
    });
    let stand = Stand {
        front,
        ledger,
        snapshots,
        backend: TcpListener::bind("127.0.0.1:0").await.unwrap(),
    };
    let mut direct = Wire(TcpStream::connect(target).await.unwrap());
    direct.0.set_nodelay(true).unwrap();
    let mut fronted = stand.client("10.77.0.1:4").await;
    fronted.0.set_nodelay(true).unwrap();
    let once = async |wire: &mut Wire| {
        let began = Instant::now();
        wire.send(ASK).await;
        let mut first = [0; 1];
        wire.0.read_exact(&mut first).await.unwrap();
        let first = began.elapsed();
        wire.until("0\r\n\r\n").await;
        first
    };
    let direct = median(async || once(&mut direct).await).await;
    let fronted = median(async || once(&mut fronted).await).await;
    println!(
        "first byte: direct {direct:?}, through the front {fronted:?}, added {:?}",
        fronted.saturating_sub(direct)
    );
}
