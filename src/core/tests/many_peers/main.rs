//! A node among a thousand members: what it costs while nothing happens, and what a first packet waits for.

use std::{net::Ipv4Addr, time::Duration};

use allocation_counter::measure;
use hivevpn_core::{
    membership::{Name, SyncMessage, UnixTime},
    output::{Output, RequestId},
    registry::{Health, Kind, Model, OpenAi, Service, State, Transport, service::LIFETIME},
};

use crowd::{Activity, Cast, Crowd, packet};

#[allow(dead_code, reason = "the benches need more of it")]
mod crowd;

const MEMBERS: usize = 1000;
/// Members with a session. The handshake limiter, which reads a clock that no test can drive, lets no more in at once.
const CONNECTED: usize = 300;
const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// A greeting is over so long after the session stands.
const GREETING: Duration = Duration::from_secs(11);
const TEN_MINUTES: Duration = Duration::from_secs(600);
/// What one peer may take, with its session.
const BYTES_PER_PEER: usize = 30_000;
/// The same for the seconds in which the session's key is agreed on in another one.
const BYTES_PER_GREETING: usize = 42_000;
/// As many as a node may offer.
const SERVICES: usize = 64;
/// What one of them takes at each member.
const BYTES_PER_SERVICE: usize = 4_000;

fn connected() -> Crowd {
    let mut crowd = Crowd::new(MEMBERS);
    for number in 0..CONNECTED {
        crowd.connect(number);
    }
    crowd.settle();
    crowd
}

#[test]
fn a_node_that_reaches_nobody_wakes_up_rarely_and_sends_nothing() {
    let mut crowd = Crowd::new(MEMBERS);
    crowd.pass(TEN_MINUTES);
    let Activity {
        wakeups,
        datagrams,
        dials,
    } = crowd.pass(TEN_MINUTES);
    assert_eq!(datagrams, 0);
    assert!(wakeups <= 600, "{wakeups} wakeups in ten minutes");
    assert!(dials <= MEMBERS * 10, "{dials} dials in ten minutes");
}

#[test]
fn idle_sessions_cost_their_heartbeats_and_nothing_grows() {
    let mut crowd = connected();
    crowd.pass(TEN_MINUTES / 5);
    let first = crowd.pass(TEN_MINUTES);
    let mut second = Activity::default();
    let grown = measure(|| second = crowd.pass(TEN_MINUTES));
    // One side asks every 22 s at the most, the other answers.
    let heartbeats = CONNECTED * 2 * (600 / 22 + 1);
    for activity in [first, second] {
        assert!(activity.datagrams <= heartbeats, "{activity:?}");
        assert!(activity.wakeups <= 600, "{activity:?}");
    }
    assert!(
        grown.bytes_current.abs() < 100_000,
        "{} bytes more after ten minutes",
        grown.bytes_current
    );
}

#[test]
fn a_first_packet_to_any_member_waits_for_two_handshakes_and_an_exchange_of_keys() {
    let mut crowd = Crowd::new(MEMBERS);
    crowd.pass(TEN_MINUTES);
    for number in [0, 1, 255, 256, 500, 777, MEMBERS - 1] {
        let to = crowd.members[number].ipv4;
        let now = crowd.now().instant;
        crowd.connect(number);
        crowd.node.handle_overlay_packet(&packet(US, to, 100), now);
        let carried = crowd.settle();
        let inbox = crowd.members[number].tunnels.inbox();
        assert_eq!(inbox.len(), 1, "member {number}");
        inbox.clear();
        // Two handshakes of two datagrams at most, three parts of an offer or an acceptance, the packet, and three probes
        // in the greeting and in the session, with their counterparts.
        assert!(carried.datagrams <= 16, "member {number}: {carried:?}");
    }
}

#[test]
fn a_peer_with_a_session_takes_no_more_than_30_kilobytes() {
    let cast = Cast::new(MEMBERS);
    let mut crowd = None;
    // The records that the node starts from are freed meanwhile: what it keeps is counted too low by their size.
    let records: usize = cast.start.records.iter().map(Vec::capacity).sum();
    let known = measure(|| crowd = Some(cast.begin()));
    let mut crowd = crowd.expect("it has begun");
    let known = (known.bytes_current + records as i64) / MEMBERS as i64;
    let begun = measure(|| {
        for number in 0..CONNECTED {
            crowd.connect(number);
            crowd.settle();
        }
    });
    let over = measure(|| {
        crowd.pass(GREETING);
    });
    // The members' ends are counted too, and are as large.
    let ends = 2 * CONNECTED as i64;
    let greeting = begun.bytes_current / ends;
    let session = (begun.bytes_current + over.bytes_current) / ends;
    println!(
        "{known} bytes a member, {greeting} more while it is greeted, {session} with a session"
    );
    assert!((known + greeting) as usize <= BYTES_PER_GREETING);
    assert!((known + session) as usize <= BYTES_PER_PEER);
}

#[test]
fn a_service_takes_no_more_than_4_kilobytes() {
    let mut crowd = Crowd::new(1);
    while crowd.node.poll_output().is_some() {}
    let now = crowd.now();
    let service = model_server();
    let kept = measure(|| {
        for number in 0..SERVICES {
            let name = Name::sanitised(&format!("llm-{number}")).expect("a name");
            let published = crowd.node.publish_service(&name, &service, LIFETIME, now);
            published.expect("it breaks no rule");
            while crowd.node.poll_output().is_some() {}
        }
    });
    assert_eq!(crowd.node.services().len(), SERVICES);
    let each = kept.bytes_current as usize / SERVICES;
    println!("{each} bytes a service");
    assert!(each <= BYTES_PER_SERVICE, "{each} bytes");
}

fn model_server() -> Service {
    let model = Model {
        id: "qwen3-8b-instruct".to_owned(),
        context: Some(32_768),
        max_output: None,
        price_in: None,
        price_out: None,
        quantization: Some("q4_k_m".to_owned()),
        loaded: Some(true),
    };
    Service {
        kind: Kind::OpenAi,
        transport: Transport::Tcp,
        port: 8000,
        path: Some("/v1".to_owned()),
        to: Default::default(),
        health: Health {
            state: State::Up,
            since: UnixTime(1_800_000_000),
        },
        description: Some("the box in the cellar".to_owned()),
        tags: Default::default(),
        openai: Some(OpenAi {
            models: vec![model],
            ..OpenAi::default()
        }),
    }
}

#[test]
fn packets_of_an_established_session_allocate_nothing() {
    let mut crowd = connected();
    let (now, to) = (crowd.now().instant, crowd.members[7].ipv4);
    let (there, back) = (packet(US, to, 1420), packet(to, US, 1420));
    let exchange = |crowd: &mut Crowd| {
        let member = &mut crowd.members[7].tunnels;
        for _ in 0..64 {
            crowd.node.handle_overlay_packet(&there, now);
            member.handle_overlay_packet(&back, now);
        }
        for (_, datagram) in member.outbox().datagrams() {
            crowd.node.handle_datagram(crowd::path(7), datagram, now);
        }
        assert_eq!(crowd.node.inbox().len(), 64);
        crowd.node.inbox().clear();
        crowd.node.outbox().clear();
        member.outbox().clear();
    };
    // The first round makes the batches as large as they need to be.
    exchange(&mut crowd);
    let counted = measure(|| exchange(&mut crowd));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn a_node_that_starts_among_a_thousand_allocates_in_proportion() {
    let small = Cast::new(MEMBERS / 10);
    let large = Cast::new(MEMBERS);
    let small = measure(|| drop(small.begin())).bytes_total;
    let large = measure(|| drop(large.begin())).bytes_total;
    assert!(
        large < small * 20,
        "{small} bytes, {large} for ten times the members"
    );
}

#[test]
fn a_connection_to_a_member_that_knows_the_same_costs_a_hash() {
    let mut crowd = Crowd::new(MEMBERS);
    crowd.connect(0);
    let sent: Vec<_> = std::iter::from_fn(|| crowd.node.poll_output())
        .filter_map(|output| {
            if let Output::Sync { body, .. } = output {
                Some(body.len())
            } else {
                None
            }
        })
        .collect();
    assert!(matches!(sent[..], [length] if length < 64), "{sent:?}");
}

#[test]
fn news_of_another_member_is_passed_on_to_a_few_only() {
    let mut cast = Cast::new(MEMBERS);
    let unknown = cast.start.records.pop().expect("a thousand records");
    let mut crowd = cast.begin();
    for number in 0..CONNECTED {
        crowd.connect(number);
    }
    crowd.settle();
    let body = SyncMessage::announcement(unknown).encode();
    let (now, from) = (crowd.now(), crowd.members[0].id);
    crowd
        .node
        .handle_sync_request(RequestId(1), from, &body, now);
    let told = std::iter::from_fn(|| crowd.node.poll_output())
        .filter(|output| matches!(output, Output::Sync { peer, .. } if *peer != from))
        .count();
    assert!((1..=8).contains(&told), "{told} were told");
}
