use std::{collections::BTreeSet, net::Ipv6Addr};

use hivevpn_core::{
    membership::{Name as Label, UnixTime},
    policy::Selector,
    registry::{Health, Kind, Model, OpenAi, Service},
};
use libp2p::identity::Keypair;
use proptest::prelude::*;

use super::*;

/// A member of a network `home`; the first is this node.
fn member(number: u8, name: &str) -> Member {
    let label = Label::parse(name).unwrap();
    Member {
        name: label.clone(),
        certified: Some(label),
        peer_id: Keypair::generate_ed25519().public().to_peer_id(),
        ipv4: Some([10, 77, 0, number].into()),
        ipv6: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()),
        groups: BTreeSet::new(),
        online: true,
        rtt: Some(Duration::from_millis(20)),
        this: number == 1,
    }
}

fn service(owner: &Member, name: &str, state: State) -> ServiceStatus {
    let model = Model {
        id: "llama-70b".to_owned(),
        context: None,
        max_output: None,
        price_in: None,
        price_out: None,
        quantization: None,
        loaded: None,
    };
    ServiceStatus {
        owner: owner.peer_id,
        name: Label::parse(name).unwrap(),
        service: Service {
            kind: Kind::OpenAi,
            transport: Transport::Tcp,
            port: 8000,
            path: Some("/v1".to_owned()),
            to: BTreeSet::new(),
            health: Health {
                state,
                since: UnixTime(1),
            },
            description: None,
            tags: BTreeSet::from(["fast".to_owned()]),
            openai: Some(OpenAi {
                models: vec![model],
                ..OpenAi::default()
            }),
        },
        load: None,
        issued: UnixTime(1),
        expires: UnixTime(2),
    }
}

pub(in crate::names) fn snapshot(members: Vec<Member>, services: Vec<ServiceStatus>) -> Snapshot {
    Snapshot {
        network: "home".to_owned(),
        interface: "hive0".to_owned(),
        ranges: vec![
            "10.77.0.0/16".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        members: members.into(),
        services: services.into(),
        ..Snapshot::default()
    }
}

/// This node, `gpu` and `laptop`.
pub(in crate::names) fn three() -> Vec<Member> {
    vec![member(1, "desk"), member(2, "gpu"), member(3, "laptop")]
}

fn ask(snapshot: &Snapshot, name: &str, kind: RecordType) -> Option<Answer> {
    let name = Name::from_ascii(name).unwrap();
    Zone::of(snapshot)
        .unwrap()
        .answer(&Query::query(name, kind))
}

/// What `dig +short` would show, sorted; or the code.
fn dig(snapshot: &Snapshot, name: &str, kind: RecordType) -> Vec<String> {
    let Some(answer) = ask(snapshot, name, kind) else {
        return vec!["not ours".to_owned()];
    };
    assert_eq!(answer.answers.is_empty(), !answer.authority.is_empty());
    if answer.code != ResponseCode::NoError {
        return vec![answer.code.to_string()];
    }
    let mut said: Vec<_> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    said.sort();
    said
}

const NO_SUCH_NAME: [&str; 1] = ["Non-Existent Domain"];
const NOTHING: [&str; 0] = [];

#[test]
fn a_node_has_its_addresses_whatever_the_case() {
    let home = snapshot(three(), Vec::new());
    for name in ["gpu.home.hive.internal.", "GPU.Home.HIVE.internal."] {
        assert_eq!(dig(&home, name, RecordType::A), ["10.77.0.2"]);
        assert_eq!(dig(&home, name, RecordType::AAAA), ["fd00::2"]);
        assert_eq!(dig(&home, name, RecordType::MX), NOTHING);
    }
    for name in [
        "tpu.home.hive.internal.",
        "a.gpu.home.hive.internal.",
        "*.home.hive.internal.",
    ] {
        assert_eq!(dig(&home, name, RecordType::A), NO_SUCH_NAME, "{name}");
    }
}

#[test]
fn names_of_others_and_of_other_networks_are_not_ours() {
    let home = snapshot(three(), Vec::new());
    for name in [
        "example.org.",
        "gpu.work.hive.internal.",
        "hive.internal.",
        ".",
        "gpu.home.hive.internal.org.",
    ] {
        assert_eq!(dig(&home, name, RecordType::A), ["not ours"], "{name}");
    }
    let is_private = |name| is_private(&Name::from_ascii(name).unwrap());
    assert!(is_private("gpu.work.hive.internal.") && is_private("Hive.Internal."));
    assert!(!is_private("metadata.google.internal."));
}

#[test]
fn a_name_that_a_node_gave_itself_does_not_resolve() {
    let mut members = three();
    members[1].certified = None;
    let offered = service(&members[1], "llm", State::Up);
    let home = snapshot(members, vec![offered]);
    assert_eq!(
        dig(&home, "gpu.home.hive.internal.", RecordType::A),
        NO_SUCH_NAME
    );
    assert_eq!(
        dig(&home, "llm.gpu.home.hive.internal.", RecordType::A),
        NO_SUCH_NAME
    );
    assert_eq!(
        dig(&home, "2.0.77.10.in-addr.arpa.", RecordType::PTR),
        NO_SUCH_NAME
    );
    // It is a member all the same, and what it offers is found; but nothing can point to it by name.
    assert_eq!(
        dig(&home, "llm.svc.home.hive.internal.", RecordType::A),
        ["10.77.0.2"]
    );
    assert_eq!(
        dig(&home, "_llm._tcp.svc.home.hive.internal.", RecordType::SRV),
        NO_SUCH_NAME
    );
}

#[test]
fn a_node_cannot_take_the_place_of_services_or_of_the_models() {
    let home = snapshot(
        vec![member(1, "desk"), member(2, "ai"), member(3, "svc")],
        Vec::new(),
    );
    assert_eq!(
        dig(&home, "ai.home.hive.internal.", RecordType::A),
        ["10.77.0.1"]
    );
    assert_eq!(
        dig(&home, "svc.home.hive.internal.", RecordType::A),
        NOTHING
    );
    assert_eq!(
        dig(&home, "2.0.77.10.in-addr.arpa.", RecordType::PTR),
        NO_SUCH_NAME
    );
}

#[test]
fn the_network_s_own_name_is_this_node_and_says_who_answers() {
    let home = snapshot(three(), Vec::new());
    let apex = "home.hive.internal.";
    assert_eq!(dig(&home, apex, RecordType::A), ["10.77.0.1"]);
    assert_eq!(dig(&home, apex, RecordType::NS), [apex]);
    let soa = dig(&home, apex, RecordType::SOA);
    assert!(
        soa[0].starts_with("home.hive.internal. hostmaster.home.hive.internal."),
        "{soa:?}"
    );
    let ns = ask(&home, apex, RecordType::NS).unwrap();
    assert_eq!(ns.additional.len(), 2, "its addresses come along");
}

#[test]
fn an_address_has_the_name_of_its_node() {
    let home = snapshot(three(), Vec::new());
    let v6 = Name::from("fd00::3".parse::<Ipv6Addr>().unwrap()).to_ascii();
    assert_eq!(
        dig(&home, "2.0.77.10.in-addr.arpa.", RecordType::PTR),
        ["gpu.home.hive.internal."]
    );
    assert_eq!(
        dig(&home, &v6, RecordType::PTR),
        ["laptop.home.hive.internal."]
    );
    assert_eq!(dig(&home, &v6, RecordType::A), NOTHING);
    assert_eq!(
        dig(&home, "9.0.77.10.in-addr.arpa.", RecordType::PTR),
        NO_SUCH_NAME
    );
    assert_eq!(
        dig(&home, "0.77.10.in-addr.arpa.", RecordType::PTR),
        NOTHING
    );
    assert_eq!(
        dig(&home, "5.77.10.in-addr.arpa.", RecordType::PTR),
        NO_SUCH_NAME
    );
    assert_eq!(
        dig(&home, "77.10.in-addr.arpa.", RecordType::NS),
        ["home.hive.internal."]
    );
    for others in [
        "10.in-addr.arpa.",
        "2.0.78.10.in-addr.arpa.",
        "1.0.0.127.in-addr.arpa.",
    ] {
        assert_eq!(
            dig(&home, others, RecordType::PTR),
            ["not ours"],
            "{others}"
        );
    }
}

#[test]
fn the_zone_of_an_address_is_the_smallest_within_the_range() {
    let zone = |range: &str, address: &str| {
        let zone = zone_of(&range.parse().unwrap(), address.parse().unwrap());
        zone.unwrap().to_ascii()
    };
    assert_eq!(zone("10.77.0.0/16", "10.77.3.4"), "77.10.in-addr.arpa.");
    assert_eq!(
        zone("10.77.16.0/20", "10.77.17.4"),
        "17.77.10.in-addr.arpa."
    );
    assert_eq!(zone("10.0.0.0/8", "10.77.3.4"), "10.in-addr.arpa.");
    let ranges =
        ["10.77.0.0/16", "10.77.16.0/20", "fd00:1::/48"].map(|range| range.parse().unwrap());
    assert_eq!(
        reverse_domains(&ranges),
        ["77.10.in-addr.arpa", "0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa"]
    );
}

#[test]
fn a_service_of_a_node_says_where_and_what_it_is() {
    let members = three();
    let offered = service(&members[1], "llm", State::Down);
    let home = snapshot(members, vec![offered]);
    assert_eq!(
        dig(&home, "llm.gpu.home.hive.internal.", RecordType::A),
        ["10.77.0.2"]
    );
    let text = ask(&home, "llm.gpu.home.hive.internal.", RecordType::TXT).unwrap();
    let RData::TXT(text) = &text.answers[0].data else {
        panic!("{text:?}")
    };
    let text: Vec<_> = text
        .txt_data
        .iter()
        .map(|t| str::from_utf8(t).unwrap())
        .collect();
    assert_eq!(
        text,
        [
            "kind=openai",
            "port=8000",
            "health=down",
            "path=/v1",
            "model=llama-70b",
            "tag=fast"
        ]
    );
    let srv = ask(&home, "_llm._tcp.gpu.home.hive.internal.", RecordType::SRV).unwrap();
    assert_eq!(
        srv.answers[0].data.to_string(),
        "30 50 8000 gpu.home.hive.internal."
    );
    assert_eq!(srv.additional.len(), 2);
    assert_eq!(
        dig(&home, "_tcp.gpu.home.hive.internal.", RecordType::SRV),
        NOTHING
    );
    for name in [
        "_llm._udp.gpu",
        "_udp.gpu",
        "llm._tcp.gpu",
        "_tcp.laptop",
        "llm.laptop",
    ] {
        let name = format!("{name}.home.hive.internal.");
        assert_eq!(dig(&home, &name, RecordType::SRV), NO_SUCH_NAME, "{name}");
    }
}

#[test]
fn a_service_of_many_is_all_who_are_well_and_reached_and_let_us_in() {
    let mut members = three();
    members.extend([member(4, "away"), member(5, "ill"), member(6, "shy")]);
    members[3].online = false;
    // Nobody is connected to itself.
    members[0].online = false;
    let mut offered: Vec<_> = members
        .iter()
        .map(|owner| service(owner, "llm", State::Up))
        .collect();
    offered[4].service.health.state = State::Degraded;
    offered[5]
        .service
        .to
        .insert(Selector::Node(Label::parse("laptop").unwrap()));
    let pool = "llm.svc.home.hive.internal.";
    let mut home = snapshot(members.clone(), offered.clone());
    assert_eq!(
        dig(&home, pool, RecordType::A),
        ["10.77.0.1", "10.77.0.2", "10.77.0.3"]
    );
    let ports = "_llm._tcp.svc.home.hive.internal.";
    assert_eq!(
        dig(&home, ports, RecordType::SRV),
        [
            "10 50 8000 gpu.home.hive.internal.",
            "10 50 8000 laptop.home.hive.internal.",
            "10 65535 8000 desk.home.hive.internal.",
            "20 50 8000 ill.home.hive.internal.",
        ]
    );
    for offer in &mut offered[..4] {
        offer.service.health.state = State::Down;
    }
    home = snapshot(members.clone(), offered.clone());
    assert_eq!(
        dig(&home, pool, RecordType::A),
        ["10.77.0.5"],
        "better ill than nobody"
    );
    offered[4].service.health.state = State::Down;
    home = snapshot(members, offered);
    assert_eq!(dig(&home, pool, RecordType::A), NOTHING, "it exists");
    assert_eq!(
        dig(&home, "other.svc.home.hive.internal.", RecordType::A),
        NO_SUCH_NAME
    );
}

#[test]
fn a_service_of_many_comes_in_any_order() {
    let members: Vec<_> = (1..=8).map(|n| member(n, &format!("n{n}"))).collect();
    let offered = members.iter().map(|owner| service(owner, "llm", State::Up));
    let home = snapshot(members.clone(), offered.collect());
    let firsts: BTreeSet<_> = (0..200)
        .map(|_| {
            let answer = ask(&home, "llm.svc.home.hive.internal.", RecordType::A).unwrap();
            answer.answers[0].data.to_string()
        })
        .collect();
    // 200 draws miss one of eight in one of 10^10 runs.
    assert_eq!(firsts.len(), 8);
}

#[test]
fn who_is_near_is_asked_more_often() {
    let nearness = [0, 1, 2, 10, 999, 5000].map(|ms| nearness(Duration::from_millis(ms)));
    assert_eq!(nearness, [1000, 1000, 500, 100, 1, 1]);
}

#[test]
fn nothing_is_remembered_for_long() {
    let members = three();
    let offered = service(&members[1], "llm", State::Up);
    let home = snapshot(members, vec![offered]);
    for name in ["gpu", "llm.gpu", "llm.svc", "nobody"] {
        let answer = ask(&home, &format!("{name}.home.hive.internal."), RecordType::A).unwrap();
        let records = answer.answers.iter().chain(&answer.authority);
        for record in records {
            assert!((5..=30).contains(&record.ttl), "{record}");
        }
    }
}

proptest! {
    #[test]
    fn no_name_is_too_strange_to_be_answered(labels in prop::collection::vec("[ -~]{1,20}", 0..5), arpa: bool) {
        let end: &[&str] = if arpa { &["in-addr", "arpa"] } else { &["home", "hive", "internal"] };
        let labels = labels.iter().map(String::as_str).chain(end.iter().copied());
        let name = Name::from_labels(labels.map(str::as_bytes)).unwrap();
        let members = three();
        let offered = service(&members[1], "llm", State::Up);
        let home = snapshot(members, vec![offered]);
        for kind in [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY] {
            let answer = Zone::of(&home).unwrap().answer(&Query::query(name.clone(), kind));
            prop_assert!(arpa || answer.is_some());
        }
    }
}
