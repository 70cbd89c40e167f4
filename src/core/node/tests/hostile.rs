//! Members that mean harm, and what they cost the others.

use super::*;
use crate::{
    membership::{Descriptor, Features, SyncMessage, descriptor::next_seq},
    node::restraint::{NEWS_BURST, NEWS_PERIOD, WORK_BURST},
};

/// A record of host `at` that says what it likes.
fn signed(world: &World, at: usize, by: u8, seq: u64) -> Vec<u8> {
    let node = &world.hosts[at].node;
    let descriptor = Descriptor {
        network: node.network().id(),
        seq,
        wireguard_key: node.wireguard_key,
        name: node.name.clone(),
        addresses: Vec::new(),
        features: Features::NONE,
    };
    MemberRecord {
        credential: node.credential.clone(),
        descriptor: descriptor.seal(&signer(by)),
    }
    .encode()
}

fn millis(world: &World) -> u64 {
    world.now().unix.as_millis()
}

/// What its shell is asked to do since the last time.
fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll_output()).collect()
}

fn count(outputs: &[Output], is_it: fn(&Output) -> bool) -> usize {
    outputs.iter().filter(|output| is_it(output)).count()
}

fn is_sync(output: &Output) -> bool {
    matches!(output, Output::Sync { .. })
}

fn is_save(output: &Output) -> bool {
    matches!(output, Output::SaveRecord { .. })
}

/// Whatever a member says of others or of itself that is not so is refused at every door, and counted.
#[test]
fn forged_empty_and_future_records_are_refused_by_every_door_and_counted() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    world.connect(0, c);
    let two_days = 2 * 24 * 3600 * 1000;
    let bad = [
        (
            signed(&world, c, 2, millis(&world)),
            Rejection::ForeignDescriptor,
        ),
        (Vec::new(), Rejection::Malformed("")),
        (
            signed(&world, b, 2, millis(&world) + two_days),
            Rejection::FromTheFuture,
        ),
    ];
    let liar = world.hosts[b].node.peer_id();
    let before = world.names_known_to(0);
    for (record, rule) in bad {
        let now = world.now();
        let founder = &mut world.hosts[0].node;
        let counted = founder.rejections().of(&rule);
        let message = SyncMessage::announcement(record.clone()).encode();
        founder.handle_sync_request(RequestId(7), liar, &message, now);
        founder.handle_found_record(&record, now);
        founder.handle_connection_opened(ConnectionId(99), liar, Link::Quic(endpoint(2)), now);
        founder.handle_credential(ConnectionId(99), liar, &record, now);
        let outputs = outputs(founder);
        assert_eq!(founder.rejections().of(&rule), counted + 3, "{rule}");
        assert_eq!(count(&outputs, is_save) + count(&outputs, is_sync), 0);
        assert!(matches!(
            outputs.last(),
            Some(Output::Refuse {
                connection: ConnectionId(99),
                ..
            })
        ));
    }
    assert_eq!(world.names_known_to(0), before);
    assert_eq!(world.send(c, 0, b"as before").len(), 1);
}

#[test]
fn a_thousand_descriptors_a_second_are_passed_on_and_saved_a_few_times() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    world.connect(0, c);
    world.pass(Duration::from_secs(30));
    let (liar, honest) = (world.hosts[b].node.peer_id(), world.hosts[c].node.peer_id());
    let mut seq = 0;
    let (mut told, mut saved) = (0, 0);
    const SECONDS: u32 = 3;
    for _ in 0..1000 * SECONDS {
        world.elapsed += Duration::from_millis(1);
        seq = next_seq(seq, millis(&world));
        let message = SyncMessage::announcement(signed(&world, b, 2, seq)).encode();
        let now = world.now();
        let founder = &mut world.hosts[0].node;
        founder.handle_timeout(now);
        founder.handle_sync_request(RequestId(7), liar, &message, now);
        let outputs = outputs(founder);
        told += outputs
            .iter()
            .filter(|output| matches!(output, Output::Sync { peer, .. } if *peer == honest))
            .count();
        saved += count(&outputs, is_save);
        for output in outputs {
            world.carry_out(0, output);
        }
    }
    let most = (NEWS_BURST + SECONDS) as usize;
    assert!((NEWS_BURST as usize..=most).contains(&told), "{told}");
    assert!((NEWS_BURST as usize..=most).contains(&saved), "{saved}");
    assert!(world.hosts[0].node.rejections().of(&Rejection::TooMuch) > 0);

    let newest = |world: &World, at: usize| {
        let member = world.hosts[at].node.directory.get(&liar).unwrap();
        member.descriptor.seq
    };
    let known = newest(&world, 0);
    world.pass(NEWS_PERIOD + Duration::from_millis(500));
    assert!(newest(&world, 0) >= known, "nothing goes back");
    assert_eq!(newest(&world, c), newest(&world, 0), "the newest arrives");
}

#[test]
fn a_member_that_asks_too_much_is_not_heard_and_others_are() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    world.connect(0, c);
    let (greedy, modest) = (world.hosts[b].node.peer_id(), world.hosts[c].node.peer_id());
    let now = world.now();
    let digest = SyncMessage::Digest(world.hosts[c].node.directory.digest()).encode();
    let founder = &mut world.hosts[0].node;
    let mut answered = |peer| {
        founder.handle_sync_request(RequestId(7), peer, &digest, now);
        let outputs = outputs(founder);
        let answers = outputs.iter().filter(|output| {
            let Output::Respond { body, .. } = output else {
                return false;
            };
            matches!(SyncMessage::decode(body), Ok(SyncMessage::Answer(_)))
        });
        answers.count()
    };
    let answers: usize = (0..10_000).map(|_| answered(greedy)).sum();
    assert!(answers > 0 && answers < WORK_BURST as usize / 32 + 1);
    assert_eq!(answered(modest), 1);
    assert!(founder.resync.len() <= 2, "one appointment, however often");
}
