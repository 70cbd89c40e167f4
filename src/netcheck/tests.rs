use super::*;
use crate::control::{Connection, Network, Own};

const OURS: &str = "10.0.1.10";
const MAPPED: &str = "203.0.113.101:7777";

fn node(name: &str, relays: bool) -> Node {
    Node {
        name: name.to_owned(),
        peer_id: format!("12D3{name}"),
        ipv4: None,
        ipv6: "fd00::1".parse().unwrap(),
        this: name == "a",
        online: true,
        relays,
        groups: Vec::new(),
        powers: Vec::new(),
        admitted_at: 0,
    }
}

fn peer(name: &str, path: &str, rtt_ms: Option<f64>) -> Peer {
    Peer {
        name: name.to_owned(),
        peer_id: format!("12D3{name}"),
        ipv4: None,
        ipv6: "fd00::2".parse().unwrap(),
        online: true,
        path: path.to_owned(),
        endpoint: None,
        relay: None,
        rtt_ms,
        mtu: None,
        tx_bytes: 0,
        rx_bytes: 0,
        last_handshake_s: None,
        post_quantum: false,
    }
}

fn connection(name: &str, transport: Transport) -> Connection {
    Connection {
        peer_id: format!("12D3{name}"),
        transport,
        endpoint: None,
    }
}

/// A node `a` behind a NAT, with two public members `r` and `s` and one behind a NAT, `b`.
fn facts() -> Facts {
    Facts {
        status: Status {
            network: Network {
                name: "home".into(),
                id: "ab".into(),
            },
            node: Own {
                name: "a".into(),
                peer_id: "12D3a".into(),
                ipv4: None,
                ipv6: "fd00::1".parse().unwrap(),
                interface: "hive0".into(),
                listen: Vec::new(),
                reachability: "private".into(),
                standing: "member".to_owned(),
                expelled: None,
            },
            peers: vec![
                peer("b", "relay", Some(9.0)),
                peer("r", "direct", Some(2.0)),
                peer("s", "direct", Some(1.0)),
            ],
            drops: BTreeMap::new(),
            rejections: BTreeMap::new(),
        },
        nodes: vec![
            node("a", false),
            node("b", false),
            node("r", true),
            node("s", true),
        ],
        underlay: Underlay {
            port: 7777,
            mtu: 1420,
            ipv4_prefix: "10.77.0.0/16".into(),
            certificate_expires_at: 0,
            certificate_issuer: "12D3r".into(),
            time_floor: 0,
            reservations: vec!["12D3r".into()],
            connections: vec![
                connection("r", Transport::Quic),
                connection("s", Transport::Quic),
                connection("b", Transport::Relay),
            ],
            port_mapping: None,
            observations: Vec::new(),
            addresses: Vec::new(),
            control_traffic: ControlTraffic::default(),
        },
        addresses: vec![OURS.parse().unwrap()],
        tokens_v4: Tokens::default(),
        tokens_v6: Tokens::default(),
    }
}

/// What these members, each `name@address`, see us as.
fn seen(views: &[(&str, &str)]) -> Facts {
    let mut facts = facts();
    let observations = views.iter().map(|(observer, endpoint)| {
        let (name, from) = observer.split_once('@').unwrap();
        Observation {
            peer_id: format!("12D3{name}"),
            from: from.parse().unwrap(),
            endpoint: endpoint.parse().unwrap(),
        }
    });
    facts.underlay.observations = observations.collect();
    facts
}

const R: &str = "r@203.0.113.11:7777";
const S: &str = "s@203.0.113.12:7777";

fn ipv4(facts: &Facts) -> Family {
    judge(facts).ipv4.unwrap()
}

#[test]
fn two_members_that_agree_make_a_mapping_independent_of_the_destination() {
    let report = ipv4(&seen(&[(R, MAPPED), (S, MAPPED)]));
    assert_eq!(
        (report.mapping, report.port_preserved),
        (Mapping::EndpointIndependent, Some(true))
    );
    let by = ["r".to_owned(), "s".to_owned()];
    assert_eq!(
        (report.seen_as.len(), &report.seen_as[0].by[..]),
        (1, &by[..])
    );
}

#[test]
fn two_members_that_differ_make_it_dependent() {
    let report = ipv4(&seen(&[
        (R, "203.0.113.101:40001"),
        (S, "203.0.113.101:40002"),
    ]));
    assert_eq!(
        (report.mapping, report.port_preserved),
        (Mapping::AddressOrPortDependent, Some(false))
    );
}

#[test]
fn one_member_alone_tells_of_no_mapping_and_neither_do_two_at_one_address() {
    let report = ipv4(&seen(&[(R, "203.0.113.101:17777")]));
    assert_eq!(
        (report.mapping, report.port_preserved),
        (Mapping::Unknown, Some(false))
    );
    let twins = seen(&[(R, MAPPED), ("s@203.0.113.11:7778", MAPPED)]);
    assert_eq!(ipv4(&twins).mapping, Mapping::Unknown);
    let report = ipv4(&facts());
    assert_eq!(
        (report.mapping, report.port_preserved),
        (Mapping::Unknown, None)
    );
}

#[test]
fn our_own_address_seen_from_outside_means_no_nat() {
    let mut facts = seen(&[(R, "203.0.113.10:7777")]);
    facts.addresses = vec!["203.0.113.10".parse().unwrap()];
    assert_eq!(ipv4(&facts).mapping, Mapping::None);
}

#[test]
fn a_neighbour_s_view_says_nothing_of_the_nat() {
    let neighbour = ("b@10.0.1.11:7777", "10.0.1.10:7777");
    let behind = seen(&[neighbour, (R, MAPPED), (S, MAPPED)]);
    assert_eq!(ipv4(&behind).mapping, Mapping::EndpointIndependent);
    assert_eq!(observers(&behind, IpAddr::is_ipv4).len(), 2);
    // By way of the router, which puts its own address on it.
    let hairpin = seen(&[
        ("b@10.0.1.11:7777", "10.0.1.1:7777"),
        (R, MAPPED),
        (S, MAPPED),
    ]);
    assert_eq!(ipv4(&hairpin).mapping, Mapping::EndpointIndependent);
}

#[test]
fn a_later_connection_of_a_peer_replaces_what_it_saw_before() {
    let rebooted = seen(&[(R, "203.0.113.101:1"), (R, MAPPED), (S, MAPPED)]);
    assert_eq!(ipv4(&rebooted).mapping, Mapping::EndpointIndependent);
}

#[test]
fn filtering_is_what_became_of_the_tokens() {
    let mut facts = facts();
    let mut filtering = |tokens: Tokens| {
        facts.tokens_v4 = tokens;
        let report = ipv4(&facts);
        (report.filtering, report.filtering_unknown)
    };
    let arrived = Tokens {
        arrived: Some("203.0.113.11:4711".into()),
        lost: 1,
        refused: None,
    };
    assert_eq!(filtering(arrived), (Filtering::PortIndependent, None));
    let lost = |lost, refused: Option<&str>| Tokens {
        arrived: None,
        lost,
        refused: refused.map(str::to_owned),
    };
    let expected = (Filtering::AddressAndPortDependent, None);
    assert_eq!(filtering(lost(2, None)), expected);
    let (kind, why) = filtering(lost(1, Some("r is busy")));
    assert_eq!(
        (kind, why.as_deref()),
        (Filtering::Unknown, Some("r is busy"))
    );
    assert!(filtering(lost(0, None)).1.unwrap().contains("no member"));
}

#[test]
fn udp_works_if_anybody_is_reached_by_it() {
    let works = |facts: &Facts| judge(facts).udp.works;
    let mut facts = facts();
    assert_eq!(works(&facts), Some(true));
    // The pair's path is relayed, but the relay itself is reached.
    for peer in &mut facts.status.peers {
        peer.path = "relay".into();
    }
    assert_eq!(works(&facts), Some(true));
    for connection in &mut facts.underlay.connections {
        if connection.transport == Transport::Quic {
            connection.transport = Transport::Tcp;
        }
    }
    let udp = judge(&facts).udp;
    assert_eq!(udp.works, Some(false));
    assert!(udp.reason.starts_with("2 members"), "{}", udp.reason);
    for peer in &mut facts.status.peers {
        peer.online = false;
    }
    assert_eq!(works(&facts), None);
}

#[test]
fn relays_come_with_the_fastest_first_and_say_who_holds_our_reservation() {
    let relays = judge(&facts()).relays;
    let shown: Vec<_> = relays
        .iter()
        .map(|relay| (relay.name.as_str(), relay.rtt_ms, relay.reserved))
        .collect();
    assert_eq!(shown, [("s", Some(1.0), false), ("r", Some(2.0), true)]);
}

#[test]
fn the_path_to_a_peer_behind_a_nat_follows_from_ours() {
    let predicted = |facts: &Facts| {
        let report = judge(facts);
        let of_b = report.peers.into_iter().find(|peer| peer.name == "b");
        let of_b = of_b.unwrap();
        assert!(!of_b.reason.is_empty());
        of_b.predicted
    };
    assert_eq!(predicted(&seen(&[(R, MAPPED), (S, MAPPED)])), "direct");
    let symmetric = seen(&[(R, "203.0.113.101:1"), (S, "203.0.113.101:2")]);
    assert_eq!(predicted(&symmetric), "relay");
    let mut in_use = symmetric;
    in_use.status.peers[0].path = "direct".into();
    assert_eq!(predicted(&in_use), "direct");
    let mut blocked = facts();
    blocked.underlay.connections = vec![connection("r", Transport::Tcp)];
    for peer in &mut blocked.status.peers {
        peer.path = "relay".into();
    }
    assert_eq!(predicted(&blocked), "relay");
    let to_r = judge(&blocked)
        .peers
        .into_iter()
        .find(|peer| peer.name == "r");
    assert_eq!(to_r.unwrap().predicted, "stream");
}

#[test]
fn a_family_without_an_address_is_not_there() {
    let report = judge(&facts());
    assert!(report.ipv4.is_some() && report.ipv6.is_none());
    let value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["ipv4"]["mapping"], "unknown");
    assert!(value["ipv6"].is_null() && value["port_mapping"].is_null());
}
