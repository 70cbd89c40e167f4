//! What belongs under `svc/`.

use super::*;
use crate::{
    membership::wire,
    node::tests::registry::service,
    registry::{Kind, Model, OpenAi, Service, Transport},
};

fn judged(value: &[u8]) -> Result<Held, Rejection> {
    let reader = Reader::new();
    reader.judge(&reader.sealed(draft("svc/s", value)))
}

fn is_refused(service: &Service) -> bool {
    matches!(
        judged(&wire::encode(service)),
        Err(Rejection::WrongSchema(_))
    )
}

fn model(id: &str) -> Model {
    Model {
        id: id.into(),
        context: Some(8192),
        max_output: None,
        price_in: Some(100),
        price_out: None,
        quantization: None,
        loaded: Some(true),
    }
}

fn llm() -> Service {
    Service {
        kind: Kind::OpenAi,
        path: Some("/v1".into()),
        description: Some("for all of us".into()),
        openai: Some(OpenAi {
            models: vec![model("llama3:8b")],
            currency: Some("EUR".into()),
            payee: None,
        }),
        ..service(8000)
    }
}

#[test]
fn a_service_of_every_kind_is_taken() {
    for kind in [
        Kind::Ssh,
        Kind::Postgres,
        Kind::Http,
        Kind::Https,
        Kind::Tcp,
        Kind::Udp,
        Kind::Dns,
        Kind::Metrics,
        Kind::Vendor("x-comfy".into()),
    ] {
        let transport = kind.transport();
        let service = Service {
            kind,
            transport,
            ..service(80)
        };
        let held = judged(&wire::encode(&service)).unwrap();
        assert_eq!(held.service, Some(service));
    }
    assert!(judged(&wire::encode(&llm())).is_ok());
}

#[test]
fn what_is_no_service_is_refused_below_svc_and_taken_elsewhere() {
    for value in [&b""[..], b"{}", b"\xa0", b"\x80", b"\xff", b"\x18\x2a"] {
        assert!(judged(value).is_err(), "{value:?}");
        let reader = Reader::new();
        assert!(reader.judge(&reader.sealed(draft("x/s", value))).is_ok());
    }
    let reader = Reader::new();
    let value = wire::encode(&service(80));
    for place in ["svc", "svc/a/b", "svc/-a", "svc/a.b"] {
        let sealed = reader.sealed(draft(place, &value));
        assert!(reader.judge(&sealed).is_err(), "{place}");
    }
}

#[test]
fn a_field_that_a_service_does_not_have_is_refused() {
    let value = wire::encode(&service(80));
    assert_eq!(value[0] & 0xe0, 0xa0, "a short map");
    let mut more = value.clone();
    more[0] += 1;
    more.extend_from_slice(&[0x18, 99, 0x01]);
    assert!(matches!(judged(&more), Err(Rejection::WrongSchema(_))));
    let mut behind = value;
    behind.push(0);
    assert!(matches!(judged(&behind), Err(Rejection::Malformed(_))));
}

#[test]
fn every_field_has_its_bounds() {
    let bad: [fn(&mut Service); 15] = [
        |service| service.port = 0,
        |service| service.transport = Transport::Udp,
        |service| service.kind = Kind::Ssh,
        |service| service.kind = Kind::Vendor("gopher".into()),
        |service| service.path = Some("v1".into()),
        |service| service.path = Some("/v 1".into()),
        |service| service.path = Some(format!("/{}", "v".repeat(300))),
        |service| service.description = Some("\x1b[2Jgone".into()),
        |service| service.description = Some("\u{202e}drawkcab".into()),
        |service| service.description = Some("x".repeat(257)),
        |service| service.tags = (0..33).map(|n| n.to_string()).collect(),
        |service| service.tags = [String::new()].into(),
        |service| service.to = (0..65).map(|n| format!("n{n}").parse().unwrap()).collect(),
        |service| service.openai.as_mut().unwrap().currency = Some("€\n".into()),
        |service| service.openai.as_mut().unwrap().payee = Some("x".repeat(257)),
    ];
    for (at, bend) in bad.iter().enumerate() {
        let mut service = llm();
        bend(&mut service);
        assert!(is_refused(&service), "number {at}");
    }
}

#[test]
fn only_a_model_server_has_models_and_each_once_and_not_too_many() {
    let mut postgres = llm();
    (postgres.kind, postgres.path) = (Kind::Postgres, None);
    assert!(is_refused(&postgres));
    let with = |models: Vec<Model>| {
        let mut service = llm();
        service.openai.as_mut().unwrap().models = models;
        service
    };
    let many = |count| with((0..count).map(|n| model(&format!("m{n}"))).collect());
    assert!(judged(&wire::encode(&many(64))).is_ok());
    assert!(is_refused(&many(65)));
    assert!(is_refused(&with(vec![model("same"), model("same")])));
    assert!(is_refused(&with(vec![model("")])));
    assert!(is_refused(&with(vec![model(&"m".repeat(201))])));
    assert!(is_refused(&with(vec![model("a\0b")])));
    let dear = Model {
        price_out: Some(u64::MAX),
        ..model("dear")
    };
    assert!(is_refused(&with(vec![dear])));
}

#[test]
fn a_model_server_with_more_than_a_value_holds_is_refused() {
    let mut service = llm();
    let long = |n: usize| model(&format!("{n}{}", "m".repeat(190)));
    service.openai.as_mut().unwrap().models = (0..64).map(long).collect();
    let refused = judged(&wire::encode(&service)).unwrap_err();
    assert!(matches!(refused, Rejection::TooLarge { .. }), "{refused}");
}
