//! What is missed at first, and fetched all the same before the next round of anti-entropy.

use super::*;
use crate::registry::sync::Records;

impl World {
    /// A host writes, and nobody hears of it.
    fn put_unheard(&mut self, at: usize, place: &str, value: &str) {
        let now = self.now();
        let node = &mut self.hosts[at].node;
        node.put_entry(&key(place), value.into(), HOUR, now)
            .unwrap();
        while node.poll_output().is_some() {}
    }

    /// The founder is asked by a host; what it has to say waits.
    fn question(&mut self, from: usize, message: &RegistryMessage) {
        let (peer, now) = (self.hosts[from].node.peer_id(), self.now());
        let node = &mut self.hosts[0].node;
        node.handle_registry_request(RequestId(1), peer, &message.encode(), now);
    }
}

/// The client has more to tell than one message holds, and what it tells is lost while its connection stays.
#[test]
fn what_a_client_has_written_reaches_those_who_missed_it() {
    let mut world = World::new();
    let invite = world.invite(2);
    let joined = world.ask(&invite, 2).unwrap();
    let mut start = start(2, joined.network, joined.credential, joined.records);
    start.registry_client = true;
    let client = world.start_host(start, 2);
    for n in 0..200 {
        let place = format!("{n:03}");
        world.put(client, &place, "1", HOUR);
        let now = world.now();
        let node = &mut world.hosts[client].node;
        node.delete_entry(&key(&place), now).unwrap();
        world.settle();
        world.put(client, &format!("z{place}"), "1", HOUR);
    }
    world.pass(SECOND);
    world.connect(0, client);
    assert_eq!(world.hosts[0].node.entries(None).len(), 200);

    let now = world.now();
    let node = &mut world.hosts[client].node;
    node.put_entry(&key("late"), b"1".into(), HOUR, now)
        .unwrap();
    while let Some(output) = node.poll_output() {
        if let Output::Registry { peer, .. } = output {
            node.handle_registry_failed(peer, now);
        }
    }
    world.pass(3 * SECOND);
    assert_eq!(world.values(0, "late"), ["1"]);
}

/// The new come before the tombstones that make room for them.
#[test]
fn what_had_no_room_is_fetched_again_when_there_is_some() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    for n in 0..256 {
        world.put(b, &format!("z{n:03}"), "1", HOUR);
    }
    world.unplug(b);
    world.pass(SECOND);
    for n in 0..20 {
        let now = world.now();
        let node = &mut world.hosts[b].node;
        node.delete_entry(&key(&format!("z{n:03}")), now).unwrap();
        world.put(b, &format!("a{n:03}"), "1", HOUR);
    }
    world.connect(0, b);
    world.pass(3 * SECOND);
    assert_eq!(world.hosts[0].node.entries(None).len(), 256);
    assert_eq!(world.values(0, "a000"), ["1"]);
}

/// It says that it has news, and while these are fetched, that it has something else besides.
#[test]
fn a_comparison_that_finds_news_on_their_way_is_made_later() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.put_unheard(b, "news", "1");
    world.put_unheard(b, "more", "1");
    let node = &world.hosts[b].node;
    let place = (node.signer.key(), key("news"));
    let news = node.registry.replica.versions_at(&[place]);
    world.question(b, &RegistryMessage::Have(news));
    world.question(b, &RegistryMessage::Summary([1; 32]));
    world.pass(3 * SECOND);
    assert_eq!(world.values(0, "news"), ["1"]);
    assert_eq!(world.values(0, "more"), ["1"]);
}

/// An answer to what was asked before, or to what lies under a key, comes while versions are awaited.
#[test]
fn records_that_belong_to_another_question_end_no_comparison() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.put_unheard(b, "a", "1");
    world.question(b, &RegistryMessage::Summary([1; 32]));
    let (peer, now) = (world.hosts[b].node.peer_id(), world.now());
    let late = RegistryMessage::Records(Records::default(), 0).encode();
    world.hosts[0].node.handle_registry_answer(peer, &late, now);
    world.pass(3 * SECOND);
    assert_eq!(world.values(0, "a"), ["1"]);
}
