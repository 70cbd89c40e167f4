//! Members that serve what is not true, by answers and through the DHT.

use super::*;
use crate::{
    membership::{DhtVerdict, genesis::NetworkId, testing::Hive},
    registry::{Entry, seal::Sealing, sync::Records},
};

/// Something that nobody should read under `a`.
struct Lie {
    what: &'static str,
    sealed: Vec<u8>,
}

fn sign(by: &Signer, network: NetworkId, seq: u64, issued: UnixTime, value: &[u8]) -> Vec<u8> {
    Entry::sign(
        by,
        network,
        &key("a"),
        seq,
        issued,
        HOUR,
        Some(value.into()),
    )
}

/// All that a storer could try with what it has seen and what it can sign. `b` is at 2 in the world, and member 9 is none.
fn lies(world: &World) -> Vec<Lie> {
    let network = &world.hosts[0].node.network;
    let (id, sealing) = (network.id(), Sealing::of(network));
    let now = world.now().unix;
    let (b, stranger) = (signer(2), signer(9));
    let seq = now.as_millis();
    let good = sealing.seal(&sign(&b, id, seq + 9, now, b"good"));
    let mut bent = good.clone();
    bent[60] ^= 1;
    let tomorrow = now.plus(Duration::from_secs(86_400));
    let elsewhere = Hive::founded_as(5).network.id();
    let lie = |what, sealed| Lie { what, sealed };
    vec![
        lie("forged", bent),
        lie(
            "by a stranger",
            sealing.seal(&sign(&stranger, id, seq, now, b"lie")),
        ),
        lie("stale", sealing.seal(&sign(&b, id, 1, now, b"lie"))),
        lie(
            "late",
            sealing.seal(&sign(&b, id, seq + 9, now.minus(2 * HOUR), b"lie")),
        ),
        lie(
            "long gone",
            sealing.seal(&sign(&b, id, seq + 9, now.minus(60 * HOUR), b"lie")),
        ),
        lie(
            "early",
            sealing.seal(&sign(&b, id, seq + 9, tomorrow, b"lie")),
        ),
        lie(
            "from elsewhere",
            sealing.seal(&sign(&b, elsewhere, seq + 9, now, b"lie")),
        ),
        lie(
            "oversize",
            sealing.seal(&sign(&b, id, seq + 9, now, &[0; 7000])),
        ),
        lie("not sealed", sign(&b, id, seq + 9, now, b"lie")),
        lie("rubbish", vec![1; 500]),
        lie("empty", Vec::new()),
    ]
}

fn read(world: &World, at: usize) -> Vec<String> {
    world.values(at, "a")
}

#[test]
fn no_reader_is_fooled_by_what_the_dht_holds() {
    let (mut world, b, c) = three();
    world.put(b, "a", "true", HOUR);
    world.pass(2 * Duration::from_secs(1));
    let (now, owner) = (world.now(), world.hosts[b].node.peer_id());
    for lie in lies(&world) {
        let reader = &mut world.hosts[c].node;
        let slot = reader.entry_slot(&owner, &key("a"));
        if lie.what != "late" {
            reader.handle_found_entry(&slot, &lie.sealed, now);
            assert_eq!(read(&world, c), ["true"], "{}", lie.what);
        }
        let keeper = &mut world.hosts[0].node;
        let from = signer(3).peer_id();
        let judged = keeper.judge_for_dht(from, &slot, &lie.sealed, None, now);
        assert!(judged.is_err(), "{}: {judged:?}", lie.what);
    }
    for at in [0, c] {
        assert!(!read(&world, at).contains(&"lie".to_owned()));
    }
}

/// Its owner has signed it with a higher number.
#[test]
fn a_late_entry_is_not_read_but_what_it_has_replaced_is_not_either() {
    let (mut world, b, c) = three();
    world.put(b, "a", "true", HOUR);
    let late = lies(&world).into_iter().find(|lie| lie.what == "late");
    let (now, owner) = (world.now(), world.hosts[b].node.peer_id());
    let reader = &mut world.hosts[c].node;
    let slot = reader.entry_slot(&owner, &key("a"));
    reader.handle_found_entry(&slot, &late.unwrap().sealed, now);
    assert!(read(&world, c).is_empty());
}

#[test]
fn no_reader_is_fooled_by_the_answers_of_a_member() {
    let (mut world, b, c) = three();
    world.put(b, "a", "true", HOUR);
    let (now, evil) = (world.now(), world.hosts[c].node.peer_id());
    for lie in lies(&world).into_iter().filter(|lie| lie.what != "late") {
        let (records, _) = Records::pick([lie.sealed.as_slice()]);
        let reader = &mut world.hosts[0].node;
        let announced = RegistryMessage::Announce(records.clone()).encode();
        reader.handle_registry_request(RequestId(1), evil, &announced, now);
        let summary = RegistryMessage::Summary([7; 32]).encode();
        reader.handle_registry_request(RequestId(2), evil, &summary, now);
        let answered = RegistryMessage::Records(records, 1).encode();
        reader.handle_registry_answer(evil, &answered, now);
        assert_eq!(read(&world, 0), ["true"], "{}", lie.what);
    }
    while world.hosts[0].node.poll_output().is_some() {}
    world.pass(Duration::from_secs(2));
    assert_eq!(read(&world, 0), ["true"]);
}

/// The storer moves b's good entry to the place of another key, and of another owner.
#[test]
fn a_good_entry_in_a_wrong_place_is_not_kept() {
    let (mut world, b, c) = three();
    world.put(b, "a", "true", HOUR);
    let sealed = world.sealed_of(b, "a");
    let now = world.now();
    let [us, owner] = [0, b].map(|at| world.hosts[at].node.peer_id());
    let node = &mut world.hosts[c].node;
    for slot in [
        node.entry_slot(&owner, &key("b")),
        node.entry_slot(&us, &key("a")),
    ] {
        let judged = node.judge_for_dht(owner, &slot, &sealed, None, now);
        assert_eq!(judged, Err(Rejection::WrongSlot));
    }
    let slot = node.entry_slot(&owner, &key("a"));
    let judged = node.judge_for_dht(owner, &slot, &sealed, None, now);
    assert_eq!(judged, Ok(DhtVerdict::News));
    let again = node.judge_for_dht(owner, &slot, &sealed, Some(&sealed), now);
    assert_eq!(again, Ok(DhtVerdict::Known));
}

/// A chain: c hears of what b writes through the founder alone. And d, whom c knows as well, has promised it before.
#[test]
fn what_a_member_promises_and_does_not_bring_is_fetched_from_who_has_it() {
    let soon = 3 * SECOND;
    let (nothing, none) = (
        RegistryMessage::Nothing,
        RegistryMessage::Records(Records::default(), 1),
    );
    let answers = [
        (None, soon),
        (Some(nothing), soon),
        (Some(none), soon),
        (Some(RegistryMessage::Taken), 62 * SECOND),
    ];
    for (answer, within) in answers {
        let mut world = World::new();
        let [b, c, d] = [2, 3, 4].map(|number| world.join(number));
        for (one, other) in [(0, b), (0, c), (c, d)] {
            world.connect(one, other);
        }
        world.pass(5 * SECOND); // nobody has anything to compare any more
        let (now, evil) = (world.now(), world.hosts[d].node.peer_id());
        let writer = &mut world.hosts[b].node;
        writer.put_entry(&key("a"), b"1".into(), HOUR, now).unwrap();
        let place = (writer.signer.key(), key("a"));
        let versions = writer.registry.replica.versions_at(&[place]);
        let promise = RegistryMessage::Have(versions).encode();
        let reader = &mut world.hosts[c].node;
        reader.handle_registry_request(RequestId(1), evil, &promise, now);
        while reader.poll_output().is_some() {} // what it asks d is under way
        world.settle();
        assert!(read(&world, c).is_empty(), "it waits for d");

        let reader = &mut world.hosts[c].node;
        match &answer {
            Some(answer) => reader.handle_registry_answer(evil, &answer.encode(), now),
            None => reader.handle_registry_failed(evil, now),
        }
        world.pass(within);
        assert_eq!(read(&world, c), ["1"], "after {answer:?}");
    }
}

#[test]
fn a_member_that_floods_is_not_listened_to_and_the_others_are() {
    let (mut world, b, c) = three();
    let (now, evil) = (world.now(), world.hosts[c].node.peer_id());
    let rubbish: Vec<Vec<u8>> = (0..250u8).map(|n| vec![n; 200]).collect();
    let (records, _) = Records::pick(rubbish.iter().map(Vec::as_slice));
    let body = RegistryMessage::Announce(records).encode();
    let reader = &mut world.hosts[0].node;
    for _ in 0..40 {
        reader.handle_registry_request(RequestId(1), evil, &body, now);
    }
    let tried = reader
        .rejections()
        .iter()
        .map(|(_, count)| count)
        .sum::<u64>();
    assert!(tried < 2200, "{tried}");
    assert!(reader.rejections().of(&Rejection::TooMuch) > 0);
    let answer = std::iter::from_fn(|| reader.poll_output())
        .filter_map(answered)
        .last();
    assert_eq!(answer, Some(RegistryMessage::Later));
    world.put(b, "a", "true", HOUR);
    assert_eq!(read(&world, 0), ["true"]);
}

#[test]
fn an_owner_that_writes_without_end_makes_nobody_save_without_end() {
    let (mut world, b, _) = three();
    let mut saved = 0;
    for n in 0..3000u32 {
        let now = world.now();
        let node = &mut world.hosts[b].node;
        node.put_entry(&key("a"), n.to_be_bytes().into(), HOUR, now)
            .unwrap();
        let sealed = world.sealed_of(b, "a");
        while world.hosts[b].node.poll_output().is_some() {}
        let (records, _) = Records::pick([sealed.as_slice()]);
        let body = RegistryMessage::Announce(records).encode();
        let owner = world.hosts[b].node.peer_id();
        let reader = &mut world.hosts[0].node;
        reader.handle_registry_request(RequestId(1), owner, &body, now);
        saved += std::iter::from_fn(|| reader.poll_output())
            .filter(|output| matches!(output, Output::SaveEntry { .. }))
            .count();
    }
    assert!(saved <= 1030, "{saved}");
}
