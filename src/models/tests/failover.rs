//! Servers that do not answer as they should, and the next one.

use std::io::Write;

use super::{
    ends::{CHAT, EVENTS, End, LAST, STREAMED, Server, WHOLE, chunk, message},
    *,
};

/// A running endpoint with two servers of the model `llama`; the first one is asked first.
struct Two {
    running: Running,
    first: Server,
    second: Server,
    snapshot: Snapshot,
}

impl Two {
    async fn start() -> Self {
        Self::configured(config()).await
    }

    async fn configured(config: Config) -> Self {
        let (first, second) = (
            Server::at([127, 0, 0, 2]).await,
            Server::at([127, 0, 0, 3]).await,
        );
        let (near, of_near) = first.of("near", &["llama"]);
        let (mut far, of_far) = second.of("far", &["llama"]);
        far.rtt = Some(Duration::from_secs(1));
        let snapshot = network([named("us").this(), near, far], [of_near, of_far]);
        let running = Running::configured(snapshot.clone(), config).await;
        Self {
            running,
            first,
            second,
            snapshot,
        }
    }

    async fn ask(&self, json: &str) -> End {
        let mut client = End::to(self.running.at).await;
        client.post(CHAT, json).await;
        client
    }

    /// Tells that the first node is not reached any more.
    fn lose_first(&self) {
        let mut members = Vec::clone(&self.snapshot.members);
        members[1].online = false;
        self.running.snapshots.send_replace(Snapshot {
            members: members.into(),
            ..self.snapshot.clone()
        });
    }

    /// The second server answers what the first one did not.
    async fn second_answers(&self, client: &mut End) {
        let (request, _end) = self.second.answer(&message("200 OK", "\"second\"")).await;
        assert!(request.ends_with(WHOLE), "{request}");
        let answer = client.message().await;
        assert!(answer.ends_with("\"second\""), "{answer}");
        assert!(answer.contains("x-hive-node: far"), "{answer}");
    }
}

#[tokio::test]
async fn the_next_server_answers_for_one_that_is_dead() {
    let mut two = Two::start().await;
    let address = two.first.address();
    // Somebody else has its port now, and will not listen.
    two.first = Server::at([127, 0, 0, 4]).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let mut client = two.ask(WHOLE).await;
    two.second_answers(&mut client).await;
}

#[tokio::test]
async fn the_next_server_answers_for_one_that_refuses() {
    for status in [
        "500 Oh no",
        "503 Loading model",
        "429 Too Many Requests",
        "404 Not Found",
    ] {
        let two = Two::start().await;
        let mut client = two.ask(WHOLE).await;
        two.first.answer(&message(status, "{}")).await;
        two.second_answers(&mut client).await;
    }
}

#[tokio::test]
async fn a_request_that_is_wrong_is_wrong_everywhere() {
    let two = Two::start().await;
    let mut client = two.ask(WHOLE).await;
    let wrong = message("400 Bad Request", r#"{"error":"wrong"}"#);
    two.first.answer(&wrong).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with(r#"{"error":"wrong"}"#));
}

#[tokio::test]
async fn the_next_server_answers_for_one_that_hangs() {
    let two = Two::configured(Config {
        answer_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let mut client = two.ask(WHOLE).await;
    let mut silent = two.first.accept().await;
    silent.message().await;
    two.second_answers(&mut client).await;
    assert_eq!(silent.all().await, "", "nobody waits for it any more");
}

/// A server of a member that means ill: a head that does not end, in time or in length, or is none.
#[tokio::test]
async fn the_next_server_answers_for_one_that_talks_nonsense() {
    let mut long = b"HTTP/1.1 200 OK\r\n".to_vec();
    for number in 0..5000 {
        write!(long, "X-{number}: {}\r\n", "a".repeat(100)).unwrap();
    }
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(1 << 20));
    for nonsense in [
        long,
        endless.into_bytes(),
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half"
            .to_vec(),
        b"".to_vec(),
    ] {
        let two = Two::start().await;
        let mut client = two.ask(WHOLE).await;
        let mut end = two.first.accept().await;
        end.message().await;
        end.try_say(&nonsense).await;
        drop(end);
        two.second_answers(&mut client).await;
    }
    let two = Two::configured(Config {
        answer_timeout: Duration::from_millis(300),
        ..config()
    })
    .await;
    let mut client = two.ask(WHOLE).await;
    let mut dripping = two.first.accept().await;
    let drips = tokio::spawn(async move {
        while dripping.try_say("HTTP/1.1 100 Continue\r\n\r\n").await {
            tokio::task::yield_now().await;
        }
    });
    two.second_answers(&mut client).await;
    drips.await.unwrap();
}

#[tokio::test]
async fn the_next_server_answers_for_one_whose_node_goes_away() {
    let two = Two::start().await;
    let mut client = two.ask(WHOLE).await;
    let mut lost = two.first.accept().await;
    lost.message().await;
    two.lose_first();
    two.second_answers(&mut client).await;
}

#[tokio::test]
async fn a_stream_that_has_a_head_but_no_token_may_still_move() {
    let two = Two::start().await;
    let mut client = two.ask(STREAMED).await;
    let (_, end) = two.first.answer(EVENTS).await;
    drop(end);
    let (_, mut end) = two.second.answer(EVENTS).await;
    end.say(chunk("data: 1\n\n")).await;
    end.say(LAST).await;
    let answer = client.until(LAST).await;
    assert!(
        answer.contains("x-hive-node: far") && answer.contains("data: 1"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_stream_that_breaks_off_between_events_ends_with_an_error() {
    for begun in ["data: 1\n\n", "data: 1\n"] {
        let two = Two::start().await;
        let mut client = two.ask(STREAMED).await;
        let (_, mut end) = two.first.answer(EVENTS).await;
        end.say(chunk(begun)).await;
        client.until("data: 1\n").await;
        drop(end);
        let rest = client.until(LAST).await;
        let (_, event) = rest.split_once("\ndata: ").unwrap();
        let (event, _) = event.split_once("\n\n").unwrap();
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["error"]["code"], "answer_broke_off");
        assert!(event["error"]["message"].as_str().unwrap().contains("near"));
        // Whoever broke off is not asked first the next time.
        let mut client = two.ask(WHOLE).await;
        two.second_answers(&mut client).await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_within_an_event_is_cut() {
    let two = Two::start().await;
    let mut client = two.ask(STREAMED).await;
    let (_, mut end) = two.first.answer(EVENTS).await;
    end.say(chunk("data: {\"half")).await;
    client.until("half\r\n").await;
    drop(end);
    assert_eq!(client.all().await, "", "no last chunk");
}

#[tokio::test]
async fn a_stream_ends_when_its_node_stays_away() {
    let two = Two::start().await;
    let mut client = two.ask(STREAMED).await;
    let (_, mut end) = two.first.answer(EVENTS).await;
    end.say(chunk("data: 1\n\n")).await;
    client.until("data: 1\n\n").await;
    // For a moment only: nothing happens.
    two.lose_first();
    tokio::task::yield_now().await;
    two.running.snapshots.send_replace(two.snapshot.clone());
    end.say(chunk("data: 2\n\n")).await;
    client.until("data: 2\n\n").await;
    two.lose_first();
    let rest = client.until(LAST).await;
    assert!(rest.contains("not reached any more"), "{rest}");
    assert_eq!(end.all().await, "", "nobody reads it any more");
}

#[tokio::test]
async fn when_nobody_answers_the_client_is_told_by_whom() {
    let mut two = Two::start().await;
    two.first = Server::at([127, 0, 0, 4]).await;
    two.second = Server::at([127, 0, 0, 4]).await;
    let mut client = two.ask(WHOLE).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(
        answer.contains("near: ") && answer.contains("far: "),
        "{answer}"
    );
    assert!(answer.contains("no_server"), "{answer}");
}

#[tokio::test]
async fn when_all_refuse_the_client_gets_the_last_refusal() {
    let two = Two::start().await;
    let mut client = two.ask(WHOLE).await;
    two.first.answer(&message("500 Oh no", "1")).await;
    let busy = "HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 1\r\n\r\n2";
    let (_, _end) = two.second.answer(busy).await;
    let answer = client.message().await;
    assert!(
        answer.starts_with("HTTP/1.1 429") && answer.ends_with('2'),
        "{answer}"
    );
    assert!(answer.contains("retry-after: 7"), "{answer}");
}

#[tokio::test]
async fn a_second_stream_goes_where_the_first_is_not() {
    let two = Two::start().await;
    let mut clients = [two.ask(STREAMED).await, End::to(two.running.at).await];
    let (_, mut near) = two.first.answer(EVENTS).await;
    near.say(chunk("data: near\n\n")).await;
    clients[0].until("data: near\n\n").await;
    clients[1].post(CHAT, STREAMED).await;
    let (_, mut far) = two.second.answer(EVENTS).await;
    far.say(chunk("data: far\n\n")).await;
    clients[1].until("data: far\n\n").await;
}

#[tokio::test]
async fn a_pinned_node_is_the_only_one_that_is_asked() {
    let two = Two::start().await;
    let mut client = two.ask(r#"{"model":"llama@near"}"#).await;
    two.first.answer(&message("500 Oh no", "1")).await;
    let answer = client.message().await;
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
}
