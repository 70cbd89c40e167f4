//! What passes through, and how.

use super::{
    ends::{CHAT, EVENTS, End, LAST, STREAMED, Server, WHOLE, chunk, message},
    *,
};

/// A running endpoint with one server of the model `llama`.
async fn one() -> (Running, Server) {
    let server = Server::at([127, 0, 0, 2]).await;
    let (gpu, service) = server.of("gpu", &["llama"]);
    let running = Running::start(network([named("us").this(), gpu], [service])).await;
    (running, server)
}

async fn get(running: &Running, path: &str) -> String {
    let mut client = End::to(running.at).await;
    client
        .say(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .await;
    client.message().await
}

#[tokio::test]
async fn the_endpoint_says_what_there_is() {
    let (running, _server) = one().await;
    let list = get(&running, "/v1/models").await;
    assert!(list.starts_with("HTTP/1.1 200"), "{list}");
    assert!(
        list.contains(r#""object":"list""#) && list.contains(r#""id":"llama""#),
        "{list}"
    );
    for path in [
        "/v1/models/llama",
        "/v1/models/llam%61",
        "/v1/models/llama@gpu",
    ] {
        let model = get(&running, path).await;
        assert!(model.contains(r#""owned_by":"gpu""#), "{path}: {model}");
    }
    let missing = get(&running, "/v1/models/lama").await;
    assert!(missing.starts_with("HTTP/1.1 404"), "{missing}");
    assert!(missing.contains("model_not_found") && missing.contains("did you mean llama?"));
    assert!(get(&running, "/health").await.contains(r#""status":"ok""#));
    for path in ["/models", "/v1x", "/v1/../slots", "/v1/%2e%2E/slots"] {
        assert!(
            get(&running, path).await.starts_with("HTTP/1.1 404"),
            "{path}"
        );
    }
    assert!(get(&running, CHAT).await.starts_with("HTTP/1.1 405"));
    let listed = running.handle.list();
    assert_eq!(listed.endpoint, format!("http://{}/v1", running.at));
    assert_eq!(listed.models[0].id, "llama");
}

#[tokio::test]
async fn a_request_without_a_model_is_answered_as_openai_does() {
    let (running, _server) = one().await;
    for (body, status, code) in [
        (r#"{"messages":[]}"#, "400", "missing_model"),
        ("hello", "400", "invalid_body"),
        (r#"{"model":"gpt-4"}"#, "404", "model_not_found"),
    ] {
        let mut client = End::to(running.at).await;
        client.post(CHAT, body).await;
        let answer = client.message().await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        let (_, json) = answer.split_once("\r\n\r\n").unwrap();
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(json["error"]["code"], code);
        assert_eq!(json["error"]["type"], "invalid_request_error");
        assert_eq!(json["error"]["param"], "model");
        assert!(json["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent_and_so_does_its_answer() {
    let (running, server) = one().await;
    let body = r#"{ "tools":[{"x":1.00}],  "model":"llama" }"#;
    let headers = "Authorization: Bearer mine\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-Custom: 2\r\n\
                   Cookie: secret\r\nX-Hive-Node: gpu\r\n";
    let mut client = End::to(running.at).await;
    client
        .post_with("/v1/any/thing?a=b%20c", headers, body)
        .await;
    let answer = r#"{"tool_calls" : [] }"#;
    let answered = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nX-Model: big\r\nSet-Cookie: a=b\r\n\
         Access-Control-Allow-Origin: *\r\nConnection: keep-alive\r\n\r\n{answer}",
        answer.len()
    );
    let (request, _end) = server.answer(&answered).await;
    assert!(
        request.starts_with("POST /v1/any/thing?a=b%20c HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.ends_with(&format!("\r\n\r\n{body}")), "{request}");
    let lower = request.to_lowercase();
    for kept in [
        "authorization: bearer mine",
        "x-custom: 2",
        &format!("host: {}", server.address()),
    ] {
        assert!(lower.contains(kept), "{kept}: {request}");
    }
    for gone in [
        "x-hop",
        "cookie",
        "x-hive-node",
        "connection",
        "host: localhost",
    ] {
        assert!(!lower.contains(gone), "{gone}: {request}");
    }
    let got = client.all().await;
    assert!(
        got.starts_with("HTTP/1.1 200") && got.ends_with(answer),
        "{got}"
    );
    let lower = got.to_lowercase();
    assert!(
        lower.contains("x-model: big") && lower.contains("x-hive-node: gpu"),
        "{got}"
    );
    assert!(
        !lower.contains("set-cookie") && !lower.contains("access-control"),
        "{got}"
    );
}

#[tokio::test]
async fn no_key_is_made_up_and_the_node_is_taken_out_of_the_model() {
    let (running, server) = one().await;
    let mut client = End::to(running.at).await;
    client.post(CHAT, r#"{"model":"llama@gpu","n":1}"#).await;
    let (request, _end) = server.answer(&message("200 OK", "{}")).await;
    assert!(
        !request.to_lowercase().contains("authorization"),
        "{request}"
    );
    assert!(request.ends_with(r#"{"model":"llama","n":1}"#), "{request}");
    client.message().await;
}

#[tokio::test]
async fn a_service_may_begin_elsewhere() {
    let server = Server::at([127, 0, 0, 2]).await;
    let (gpu, mut service) = server.of("gpu", &["llama"]);
    service.service.path = Some("/openai/v1/".to_owned());
    let running = Running::start(network([named("us").this(), gpu], [service])).await;
    let mut client = End::to(running.at).await;
    client.post(CHAT, WHOLE).await;
    let (request, _end) = server.answer(&message("200 OK", "{}")).await;
    assert!(
        request.starts_with("POST /openai/v1/chat/completions HTTP"),
        "{request}"
    );
    client.message().await;
}

#[tokio::test]
async fn a_token_is_there_before_the_next_one_is_written() {
    let (running, server) = one().await;
    let mut client = End::to(running.at).await;
    client.post(CHAT, STREAMED).await;
    let (_, mut end) = server.answer(EVENTS).await;
    for number in 0..20 {
        let event = format!("data: {number}\n\n");
        end.say(chunk(&event)).await;
        // The server writes nothing more until the client has this.
        client.until(&event).await;
    }
    end.say(LAST).await;
    client.until(LAST).await;
}

#[tokio::test]
async fn many_streams_do_not_wait_for_each_other() {
    const STREAMS: usize = 64;
    let (running, server) = one().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut client = End::to(running.at).await;
        client.post(CHAT, STREAMED).await;
        let (_, end) = server.answer(EVENTS).await;
        streams.push((client, end));
    }
    // All are open; the last one that was opened speaks first.
    for (number, (client, end)) in streams.iter_mut().enumerate().rev() {
        end.say(chunk(&format!("data: {number}\n\n"))).await;
        client.until(&format!("data: {number}\n\n")).await;
    }
    for (client, end) in &mut streams {
        end.say(LAST).await;
        client.until(LAST).await;
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_work_for_it() {
    let (running, server) = one().await;
    // While the server thinks.
    let mut client = End::to(running.at).await;
    client.post(CHAT, STREAMED).await;
    let mut end = server.accept().await;
    end.message().await;
    drop(client);
    assert_eq!(end.all().await, "", "the connection ends");
    // While it speaks.
    let mut client = End::to(running.at).await;
    client.post(CHAT, STREAMED).await;
    let (_, mut end) = server.answer(EVENTS).await;
    end.say(chunk("data: 1\n\n")).await;
    client.until("data: 1").await;
    drop(client);
    assert_eq!(end.all().await, "", "the connection ends");
    assert_eq!(running.handle.endpoint.pool.len(), 0);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (running, server) = one().await;
    let mut client = End::to(running.at).await;
    client.post(CHAT, WHOLE).await;
    let (_, mut end) = server.answer(&message("200 OK", "1")).await;
    client.message().await;
    kept(&running, 1).await;
    for answer in ["2", "3"] {
        client.post(CHAT, WHOLE).await;
        end.message().await;
        end.say(message("200 OK", answer)).await;
        assert!(client.message().await.ends_with(answer));
        kept(&running, 1).await;
    }
}

/// The server has closed a connection that lies in the pool; the client must not notice.
#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let (running, server) = one().await;
    let mut client = End::to(running.at).await;
    client.post(CHAT, WHOLE).await;
    let (_, mut end) = server.answer(&message("200 OK", "1")).await;
    client.message().await;
    kept(&running, 1).await;
    // It takes the next request and closes without a word, as a server does whose patience ends at that moment.
    client.post(CHAT, WHOLE).await;
    end.message().await;
    drop(end);
    let (request, _end) = server.answer(&message("200 OK", "2")).await;
    assert!(request.ends_with(WHOLE), "{request}");
    assert!(client.message().await.ends_with('2'));
}

/// Waits until so many connections lie in the pool.
async fn kept(running: &Running, count: usize) {
    while running.handle.endpoint.pool.len() != count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_to_keep_is_passed_on_as_it_comes() {
    let (running, server) = one().await;
    // More than is read in one go.
    let length = question::MAX_KEPT + (2 << 20);
    let body = |begin: &str, end: &str| {
        let filling = "a".repeat(length - begin.len() - end.len());
        format!("{begin}{filling}{end}")
    };
    let sent = body(r#"{"model":"llama","input":""#, "\"}");
    let mut client = End::to(running.at).await;
    let at = running.at;
    let posting = tokio::spawn(async move {
        client.post("/v1/embeddings", &sent).await;
        (client.message().await, sent)
    });
    let (request, _end) = server.answer(&message("200 OK", "{}")).await;
    let (answer, sent) = posting.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (_, arrived) = request.split_once("\r\n\r\n").unwrap();
    assert!(arrived == sent, "all of it arrives");

    // What has its model behind all that cannot be sent anywhere.
    let late = body(r#"{"input":""#, "\",\"model\":\"llama\"}");
    let mut client = End::to(at).await;
    let length = late.len();
    client
        .say(format!(
            "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
    client.try_say(&late).await;
    assert!(client.until("\r\n").await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn only_this_machine_may_ask_unless_members_are_served() {
    let (us, gpu) = (named("us").this(), named("gpu").at([10, 77, 0, 9].into()));
    for serve_members in [false, true] {
        let config = Config {
            serve_members,
            ..config()
        };
        let (_keep, snapshots) = watch::channel(network([us.clone(), gpu.clone()], []));
        let endpoint = Endpoint::new(snapshots, config, watch::channel(false).1);
        let may_ask = |from: &str| listening::may_ask(&endpoint, from.parse().unwrap());
        for own in ["127.0.0.1", "::1", "10.77.0.1", "fd00::1"] {
            assert!(may_ask(own), "{own}");
        }
        assert_eq!(may_ask("10.77.0.9"), serve_members);
        assert!(!may_ask("10.77.0.8") && !may_ask("192.0.2.1"));
    }
}
