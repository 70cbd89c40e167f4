//! What listens on a node's loopback is used by others, and by programs that know loopback alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab};
use crate::node::{Network, Node, exit};
use crate::services::{dns, postgresql, quic, redis};

mod directory;

/// Far more than it takes.
const SOON: Duration = Duration::from_secs(10);
const PATH: Duration = Duration::from_secs(15);
/// Within which a lifetime's end must have closed and cut everything.
const CUT: Duration = Duration::from_secs(5);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 8000;

fn neighbours() -> Network {
    let net = Network::start(Lab::new().public("a").public("b").build(), ["a", "b"]);
    net.wait("direct", ["a", "b"], PATH);
    net
}

/// What a server does with a connection.
type Manner = fn(TcpStream);

/// Returns what it gets.
fn echo(mut stream: TcpStream) {
    let mut back = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut stream, &mut back);
}

/// Says how much it heard, once it has heard everything.
fn count(mut stream: TcpStream) {
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    let _ = stream.write_all(format!("{} bytes", heard.len()).as_bytes());
}

/// A server on a host, until it is dropped.
struct Server {
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(host: &Host, address: impl Into<SocketAddr>, manner: Manner) -> Self {
        let address = address.into();
        let listener = host.here(move || TcpListener::bind(address).unwrap());
        listener.set_nonblocking(true).unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let until = enough.clone();
        let thread = host.thread(move || {
            while !until.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).unwrap();
                        std::thread::spawn(move || manner(stream));
                    }
                    Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
                }
            }
        });
        Self {
            enough,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn connect(host: &Host, address: IpAddr, port: u16) -> Result<TcpStream, ErrorKind> {
    host.here(move || {
        let stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), SOON)
            .map_err(|error| error.kind())?;
        stream.set_read_timeout(Some(SOON)).unwrap();
        Ok(stream)
    })
}

fn is_echoed(stream: &mut TcpStream) -> bool {
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
}

fn echoes(host: &Host, address: IpAddr, port: u16) -> bool {
    connect(host, address, port).is_ok_and(|mut stream| is_echoed(&mut stream))
}

/// The connection is ended by the other side, not by patience.
fn is_cut(stream: &mut TcpStream, within: Duration) {
    stream.set_read_timeout(Some(within)).unwrap();
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Ok(_) => panic!("the connection goes on"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

fn expose(node: &Node, arguments: &[&str]) -> Value {
    node.json(&[&["expose"], arguments, &["--json"]].concat())
}

/// Makes a forward and returns its port.
fn forward(node: &Node, arguments: &[&str]) -> u16 {
    let forward = node.json(&[&["forward"], arguments, &["--json"]].concat());
    let listen = forward["listen"].as_str().unwrap();
    let listen: SocketAddr = listen.parse().unwrap();
    assert!(listen.ip().is_loopback());
    listen.port()
}

#[test]
fn a_server_on_loopback_is_reached_while_it_is_exposed() {
    let net = neighbours();
    let (a, b) = (net.node("a").host(), net.node("b"));
    let _server = Server::start(b.host(), (LOOPBACK, PORT), echo);
    for address in b.addresses() {
        assert_eq!(
            connect(a, address, PORT).map(drop),
            Err(ErrorKind::ConnectionRefused)
        );
    }
    let exposed = expose(b, &["8000", "--as", "echo"]);
    assert_eq!(exposed["target"], "127.0.0.1:8000");
    assert_eq!(exposed["address"], b.ipv4().to_string());
    assert_eq!(
        (&exposed["port"], &exposed["health"]),
        (&json!(8000), &json!("up"))
    );
    let mut live = Vec::new();
    for address in b.addresses() {
        let mut stream = connect(a, address, PORT).unwrap();
        assert!(is_echoed(&mut stream));
        live.push(stream);
    }
    let shown = &b.json(&["exposed", "--json"])[0];
    assert_eq!(
        (&shown["name"], &shown["connections"]),
        (&json!("echo"), &json!(2))
    );

    b.ask(&["unexpose", "echo"]);
    for mut stream in live {
        is_cut(&mut stream, SOON);
    }
    for address in b.addresses() {
        assert_eq!(
            connect(a, address, PORT).map(drop),
            Err(ErrorKind::ConnectionRefused)
        );
    }
    assert_eq!(b.json(&["exposed", "--json"]), json!([]));
    let why = b
        .host()
        .hivevpn(&["unexpose", "echo"])
        .failed_with(exit::FAILED);
    assert!(why.contains("no service called echo"), "{why}");
}

#[test]
fn each_side_may_end_first_through_an_exposed_port_and_a_forward() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let _counting = Server::start(b.host(), (LOOPBACK, PORT), count);
    let _greeting = Server::start(b.host(), (LOOPBACK, PORT + 1), |mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"last");
        // Only what has arrived is answered in this way.
        let _ = stream.shutdown(Shutdown::Both);
    });
    expose(b, &["8000", "--as", "count"]);
    expose(b, &["8001", "--as", "greet"]);
    let forwarded = |port: u16| {
        let to = format!("{}:{port}", b.ipv4());
        (LOOPBACK, forward(a, &[&to]))
    };
    for (address, port) in [(b.ipv4().into(), 8000), forwarded(8000)] {
        let mut stream = connect(a.host(), address, port).unwrap();
        stream.write_all(&vec![7; 3_000_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "3000000 bytes");
    }
    for (address, port) in [(b.ipv4().into(), 8001), forwarded(8001)] {
        let mut stream = connect(a.host(), address, port).unwrap();
        let mut greeting = Vec::new();
        stream.read_to_end(&mut greeting).unwrap();
        assert_eq!(greeting, b"first");
        stream.write_all(b"last").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
}

#[test]
fn what_was_exposed_and_forwarded_comes_back_after_restarts_in_either_order() {
    let mut net = neighbours();
    let _server = Server::start(net.lab().host("b"), (LOOPBACK, PORT), echo);
    expose(net.node("b"), &["8000", "--as", "echo"]);
    let port = forward(net.node("a"), &["b:8000"]);
    let works = |net: &Network| {
        let a = net.node("a").host();
        until(PATH, "the forward leads to the server", || {
            echoes(a, LOOPBACK, port)
        });
    };
    works(&net);
    for order in [["a", "b"], ["b", "a"]] {
        for name in order {
            net.take(name).interrupt();
        }
        for name in order {
            let node = net.lab().host(name).up(&[]);
            net.put(node);
        }
        works(&net);
    }
    net.take("b").kill9();
    let b = net.lab().host("b").up(&[]);
    net.put(b);
    works(&net);
    let forwards = net.node("a").json(&["forwards", "--json"]);
    assert_eq!(forwards[0]["listen"], format!("127.0.0.1:{port}"));
    net.node("a").ask(&["unforward", &port.to_string()]);
    assert!(connect(net.node("a").host(), LOOPBACK, port).is_err());
}

#[test]
fn when_a_lifetime_is_over_ports_are_closed_and_connections_cut() {
    let mut net = neighbours();
    let _server = Server::start(net.lab().host("b"), (LOOPBACK, PORT), echo);
    let (a, b) = (net.node("a"), net.node("b"));
    const LIFETIME: Duration = Duration::from_secs(4);
    expose(b, &["8000", "--as", "long", "--port", "8001"]);
    let began = Instant::now();
    expose(b, &["8000", "--as", "short", "--lifetime", "4s"]);
    let port = forward(a, &["b:8001", "--lifetime", "4s"]);
    let over = Instant::now() + LIFETIME;
    let address = IpAddr::from(b.ipv4());
    let mut live = [
        connect(a.host(), address, 8000).unwrap(),
        connect(a.host(), LOOPBACK, port).unwrap(),
    ];
    assert!(live.iter_mut().all(is_echoed));
    for stream in &mut live {
        is_cut(stream, over + CUT - Instant::now());
    }
    assert!(began.elapsed() >= LIFETIME, "not before it is over");
    until(CUT, "both ports are closed", || {
        connect(a.host(), address, 8000).is_err() && connect(a.host(), LOOPBACK, port).is_err()
    });
    let names = |node: &Node| {
        let exposed = node.json(&["exposed", "--json"]);
        let names = exposed.as_array().unwrap().iter();
        names.map(|one| one["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(b), ["long"]);
    assert_eq!(a.json(&["forwards", "--json"]), json!([]));

    // A lifetime does not rest while the node does.
    expose(
        b,
        &["8000", "--as", "gone", "--port", "8002", "--lifetime", "1s"],
    );
    net.take("b").kill9();
    crate::deadline::passes(Duration::from_secs(2));
    let b = net.lab().host("b").up(&[]);
    assert_eq!(names(&b), ["long"]);
}

#[test]
fn postgresql_on_loopback_answers_with_and_without_tls() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let _postgres = postgresql::serve(b.host(), LOOPBACK);
    let exposed = expose(b, &["5432", "--as", "db", "--kind", "postgres"]);
    assert_eq!(exposed["health"], "up", "{exposed:#}");
    postgresql::answers(a.host(), b.ipv4().into(), postgresql::PORT);
    let port = forward(a, &["b:5432"]);
    postgresql::answers(a.host(), LOOPBACK, port);
}

#[test]
fn redis_on_loopback_answers() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let _redis = redis::serve(b.host(), LOOPBACK);
    expose(b, &["6379", "--as", "cache"]);
    redis::answers(a.host(), b.ipv6().into(), redis::PORT);
    let port = forward(a, &["b:6379"]);
    redis::answers(a.host(), LOOPBACK, port);
}

#[test]
fn dns_and_quic_go_through_exposed_udp_ports() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    expose(
        b,
        &["5300", "--as", "dns", "--kind", "dns", "--port", "5355"],
    );
    let resolver = SocketAddr::new(LOOPBACK, 5300);
    for address in b.addresses() {
        let answering = dns::serve(b.host(), resolver);
        dns::answers(a.host(), address, 5355);
        answering.join().unwrap();
    }
    let port = forward(a, &["b:5355", "--udp"]);
    let answering = dns::serve(b.host(), resolver);
    dns::answers(a.host(), LOOPBACK, port);
    answering.join().unwrap();

    let server = quic::serve(b.host(), LOOPBACK);
    let port = server.address.port().to_string();
    expose(
        b,
        &[&port, "--as", "quic", "--kind", "udp", "--port", "4433"],
    );
    let through = forward(a, &["b:4433", "--udp"]);
    server.echoes(a.host(), (LOOPBACK, through).into());
    let server = quic::serve(b.host(), LOOPBACK);
    let port = server.address.port().to_string();
    expose(
        b,
        &[&port, "--as", "quic", "--kind", "udp", "--port", "4433"],
    );
    server.echoes(a.host(), (IpAddr::from(b.ipv6()), 4433).into());
}

#[test]
fn a_low_port_is_opened_without_root() {
    let net = neighbours();
    let (a, b) = (net.node("a").host(), net.node("b"));
    let _server = Server::start(b.host(), (LOOPBACK, PORT), echo);
    b.host()
        .sh("test $(sysctl -n net.ipv4.ip_unprivileged_port_start) = 1024")
        .ok();
    expose(b, &["8000", "--as", "web", "--port", "443"]);
    assert!(echoes(a, b.ipv4().into(), 443));
    let line = ["expose", "8000", "--as", "own", "--port", "80"];
    let why = b.host().hivevpn(&line).failed_with(exit::FAILED);
    assert!(why.contains("this node answers"), "{why}");
}

#[test]
fn what_is_exposed_is_published_by_the_policy() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = Server::start(b.host(), (LOOPBACK, PORT), echo);
    let _unpublished = Server::start(b.host(), (b.ipv4(), PORT + 1), echo);
    let address = IpAddr::from(b.ipv4());
    a.ask(&["policy", "mode", "published"]);
    until(SOON, "the policy is in force", || {
        !echoes(a.host(), address, PORT + 1)
    });
    expose(b, &["8000", "--as", "echo"]);
    until(SOON, "what is exposed is reached", || {
        echoes(a.host(), address, PORT)
    });
    b.ask(&["unexpose", "echo"]);
    assert!(connect(a.host(), address, PORT).is_err());
}

#[test]
#[ignore = "takes an hour: cargo test --test e2e -- --ignored"]
fn a_connection_may_rest_for_an_hour() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let _server = Server::start(b.host(), (LOOPBACK, PORT), echo);
    expose(b, &["8000", "--as", "echo"]);
    let port = forward(a, &["b:8000"]);
    let mut resting = [
        connect(a.host(), b.ipv4().into(), PORT).unwrap(),
        connect(a.host(), LOOPBACK, port).unwrap(),
    ];
    assert!(resting.iter_mut().all(is_echoed));
    crate::deadline::passes(Duration::from_secs(3600));
    assert!(resting.iter_mut().all(is_echoed));
}

#[test]
fn who_is_not_in_the_scope_is_refused_and_who_leaves_it_is_cut() {
    let lab = Lab::new().public("a").public("b").public("c").build();
    let a = lab.host("a").up(&[]);
    let b = lab.host("b").up(&[
        "--join",
        &a.ask(&["invite", "--group", "gpu", "--name", "b"]),
    ]);
    let c = lab.host("c").up(&["--join", &a.invite()]);
    for node in [&b, &c] {
        node.wait("direct", "a", PATH);
    }
    let _server = Server::start(a.host(), (LOOPBACK, PORT), echo);
    expose(&a, &["8000", "--as", "echo", "--to", "group:gpu"]);
    let address = IpAddr::from(a.ipv4());
    let mut live = connect(b.host(), address, PORT).unwrap();
    assert!(is_echoed(&mut live));
    assert!(!echoes(c.host(), address, PORT));

    // The scope is another one: b is not in it any more.
    expose(&a, &["8000", "--as", "echo", "--to", "group:lab"]);
    is_cut(&mut live, SOON);
    assert!(!echoes(b.host(), address, PORT));

    expose(&a, &["8000", "--as", "echo", "--to", "b"]);
    let mut live = connect(b.host(), address, PORT).unwrap();
    assert!(is_echoed(&mut live));
    // Nothing that would tell b goes to it any more: the server's end is what can be seen.
    a.ask(&["revoke", "b"]);
    until(SOON, "the connection of an expelled node is cut", || {
        a.json(&["exposed", "--json"])[0]["connections"] == 0
    });
    assert!(!is_echoed(&mut live));
}

#[test]
fn what_listens_everywhere_is_published_as_it_is_and_cannot_be_restricted() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let server = Server::start(b.host(), ([0, 0, 0, 0], PORT), echo);
    let refused = b
        .host()
        .hivevpn(&["expose", "8000", "--as", "echo", "--to", "a"])
        .failed_with(exit::FAILED);
    assert!(refused.contains("listens on all addresses"), "{refused}");
    let exposed = expose(b, &["8000", "--as", "echo"]);
    let note = exposed["notes"][0].as_str().unwrap();
    assert!(note.contains("listens on all addresses"), "{note}");
    for address in b.addresses() {
        assert!(echoes(a.host(), address, PORT), "{address}");
    }
    // Its place is left free for it.
    drop(server);
    let _server = Server::start(b.host(), ([0, 0, 0, 0], PORT), echo);
    assert!(echoes(a.host(), b.ipv4().into(), PORT));

    let _other = Server::start(b.host(), (LOOPBACK, PORT + 1), echo);
    let refused = b
        .host()
        .hivevpn(&["expose", "8001", "--as", "other", "--port", "8000"])
        .failed_with(exit::FAILED);
    assert!(refused.contains("--port"), "{refused}");
}

#[test]
fn a_target_that_is_not_there_is_down_and_found_again() {
    let net = neighbours();
    let (a, b) = (net.node("a"), net.node("b"));
    let health = || b.json(&["exposed", "--json"])[0]["health"].clone();
    let exposed = expose(b, &["8000", "--as", "echo"]);
    assert_eq!(exposed["health"], "down");
    assert!(
        exposed["notes"][0]
            .as_str()
            .unwrap()
            .contains("nothing answers")
    );
    let mut refused = connect(a.host(), b.ipv4().into(), PORT).unwrap();
    is_cut(&mut refused, SOON);

    let server = Server::start(b.host(), (LOOPBACK, PORT), echo);
    assert!(echoes(a.host(), b.ipv4().into(), PORT));
    // A connection that failed is a reason to look; one is enough to find it down.
    drop(connect(a.host(), b.ipv4().into(), PORT));
    eventually(Duration::from_secs(35), "it is found", || {
        (health() == "up").then_some(())
    });
    drop(server);
    eventually(SOON, "its end is noticed at the first connection", || {
        drop(connect(a.host(), b.ipv4().into(), PORT));
        (health() == "down").then_some(())
    });
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_to_do() {
    let lab = Lab::new().public("a").build();
    let a = lab.host("a").up(&[]);
    for (arguments, code, part) in [
        (
            &["expose", "nonsense", "--as", "x"][..],
            exit::USAGE,
            "127.0.0.1:8000",
        ),
        (&["expose", "8000", "--as", "X!"], exit::USAGE, "not a name"),
        (
            &["expose", "8000", "--as", "x", "--kind", "gopher"],
            exit::USAGE,
            "openai",
        ),
        (
            &["expose", "8000", "--as", "x", "--to", "group:"],
            exit::USAGE,
            "group:<name>",
        ),
        (
            &["forward", "nobody:80"],
            exit::FAILED,
            "no member is called nobody",
        ),
        (&["forward", "nothing"], exit::FAILED, "hivevpn services"),
        (&["unforward", "1234"], exit::FAILED, "hivevpn forwards"),
    ] {
        let why = a.host().hivevpn(arguments).failed_with(code);
        assert!(why.contains(part), "{arguments:?}: {why}");
    }
    a.ask(&["expose", "8000", "--as", "one"]);
    let why = a
        .host()
        .hivevpn(&["expose", "8000", "--as", "two"])
        .failed_with(exit::FAILED);
    assert!(why.contains("one's") && why.contains("--port"), "{why}");
}
