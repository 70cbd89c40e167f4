//! Requests and answers that could be read in two ways, or without end.

use super::*;

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    for sent in [
        // Two lengths.
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3\r\n\r\nabc",
        // Codings that some read and others do not.
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        // Lines that some join and others split.
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n X-Hive-Name: admin\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n X-A: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A : 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\rX-Hive-Name: admin\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        // Hosts.
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
        // What is not for a server.
        "CONNECT x:22 HTTP/1.1\r\nHost: x:22\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let stand = Stand::new(Kind::Http, Limits::default()).await;
        let mut client = stand.client(A).await;
        client.send(sent).await;
        let answer = client.head_or_end().await;
        assert!(
            answer.is_empty() || status(&answer) == 400,
            "{sent:?}: {answer}"
        );
        client.0.shutdown().await.unwrap();
        client.rest().await;
        let asked = stand.backend.accept();
        tokio::select! {
            biased;
            _ = asked => panic!("the backend was asked: {sent:?}"),
            () = std::future::ready(()) => {}
        }
    }
}

/// A front server that goes by one length and a backend that goes by the other would disagree about where the next request
/// begins, and that one would be the attacker's, without our headers. RFC 9112 §6.3: the coding counts, and the connection
/// is of no use afterwards.
#[tokio::test]
async fn two_framings_of_one_request_do_not_smuggle_another_one_past_us() {
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
    ] {
        let stand = Stand::new(Kind::Http, Limits::default()).await;
        let mut client = stand.client(A).await;
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\nX-Hive-Name: admin\r\n\r\n";
        let sent = format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n0\r\n\r\n{smuggled}");
        client.send(&sent).await;
        let mut backend = stand.accept().await;
        let head = backend.head().await;
        assert_eq!(values(&head, "transfer-encoding"), ["chunked"], "{head}");
        assert!(values(&head, "content-length").is_empty(), "{head}");
        assert_eq!(backend.until("0\r\n\r\n").await, "0\r\n\r\n");
        backend
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
        let answer = client.rest().await;
        assert!(answer.ends_with("ok"), "{answer}");
        assert_eq!(values(&answer, "connection"), ["close"], "{answer}");
        drop((client, stand));
        assert_eq!(backend.rest().await, "", "nothing follows");
    }
}

#[tokio::test]
async fn a_second_request_on_the_same_connection_gets_our_headers_too() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nX-Hive-Name: admin\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    for path in ["/1", "/2"] {
        let head = backend.head().await;
        assert!(head.starts_with(&format!("GET {path} ")), "{head}");
        assert_eq!(values(&head, "x-hive-name"), ["a"], "{head}");
        backend
            .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert_eq!(status(&client.head().await), 200);
    }
}

/// Whoever speaks HTTP inside a tunnel says there who it is.
#[tokio::test]
async fn no_tunnel_is_opened_for_another_kind_of_http() {
    for protocol in ["h2c", "H2C, websocket", "TLS/1.2", "HTTP/2.0"] {
        let stand = Stand::new(Kind::Http, Limits::default()).await;
        let mut client = stand.client(A).await;
        let sent = format!(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        );
        client.send(&sent).await;
        let mut backend = stand.accept().await;
        let head = backend.head().await;
        for name in ["upgrade", "http2-settings", "connection"] {
            assert!(values(&head, name).is_empty(), "{head}");
        }
        // Even if it upgrades all the same.
        backend
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
            .await;
        assert_eq!(status(&client.head().await), 502);
    }
}

/// A backend that never ends its head, the size of a chunk, or its trailers, costs no more than a buffer.
#[tokio::test]
async fn a_backend_without_end_is_given_up() {
    let line = "X-Filler: ".to_owned() + &"a".repeat(1000) + "\r\n";
    for (begin, filler) in [
        ("HTTP/1.1 200 OK\r\n", line.as_str()),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            &"x".repeat(1000),
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "fffffffff",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            &line,
        ),
        ("HTTP/1.1 200 OK\r\nX-Long: ", &"a".repeat(1000)),
        ("HTTP/1.", "1"),
    ] {
        let stand = Stand::new(Kind::Http, Limits::default()).await;
        let mut client = stand.client(A).await;
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await;
        let mut backend = stand.accept().await;
        backend.head().await;
        backend.send(begin).await;
        // Until the front hangs up.
        let mut sent = 0;
        let pouring = async {
            while backend.0.write_all(filler.as_bytes()).await.is_ok() {
                sent += filler.len();
                tokio::task::yield_now().await;
            }
        };
        within(pouring).await;
        // What the system's own buffers take is on top.
        assert!(sent < 8 << 20, "{sent} bytes of {begin:?}");
        let answer = client.rest().await;
        assert!(
            !answer.ends_with("0\r\n\r\n"),
            "a broken answer looks whole: {answer}"
        );
    }
}
