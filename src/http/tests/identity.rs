//! Who calls, as the backend sees it.

use super::*;

#[tokio::test]
async fn the_backend_learns_who_calls() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send("GET /path?q=1 HTTP/1.1\r\nHost: blog.hive.internal\r\nX-Own: 1\r\n\r\n")
        .await;
    let head = stand.accept().await.head().await;
    assert!(head.starts_with("GET /path?q=1 HTTP/1.1\r\n"), "{head}");
    let told = stand.snapshots.borrow();
    let a = &told.members[1];
    for (name, value) in [
        ("host", "blog.hive.internal"),
        ("x-own", "1"),
        ("x-hive-name", "a"),
        ("x-hive-peer", &a.peer_id.to_string()),
        ("x-hive-groups", "dev,gpu"),
        ("x-hive-network", "hive"),
        ("x-forwarded-for", "10.77.0.2"),
    ] {
        assert_eq!(values(&head, name), [value], "{head}");
    }
}

/// A client writes the headers itself, in every spelling that some backend would take for ours: other cases, underscores
/// (CGI cannot tell them from dashes), twice, as a trailer, or marked as a header that the proxy is to remove.
#[tokio::test]
async fn what_a_client_says_of_itself_is_not_passed_on() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: x\r\nX-Hive-Name: admin\r\nx-hive-NAME: admin\r\nX_Hive_Name: admin\r\n\
             X-Hive_Peer: admin\r\nx.hive.groups: admin\r\nX-Hive-Future: admin\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X_Forwarded_For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\n\
             Connection: X-Hive-Name, X-Hive-Groups, x-forwarded-for\r\nTrailer: X-Hive-Name, X-Sum\r\n\
             Transfer-Encoding: chunked\r\n\r\n0\r\nX-Hive-Name: admin\r\nX-Sum: 1\r\n\r\n",
        )
        .await;
    let mut backend = stand.accept().await;
    let head = backend.head().await;
    let body = backend.until("\r\n\r\n").await;
    let sent = format!("{head}{body}").to_lowercase();
    assert!(
        !sent.contains("admin") && !sent.contains("1.2.3.4"),
        "{sent}"
    );
    assert_eq!(values(&head, "x-hive-name"), ["a"]);
    assert_eq!(values(&head, "x-hive-groups"), ["dev,gpu"]);
    assert_eq!(values(&head, "x-forwarded-for"), ["10.77.0.2"]);
    assert_eq!(body, "0\r\nx-sum: 1\r\n\r\n");
}

#[tokio::test]
async fn who_is_no_member_gets_nowhere() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client("10.77.9.9:1").await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status(&client.head().await), 403);
}

/// A connection stays open while its member is revoked, or while the address passes to another.
#[tokio::test]
async fn a_connection_does_not_outlive_its_membership() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    let mut client = stand.client(A).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut backend = stand.accept().await;
    backend.head().await;
    backend.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(status(&client.head().await), 204);

    stand.snapshots.send_modify(|told| {
        let mut members = told.members.to_vec();
        members[1] = member("heir", 2, &[], false);
        told.members = members.into();
    });
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status(&client.head().await), 403);
}

#[tokio::test]
async fn loopback_and_our_own_address_are_this_machine() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    for from in [
        "127.0.0.1:5",
        "[::1]:5",
        "10.77.0.1:5",
        "[::ffff:10.77.0.1]:5",
    ] {
        let mut client = stand.client(from).await;
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let head = stand.accept().await.head().await;
        assert_eq!(values(&head, "x-hive-name"), ["us"]);
        assert_eq!(values(&head, "x-forwarded-for"), ["10.77.0.1"]);
    }
}

#[tokio::test]
async fn a_member_without_a_name_of_its_own_has_an_empty_one() {
    let stand = Stand::new(Kind::Http, Limits::default()).await;
    stand.snapshots.send_modify(|told| {
        let mut members = told.members.to_vec();
        members[1].certified = None;
        told.members = members.into();
    });
    let mut client = stand.client(A).await;
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\nX-Hive-Name: b\r\n\r\n")
        .await;
    let head = stand.accept().await.head().await;
    assert_eq!(values(&head, "x-hive-name"), [""]);
}
