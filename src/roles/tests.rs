use std::time::Duration;

use super::*;
use crate::audit;

fn access() -> (tempfile::TempDir, Access) {
    let state = tempfile::tempdir().unwrap();
    let access = Access::new(Audit::open(state.path()).unwrap());
    (state, access)
}

fn every_request() -> Vec<Request> {
    let peer = || "b".to_owned();
    vec![
        Request::Status,
        Request::Nodes,
        Request::Invite {
            name: Some("laptop".into()),
            groups: vec!["gpu".into()],
            address: Some([10, 77, 0, 4].into()),
            expires_s: 60,
        },
        Request::Ping { peer: peer() },
        Request::Why { peer: peer() },
        Request::Bench {
            peer: peer(),
            seconds: 1,
        },
        Request::Id,
        Request::Underlay,
        Request::Clock { peer: peer() },
        Request::Reflect {
            peer: peer(),
            endpoint: ([192, 0, 2, 1], 1).into(),
        },
        Request::Dht(registry::Ask::Put {
            key: "a/b".into(),
            value: registry::Value::Text("secret".into()),
            lifetime_s: None,
        }),
        Request::Dht(registry::Ask::Delete { key: "a/b".into() }),
        Request::Dht(registry::Ask::Walk { prefix: None }),
        Request::Dht(registry::Ask::Routes),
        Request::Services(services::Ask::Services),
        Request::Services(services::Ask::Unexpose { name: "llm".into() }),
        Request::Services(services::Ask::Usage),
        Request::Services(services::Ask::ResetUsage { service: None }),
        Request::Down,
    ]
}

#[test]
fn a_member_without_a_role_is_refused_everything() {
    let (state, access) = access();
    for (number, request) in every_request().iter().enumerate() {
        let member = Caller::Member(PeerId::random(), Roles::NONE);
        let refused = access.allow(&member, request, Instant::now()).unwrap_err();
        assert!(
            matches!(refused, Refusal::Role { .. }),
            "{request:?}: {refused}"
        );
        let written = audit::read(state.path(), 1).unwrap();
        assert_eq!(written[0].request, rule(request).name, "{number}");
        assert!(written[0].outcome.starts_with("refused: "));
    }
}

#[test]
fn a_role_opens_its_own_requests_and_no_others() {
    let (_state, access) = access();
    let mut opened = 0;
    for (role, _) in Roles::NAMES {
        for request in every_request() {
            let member = Caller::Member(PeerId::random(), role);
            let allowed = access.allow(&member, &request, Instant::now());
            assert_eq!(allowed.is_ok(), rule(&request).role == role, "{request:?}");
            opened += usize::from(allowed.is_ok());
        }
    }
    assert_eq!(opened, every_request().len());
}

#[test]
fn root_and_the_daemon_s_user_may_ask_and_a_stranger_may_not() {
    let (state, access) = access();
    let us = privileges::effective_uid();
    let credentials = |uid| PeerCredentials { uid, gid: 1 << 30 };
    assert_eq!(access.local(credentials(0)), Ok(Caller::Local(0)));
    assert_eq!(access.local(credentials(us)), Ok(Caller::Local(us)));
    assert_eq!(access.local(credentials(1 << 30)), Err(Refusal::Stranger));
    let written = audit::read(state.path(), 9).unwrap();
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].caller, format!("uid {}", 1 << 30));
}

#[test]
fn a_member_of_the_group_may_ask_by_its_primary_group() {
    let (_state, mut access) = access();
    access.group = Some(77);
    let asker = PeerCredentials {
        uid: 1 << 30,
        gid: 77,
    };
    assert_eq!(access.local(asker), Ok(Caller::Local(1 << 30)));
}

#[test]
fn what_changes_something_is_written_down_without_what_it_made() {
    let (state, access) = access();
    let caller = Caller::Local(0);
    for request in every_request() {
        let rule = access.allow(&caller, &request, Instant::now()).unwrap();
        access.answered(&caller, &rule, &Reply::Ok("hive1secret".into()));
    }
    let written = audit::read(state.path(), 99).unwrap();
    let names: Vec<_> = written.iter().map(|entry| entry.request.as_str()).collect();
    assert_eq!(
        names,
        [
            "invite",
            "dht put",
            "dht delete",
            "unexpose",
            "usage reset",
            "down"
        ]
    );
    assert_eq!(written[0].subject.as_deref(), Some("laptop 10.77.0.4"));
    assert_eq!(written[0].outcome, "done");
    let text = std::fs::read_to_string(state.path().join(audit::FILE)).unwrap();
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_caller_who_asks_too_often_is_refused_and_that_is_written_down_once() {
    let (state, access) = access();
    let start = Instant::now();
    let member = Caller::Member(PeerId::random(), Roles::METRICS);
    let ask = |now| access.allow(&member, &Request::Status, now);
    let refused: Vec<_> = (0..50).filter_map(|_| ask(start).err()).collect();
    assert!(!refused.is_empty() && refused.iter().all(|why| *why == Refusal::TooOften));
    assert_eq!(audit::read(state.path(), 99).unwrap().len(), 1);
    assert!(ask(start + Duration::from_secs(10)).is_ok());
}
