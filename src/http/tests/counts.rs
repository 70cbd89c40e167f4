//! What is counted, and what is too much.

use hivevpn_core::registry::Load;

use super::*;
use crate::http::limits::Allowance;

/// A clock that goes when it is told to.
#[derive(Clone)]
struct Hand(Arc<Mutex<Instant>>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

async fn stand_by(hand: &Hand, limits: Limits, key: Option<ApiKey>) -> Stand {
    let hand = hand.clone();
    Stand::with(|name, target, snapshots, ledger| {
        Front(Arc::new(Inner {
            name,
            kind: Kind::OpenAi,
            snapshots,
            limits,
            lanes: Lanes::to(target),
            meter: Arc::new(Meter::new(Box::new(move || *hand.0.lock().unwrap()))),
            ledger,
            key,
            slots: AtomicU32::new(0),
            unreachable: Notify::new(),
        }))
    })
    .await
}

fn ask(model: &str) -> String {
    let body = format!("{{\"messages\":[],\"model\":\"{model}\"}}");
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept-Encoding: gzip\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn json(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn events(events: &[&str]) -> String {
    let events = events.iter().map(|event| format!("data: {event}\n\n"));
    let body: String = events.collect();
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{body}")
}

/// Has this asked from there and answered so. Returns what the client got.
async fn exchange(stand: &Stand, from: &str, asked: &str, answer: &str) -> String {
    let mut client = stand.client(from).await;
    client.send(asked).await;
    let answering = async {
        let mut backend = stand.accept().await;
        backend.until("\"}").await;
        backend.send(answer).await;
        backend.0.shutdown().await.unwrap();
        backend
    };
    tokio::join!(client.rest(), answering).0
}

/// What the client gets from a front that asks nobody.
async fn refusal(stand: &Stand, from: &str, asked: &str) -> String {
    let mut client = stand.client(from).await;
    client.send(asked).await;
    client.rest().await
}

fn used(stand: &Stand, member: &str, model: &str) -> Row {
    let usage = stand.ledger.usage(None);
    let found = usage
        .iter()
        .find(|(key, row)| row.member == member && key.model == model);
    let (_, row) = found.unwrap_or_else(|| panic!("{member} {model} in {usage:?}"));
    row.clone()
}

#[tokio::test]
async fn tokens_are_counted_by_member_and_model() {
    let hand = Hand::new();
    let stand = stand_by(&hand, Limits::default(), None).await;
    let body = "{\"model\":\"other\",\"choices\":[{\"message\":{\"content\":\"\\\"usage\\\":{\\\"completion_tokens\\\":9}\"}}],\
                \"usage\":{\"prompt_tokens\":12,\"completion_tokens\":34,\"prompt_tokens_details\":{\"cached_tokens\":5}}}";
    let got = exchange(&stand, A, &ask("tiny"), &json(body)).await;
    assert!(got.ends_with(body), "as it came: {got}");
    exchange(&stand, A, &ask("tiny"), &json(body)).await;
    exchange(
        &stand,
        "10.77.0.3:9",
        &ask("big"),
        "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
    )
    .await;

    let tiny = used(&stand, "a", "tiny");
    assert_eq!((tiny.requests, tiny.errors), (2, 0));
    assert_eq!((tiny.prompt_tokens, tiny.completion_tokens), (24, 68));
    assert_eq!(tiny.estimated_tokens, 0);
    let usage = stand.ledger.usage(None);
    let (key, _) = usage.iter().find(|(_, row)| row.member == "a").unwrap();
    let a = stand.snapshots.borrow().members[1].peer_id;
    assert_eq!((key.service.as_str(), key.peer), ("llm", Some(a)));
    let big = used(&stand, "b", "big");
    assert_eq!((big.requests, big.errors, big.completion_tokens), (1, 1, 0));
}

#[tokio::test]
async fn a_form_is_counted_under_its_model() {
    let stand = stand_by(&Hand::new(), Limits::default(), None).await;
    let part = |head: &str, content: &str| {
        format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
    };
    let file = part("name=\"file\"; filename=\"a.wav\"", "RIFF");
    let body = format!("{file}{}--b--{{\"\"}}", part("name=\"model\"", "ear"));
    let asked = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = "{\"text\":\"bee\",\"usage\":{\"input_tokens\":14,\"output_tokens\":2}}";
    exchange(&stand, A, &asked, &json(said)).await;
    let ear = used(&stand, "a", "ear");
    assert_eq!((ear.requests, ear.errors), (1, 0));
    assert_eq!((ear.prompt_tokens, ear.completion_tokens), (14, 2));
}

#[tokio::test]
async fn a_stream_is_counted_by_what_it_says_or_else_by_its_pieces() {
    let hand = Hand::new();
    let stand = stand_by(&hand, Limits::default(), None).await;
    let role =
        "{\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}";
    let piece = "{\"model\":\"m\",\"choices\":[{\"delta\":{\"content\":\"bee\"}}]}";
    let stop = "{\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let usage = "{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5}}";
    let told = events(&[role, piece, piece, piece, stop, usage, "[DONE]"]);
    let got = exchange(&stand, A, &ask("told"), &told).await;
    assert!(
        got.contains(&format!("data: {usage}\n\ndata: [DONE]\n\n")),
        "{got}"
    );
    exchange(
        &stand,
        A,
        &ask("untold"),
        &events(&[role, piece, piece, piece, stop, "[DONE]"]),
    )
    .await;

    let told = used(&stand, "a", "told");
    assert_eq!(
        (
            told.prompt_tokens,
            told.completion_tokens,
            told.estimated_tokens
        ),
        (7, 5, 0)
    );
    let untold = used(&stand, "a", "untold");
    assert_eq!(
        (
            untold.prompt_tokens,
            untold.completion_tokens,
            untold.estimated_tokens
        ),
        (0, 3, 3)
    );
    assert_eq!(stand.front.load().tokens_per_10s, 8);
    hand.advance(Duration::from_secs(10));
    assert_eq!(stand.front.load().tokens_per_10s, 0);
}

#[tokio::test]
async fn a_client_cannot_have_its_answer_compressed_past_the_counting() {
    let stand = stand_by(&Hand::new(), Limits::default(), None).await;
    let mut client = stand.client(A).await;
    client.send(&ask("m")).await;
    let head = stand.accept().await.head().await;
    assert!(values(&head, "accept-encoding").is_empty(), "{head}");
}

#[tokio::test]
async fn too_many_requests_are_refused_until_their_time_comes() {
    let hand = Hand::new();
    let limits = Limits {
        requests_per_minute: 2,
        ..Limits::default()
    };
    let stand = stand_by(&hand, limits, None).await;
    for _ in 0..2 {
        assert_eq!(
            status(&exchange(&stand, A, &ask("m"), &json("{}")).await),
            200
        );
    }
    let refused = refusal(&stand, A, &ask("m")).await;
    assert_eq!(status(&refused), 429);
    assert_eq!(values(&refused, "retry-after"), ["30"]);
    let body: serde_json::Value =
        serde_json::from_str(refused.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("2 requests in a minute")
    );
    // Others may, and so may this machine.
    for from in ["10.77.0.3:1", "10.77.0.1:1", "10.77.0.1:1", "10.77.0.1:1"] {
        assert_eq!(
            status(&exchange(&stand, from, &ask("m"), &json("{}")).await),
            200
        );
    }
    hand.advance(Duration::from_secs(30));
    assert_eq!(
        status(&exchange(&stand, A, &ask("m"), &json("{}")).await),
        200
    );
    assert_eq!(status(&refusal(&stand, A, &ask("m")).await), 429);
}

#[tokio::test]
async fn tokens_are_paid_off_before_there_are_more() {
    let hand = Hand::new();
    let limits = Limits {
        tokens_per_minute: 60,
        ..Limits::default()
    };
    let stand = stand_by(&hand, limits, None).await;
    let answer = json("{\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":49}}");
    assert_eq!(status(&exchange(&stand, A, &ask("m"), &answer).await), 200);
    let refused = refusal(&stand, A, &ask("m")).await;
    assert_eq!(
        (status(&refused), values(&refused, "retry-after")),
        (429, vec!["30"])
    );
    // What makes no tokens is not limited by them.
    let mut client = stand.client(A).await;
    client
        .send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;
    let mut backend = stand.accept().await;
    backend.head().await;
    backend.send(&json("{}")).await;
    assert_eq!(status(&client.head().await), 200);
    hand.advance(Duration::from_secs(30));
    assert_eq!(
        status(&exchange(&stand, A, &ask("m"), &json("{}")).await),
        200
    );
}

#[tokio::test]
async fn a_member_has_so_many_requests_at_once_and_its_group_may_have_more() {
    let generous = Allowance {
        concurrent: Some(2),
        ..Allowance::default()
    };
    let limits = Limits {
        concurrent: 1,
        groups: [("gpu".to_owned(), generous)].into(),
        slots: Some(1),
        ..Limits::default()
    };
    let stand = stand_by(&Hand::new(), limits, None).await;
    let mut held = Vec::new();
    for from in [A, A, "10.77.0.3:1"] {
        let mut client = stand.client(from).await;
        client.send(&ask("m")).await;
        let mut backend = stand.accept().await;
        backend.until("\"}").await;
        held.push((client, backend));
    }
    let load = stand.front.load();
    assert_eq!((load.active, load.queued, load.slots), (1, 2, 1));
    for from in [A, "10.77.0.3:1"] {
        let refused = refusal(&stand, from, &ask("m")).await;
        assert_eq!(
            (status(&refused), values(&refused, "retry-after")),
            (429, vec!["1"])
        );
    }
    for (client, backend) in &mut held {
        backend.send(&json("{}")).await;
        client.rest().await;
    }
    assert_eq!(stand.front.load().active, 0);
    assert_eq!(
        status(&exchange(&stand, "10.77.0.3:1", &ask("m"), &json("{}")).await),
        200
    );
}

#[tokio::test]
async fn how_long_the_first_byte_takes_is_known() {
    let hand = Hand::new();
    let stand = stand_by(&hand, Limits::default(), None).await;
    assert_eq!(stand.front.load(), Load::default());
    for milliseconds in [100, 300, 900] {
        let mut client = stand.client(A).await;
        client.send(&ask("m")).await;
        let mut backend = stand.accept().await;
        backend.until("\"}").await;
        hand.advance(Duration::from_millis(milliseconds));
        backend.send(&json("{}")).await;
        client.rest().await;
    }
    assert_eq!(stand.front.load().p50_ms, 300);
    assert_eq!(used(&stand, "a", "m").first_bytes.median(), Some(300));
}

/// The backend hangs up because its client did: nobody failed.
#[tokio::test]
async fn a_stream_that_its_client_leaves_is_no_error() {
    let stand = stand_by(&Hand::new(), Limits::default(), None).await;
    let begun =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let event = "data: {\"choices\":[{\"text\":\"bee\"}]}\n\n";
    for (answer, pieces) in [
        (String::new(), 0),
        (format!("{begun}{:x}\r\n{event}\r\n", event.len()), 1),
    ] {
        let mut client = stand.client(A).await;
        client.send(&ask(&format!("m{pieces}"))).await;
        let mut backend = stand.accept().await;
        backend.until("\"}").await;
        backend.send(&answer).await;
        if pieces > 0 {
            client.until(event).await;
        }
        client.0.shutdown().await.unwrap();
        assert_eq!(backend.rest().await, "");
        drop(backend);
        client.rest().await;
        let used = used(&stand, "a", &format!("m{pieces}"));
        assert_eq!((used.requests, used.errors), (1, 0), "{used:?}");
        assert_eq!(
            (used.completion_tokens, used.estimated_tokens),
            (pieces, pieces)
        );
    }
}

#[tokio::test]
async fn made_up_models_fill_no_memory() {
    let stand = stand_by(&Hand::new(), Limits::default(), None).await;
    for number in 0..80 {
        let failed = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        exchange(&stand, A, &ask(&format!("m{number}")), failed).await;
    }
    let usage = stand.ledger.usage(None);
    assert_eq!(usage.len(), 65);
    assert_eq!(used(&stand, "a", "(others)").errors, 16);
    assert_eq!(usage.iter().map(|(_, row)| row.requests).sum::<u64>(), 80);
}

#[tokio::test]
async fn the_key_is_shown_for_those_who_show_none() {
    let stand = stand_by(&Hand::new(), Limits::default(), ApiKey::new("sk-ours")).await;
    for (own, expected) in [
        ("", "Bearer sk-ours"),
        ("Authorization: Bearer mine\r\n", "Bearer mine"),
    ] {
        let mut client = stand.client(A).await;
        client
            .send(&format!("GET /v1/models HTTP/1.1\r\nHost: x\r\n{own}\r\n"))
            .await;
        let head = stand.accept().await.head().await;
        assert_eq!(values(&head, "authorization"), [expected]);
    }
}
