//! What the books remember, and what they do not.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

/// Books whose clock shows what is in there.
fn ledger() -> (Ledger, Arc<AtomicU64>) {
    let hand = Arc::new(AtomicU64::new(1000));
    let shown = hand.clone();
    let clock = move || UnixTime(shown.load(Ordering::Relaxed));
    (Ledger::by(Box::new(clock)), hand)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn done(model: &str) -> Done {
    Done {
        model: model.to_owned(),
        failed: true,
        prompt_tokens: 5,
        completion_tokens: 7,
        estimated: true,
        first_byte: Some(Duration::from_millis(40)),
    }
}

/// Reads what was written down, as after a restart.
fn reopened(ledger: &Ledger) -> (Ledger, Vec<Misfit>) {
    let mut refused = Vec::new();
    let read = Ledger::default();
    for (key, row) in ledger.take_changes() {
        let key = key.to_string().parse().unwrap();
        let row = serde_json::to_vec(&row.unwrap()).unwrap();
        let row = serde_json::from_slice(&row).unwrap();
        refused.extend(read.restore(key, row).err());
    }
    (read, refused)
}

#[test]
fn what_was_written_down_goes_on_as_it_was() {
    let (ledger, hand) = ledger();
    let peer = PeerId::random();
    ledger.count(&name("llm"), peer, &name("a"), &done("tiny"));
    hand.store(2000, Ordering::Relaxed);
    ledger.count(&name("llm"), peer, &name("a"), &done("tiny"));
    ledger.count(&name("llm"), peer, &name("a"), &done(""));
    let (read, refused) = reopened(&ledger);
    assert_eq!((read.usage(None), refused), (ledger.usage(None), vec![]));
    let (_, tiny) = &read.usage(Some(&name("llm")))[1];
    assert_eq!((tiny.since, tiny.until), (1000, 2000));
    assert_eq!((tiny.requests, tiny.errors, tiny.prompt_tokens), (2, 2, 10));
    assert_eq!((tiny.completion_tokens, tiny.estimated_tokens), (14, 14));
    assert_eq!(tiny.first_bytes.median(), Some(40));
    assert!(read.take_changes().is_empty(), "it is written down already");
}

#[test]
fn a_reset_forgets_one_service_and_says_what_it_was() {
    let (ledger, hand) = ledger();
    let peer = PeerId::random();
    for service in ["chat", "code"] {
        ledger.count(&name(service), peer, &name("a"), &done("tiny"));
    }
    ledger.take_changes();
    let chat = ledger.usage(Some(&name("chat")));
    assert_eq!(ledger.reset(Some(&name("chat"))), chat);
    assert_eq!(ledger.take_changes(), [(chat[0].0.clone(), None)]);
    assert_eq!(ledger.usage(None), ledger.usage(Some(&name("code"))));

    hand.store(3000, Ordering::Relaxed);
    ledger.count(&name("chat"), peer, &name("a"), &done("tiny"));
    let (_, anew) = &ledger.usage(Some(&name("chat")))[0];
    assert_eq!((anew.since, anew.requests), (3000, 1));
    assert_eq!(ledger.reset(None).len(), 2);
    assert!(ledger.usage(None).is_empty());
}

#[test]
fn what_the_disk_did_not_take_is_still_to_be_written_down() {
    let (ledger, _) = ledger();
    let peer = PeerId::random();
    ledger.count(&name("llm"), peer, &name("a"), &done("tiny"));
    let lost = ledger.take_changes();
    ledger.count(&name("llm"), peer, &name("a"), &done("big"));
    ledger.keep_changes(lost.into_iter().map(|(key, _)| key));
    let changes = ledger.take_changes();
    let models: Vec<_> = changes.iter().map(|(key, _)| key.model.as_str()).collect();
    assert_eq!(models, ["big", "tiny"]);
}

#[test]
fn a_member_goes_by_its_latest_name() {
    let (ledger, hand) = ledger();
    let peer = PeerId::random();
    ledger.count(&name("llm"), peer, &name("old"), &done("tiny"));
    hand.store(1001, Ordering::Relaxed);
    ledger.count(&name("llm"), peer, &name("new"), &done("big"));
    let names = |ledger: &Ledger| -> Vec<_> {
        let usage = ledger.usage(None).into_iter();
        usage.map(|(_, row)| row.member).collect()
    };
    assert_eq!(names(&ledger), ["new", "new"]);
    assert_eq!(names(&reopened(&ledger).0), ["new", "new"]);
}

#[test]
fn further_models_and_members_share_a_row_that_is_read_again_too() {
    let (ledger, _) = ledger();
    let peer = PeerId::random();
    for number in 0..MODELS + 3 {
        let model = format!("m{number}");
        ledger.count(&name("llm"), peer, &name("a"), &done(&model));
    }
    for _ in 1..MEMBERS + 2 {
        ledger.count(&name("llm"), PeerId::random(), &name("b"), &done("tiny"));
    }
    let usage = ledger.usage(None);
    assert_eq!(usage.len(), MODELS + 1 + MEMBERS);
    let requests = |is: &dyn Fn(&Key) -> bool| {
        let found = usage.iter().find(|(key, _)| is(key)).unwrap();
        (found.1.member.clone(), found.1.requests)
    };
    assert_eq!(requests(&|key| key.model == OTHERS), ("a".into(), 3));
    assert_eq!(requests(&|key| key.peer.is_none()), (OTHERS.into(), 2));
    let (read, refused) = reopened(&ledger);
    assert_eq!((read.usage(None), refused), (usage, vec![]));

    let row = Row::begun(1);
    let further = |peer, model: &str| {
        let key = Key {
            service: name("llm"),
            peer: Some(peer),
            model: model.to_owned(),
        };
        let member = "a".to_owned();
        read.restore(
            key,
            Row {
                member,
                ..row.clone()
            },
        )
    };
    assert_eq!(further(peer, "one-more"), Err(Misfit::TooMany));
    assert_eq!(further(PeerId::random(), "tiny"), Err(Misfit::TooMany));
}

#[test]
fn of_too_many_services_the_one_that_was_unused_for_longest_is_forgotten() {
    let (ledger, hand) = ledger();
    let peer = PeerId::random();
    let count = |number: usize| {
        hand.fetch_add(1, Ordering::Relaxed);
        ledger.count(
            &name(&format!("s{number}")),
            peer,
            &name("a"),
            &done("tiny"),
        );
    };
    (0..SERVICES).for_each(count);
    count(0);
    ledger.take_changes();
    count(SERVICES);
    let changes = ledger.take_changes();
    let changes: Vec<_> = changes
        .iter()
        .map(|(key, row)| (key.service.to_string(), row.is_some()))
        .collect();
    let newest = format!("s{SERVICES}");
    assert_eq!(changes, [("s1".to_owned(), false), (newest, true)]);
    assert_eq!(ledger.usage(None).len(), SERVICES);
}

#[test]
fn whatever_numbers_were_written_down_can_be_added_to() {
    let (ledger, _) = ledger();
    let peer = PeerId::random();
    let key = Key {
        service: name("llm"),
        peer: Some(peer),
        model: "tiny".to_owned(),
    };
    let row = Row {
        member: "a".to_owned(),
        requests: u64::MAX,
        errors: u64::MAX,
        prompt_tokens: u64::MAX,
        completion_tokens: u64::MAX,
        estimated_tokens: u64::MAX,
        first_bytes: Latest(vec![9; LATEST + 5].into()),
        ..Row::begun(u64::MAX)
    };
    ledger.restore(key, row).unwrap();
    ledger.count(&name("llm"), peer, &name("a"), &done("tiny"));
    let (_, row) = &ledger.usage(None)[0];
    assert_eq!(row.requests, u64::MAX);
    assert_eq!(row.first_bytes.0.len(), LATEST);
}

#[test]
fn a_name_that_nobody_can_have_is_not_taken_over() {
    let (ledger, _) = ledger();
    let key: Key = "llm - tiny".parse().unwrap();
    for member in ["", "No Name", "\u{1b}[31m"] {
        let member = member.to_owned();
        let row = Row {
            member,
            ..Row::begun(1)
        };
        assert_eq!(ledger.restore(key.clone(), row), Err(Misfit::Member));
    }
    for text in [
        "",
        "llm",
        "llm -",
        "llm x tiny",
        "L - tiny",
        "llm - \u{1b}[31m",
    ] {
        assert_eq!(text.parse::<Key>(), Err(Misfit::Key), "{text:?}");
    }
}

proptest! {
    #[test]
    fn every_key_is_read_as_it_was_written(model in ".{0,40}", has_peer: bool) {
        let model = model_id(&model).unwrap_or_default();
        let peer = has_peer.then(PeerId::random);
        let key = Key { service: name("llm"), peer, model };
        prop_assert_eq!(key.to_string().parse::<Key>(), Ok(key));
    }

    #[test]
    fn no_key_is_misread(text: String) {
        if let Ok(key) = text.parse::<Key>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }
}
