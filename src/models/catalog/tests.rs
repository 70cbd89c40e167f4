//! Who is found for a model, and what is said when nobody is.

use hivevpn_core::policy::Selector;

use super::{
    super::tests::{named, network, serving},
    *,
};

fn nodes(wanted: Result<Wanted, Problem>) -> Vec<String> {
    let offers = wanted.unwrap().offers.into_iter();
    offers.map(|offer| offer.node).collect()
}

fn refusal(wanted: Result<Wanted, Problem>) -> (u16, String) {
    let problem = wanted.unwrap_err();
    (problem.status.as_u16(), problem.message)
}

#[test]
fn everybody_who_has_the_model_and_is_reached_is_found() {
    let (us, gpu, box1, away) = (
        named("us").this(),
        named("gpu"),
        named("box"),
        named("away").offline(),
    );
    let services = [
        serving(&us, 1, &["llama"]),
        serving(&gpu, 1, &["llama", "qwen"]),
        serving(&box1, 1, &["qwen"]),
        serving(&away, 1, &["llama", "phi"]),
    ];
    let snapshot = network([us, gpu, box1, away], services);
    assert_eq!(nodes(wanted(&snapshot, "llama", None)), ["us", "gpu"]);
    assert_eq!(nodes(wanted(&snapshot, "qwen", None)), ["gpu", "box"]);
    let (status, why) = refusal(wanted(&snapshot, "phi", None));
    assert_eq!(status, 503);
    assert!(why.contains("away"), "{why}");
    let ids: Vec<_> = listed(&snapshot)
        .into_iter()
        .map(|model| (model.id, model.node))
        .collect();
    let expected = [
        ("llama", "gpu"),
        ("llama", "us"),
        ("qwen", "box"),
        ("qwen", "gpu"),
    ];
    assert_eq!(
        ids,
        expected.map(|(id, node)| (id.to_owned(), node.to_owned()))
    );
}

#[test]
fn what_is_down_or_over_or_closed_to_us_is_not_there() {
    let (us, gpu) = (named("us").this(), named("gpu"));
    let offering = |change: fn(&mut ServiceStatus)| {
        let mut status = serving(&gpu, 1, &["llama"]);
        change(&mut status);
        let snapshot = network([us.clone(), gpu.clone()], [status]);
        wanted(&snapshot, "llama", None).map_err(|problem| problem.status.as_u16())
    };
    assert!(offering(|_| ()).is_ok());
    assert!(offering(|status| status.service.health.state = State::Degraded).is_ok());
    let down = |status: &mut ServiceStatus| status.service.health.state = State::Down;
    assert_eq!(offering(down), Err(503));
    assert_eq!(offering(|status| status.expires.0 = 1), Err(503));
    let closed = |status: &mut ServiceStatus| {
        let others = Name::parse("others").unwrap();
        status.service.to = [Selector::Group(others)].into();
    };
    assert_eq!(offering(closed), Err(503));
    assert_eq!(
        offering(|status| status.service.kind = Kind::Http),
        Err(404)
    );
}

#[test]
fn a_node_behind_the_model_pins_it() {
    let (us, gpu, box1) = (named("us").this(), named("gpu"), named("box"));
    let gpu = gpu.at([10, 77, 0, 9].into());
    let address = gpu.address().to_string();
    let peer = gpu.peer_id.to_string();
    let services = [
        serving(&gpu, 1, &["llama", "odd@box"]),
        serving(&box1, 1, &["llama"]),
    ];
    let snapshot = network([us, gpu, box1], services);
    for node in ["gpu", &address, &peer] {
        let found = wanted(&snapshot, &format!("llama@{node}"), None).unwrap();
        assert_eq!(found.id, "llama");
        assert_eq!(nodes(Ok(found)), ["gpu"], "{node}");
        assert_eq!(nodes(wanted(&snapshot, "llama", Some(node))), ["gpu"]);
    }
    // An id may have an '@' of its own.
    assert_eq!(wanted(&snapshot, "odd@box", None).unwrap().id, "odd@box");
    let (status, why) = refusal(wanted(&snapshot, "llama@us", None));
    assert_eq!(status, 404);
    assert!(why.contains("'us'") && why.contains("box, gpu"), "{why}");
}

/// The attack: a member calls itself as another one's certificate does, to be sent what was meant for that one.
#[test]
fn a_name_that_somebody_chose_for_itself_does_not_draw_requests() {
    let (us, gpu) = (named("us").this(), named("gpu"));
    let mut impostor = named("gpu");
    impostor.certified = None;
    let services = [
        serving(&impostor, 1, &["llama"]),
        serving(&gpu, 1, &["llama"]),
    ];
    let meant = gpu.peer_id;
    let snapshot = network([us, impostor, gpu], services);
    let offers = wanted(&snapshot, "llama@gpu", None).unwrap().offers;
    let peers: Vec<_> = offers.iter().map(|offer| offer.peer).collect();
    assert_eq!(peers, [meant]);
}

#[test]
fn a_model_that_nobody_has_is_answered_with_close_ones() {
    let (us, gpu) = (named("us").this(), named("gpu"));
    let models = ["llama-3.1-8b", "llama-3.1-70b", "qwen", "whisper"];
    let services = [serving(&gpu, 1, &models)];
    let snapshot = network([us.clone(), gpu], services);
    let said = |id: &str| refusal(wanted(&snapshot, id, None));
    let (status, why) = said("Llama-3.1-8B");
    assert_eq!(status, 404);
    assert!(
        why.ends_with("did you mean llama-3.1-8b, llama-3.1-70b?"),
        "{why}"
    );
    assert!(said("qwem").1.contains("did you mean qwen?"));
    assert!(said("gpt-4").1.contains("'hivevpn models'"));
    let empty = network([us], []);
    assert!(
        refusal(wanted(&empty, "x", None))
            .1
            .contains("no member offers any model")
    );
    // What somebody sent does not come back in full length.
    assert!(said(&"\u{7}x".repeat(5000)).1.len() < 1000);
}

#[test]
fn a_model_of_several_nodes_is_one_object() {
    let (us, gpu, box1) = (named("us").this(), named("gpu"), named("box"));
    let mut services = [serving(&gpu, 1, &["llama"]), serving(&box1, 1, &["llama"])];
    services[0].service.openai.as_mut().unwrap().models[0].context = Some(8192);
    services[1].service.openai.as_mut().unwrap().models[0].context = Some(4096);
    services[1].service.openai.as_mut().unwrap().models[0].loaded = Some(true);
    let snapshot = network([us, gpu, box1], services);
    let objects = objects(&snapshot);
    let [object] = &objects[..] else {
        panic!("{objects:?}");
    };
    let created = object["created"].as_u64().unwrap();
    let expected = json!({
        "id": "llama", "object": "model", "created": created, "owned_by": "box", "nodes": ["box", "gpu"],
        "context_length": 4096, "loaded": true,
    });
    assert_eq!(*object, expected);
}

#[test]
fn distances_count_edits() {
    for (from, to, edits) in [
        ("", "", 0),
        ("", "ab", 2),
        ("kitten", "sitting", 3),
        ("ab", "ba", 2),
    ] {
        assert_eq!(distance(from, to), edits, "{from} {to}");
        assert_eq!(distance(to, from), edits, "{to} {from}");
    }
}
