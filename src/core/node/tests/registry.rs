//! What members keep under keys and offer to each other.

mod fetching;
mod hostile;
mod many;
mod restarts;

use super::*;
use crate::registry::{Health, Key, Kind, Load, Service, State, Transport, sync::RegistryMessage};

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub(crate) fn service(port: u16) -> Service {
    Service {
        kind: Kind::Tcp,
        transport: Transport::Tcp,
        port,
        path: None,
        to: BTreeSet::new(),
        health: Health {
            state: State::Up,
            since: UNIX,
        },
        description: None,
        tags: BTreeSet::new(),
        openai: None,
    }
}

/// The answer, if this is one.
fn answered(output: Output) -> Option<RegistryMessage> {
    let Output::Respond { body, .. } = output else {
        return None;
    };
    Some(RegistryMessage::decode(&body).unwrap())
}

impl World {
    fn put(&mut self, at: usize, place: &str, value: &str, lifetime: Duration) -> u64 {
        let now = self.now();
        let node = &mut self.hosts[at].node;
        let seq = node.put_entry(&key(place), value.into(), lifetime, now);
        self.settle();
        seq.unwrap()
    }

    fn publish(&mut self, at: usize, called: &str, port: u16, lifetime: Duration) {
        let now = self.now();
        let node = &mut self.hosts[at].node;
        node.publish_service(&name(called), &service(port), lifetime, now)
            .unwrap();
        self.settle();
    }

    /// The values under a key, as a host sees them, in the order of their text.
    fn values(&self, at: usize, place: &str) -> Vec<String> {
        let entries = self.hosts[at].node.entries_at(&key(place));
        let values = entries
            .into_iter()
            .map(|entry| entry.value.clone().unwrap());
        let mut values: Vec<_> = values
            .map(|value| String::from_utf8(value).unwrap())
            .collect();
        values.sort();
        values
    }

    /// An entry of a host, as it lies on its disk.
    fn sealed_of(&self, at: usize, place: &str) -> Vec<u8> {
        let node = &self.hosts[at].node;
        let held = node.registry.replica.get(&key(place), &node.signer.key());
        held.unwrap().sealed.clone()
    }

    fn services(&self, at: usize) -> Vec<String> {
        let services = self.hosts[at].node.services();
        let shown = services
            .iter()
            .map(|it| format!("{}:{}", it.name, it.service.port));
        shown.collect()
    }
}

#[test]
fn what_one_writes_all_read_and_when_it_is_deleted_nobody_does() {
    let (mut world, b, c) = three();
    world.put(b, "weather/berlin", "rain", HOUR);
    world.put(b, "weather", "changing", HOUR);
    world.put(b, "weather-report", "other", HOUR);
    for at in [0, b, c] {
        assert_eq!(world.values(at, "weather/berlin"), ["rain"], "host {at}");
        let node = &world.hosts[at].node;
        assert_eq!(node.entries(Some(&key("weather"))).len(), 2);
        assert_eq!(node.entries(None).len(), 3);
    }
    let now = world.now();
    let node = &mut world.hosts[b].node;
    node.delete_entry(&key("weather/berlin"), now).unwrap();
    assert_eq!(
        node.delete_entry(&key("weather/berlin"), now),
        Err(Rejection::NothingThere)
    );
    world.settle();
    for at in [0, b, c] {
        assert!(world.values(at, "weather/berlin").is_empty(), "host {at}");
    }
}

#[test]
fn a_newcomer_fetches_what_was_written_before_it_came() {
    let (mut world, b, _) = three();
    world.put(b, "a", "1", HOUR);
    world.put(0, "a", "2", HOUR);
    let d = world.join(4);
    world.connect(0, d);
    world.pass(3 * SECOND);
    assert_eq!(world.values(d, "a"), ["1", "2"]);
}

/// A chain: b and c know each other through the founder alone.
#[test]
fn news_reach_members_that_are_not_connected_with_their_owner() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    world.connect(0, c);
    world.put(b, "a", "1", HOUR);
    assert_eq!(world.values(c, "a"), ["1"]);
}

#[test]
fn news_that_were_lost_are_fetched_soon() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let now = world.now();
    let node = &mut world.hosts[b].node;
    node.put_entry(&key("a"), b"1".into(), HOUR, now).unwrap();
    while let Some(output) = node.poll_output() {
        if let Output::Registry { peer, .. } = output {
            node.handle_registry_failed(peer, now);
        }
    }
    assert!(world.values(0, "a").is_empty());
    world.pass(2 * SECOND);
    assert_eq!(world.values(0, "a"), ["1"]);
    assert!(world.hosts[b].node.registry.resync.is_empty());
}

#[test]
fn an_entry_is_gone_when_its_time_is_over_and_whoever_watches_is_told() {
    let (mut world, b, c) = three();
    world.publish(b, "llm", 80, HOUR);
    world.put(b, "a", "1", 2 * Duration::from_secs(60));
    world.unplug(b);
    world.pass(118 * SECOND);
    assert_eq!(world.values(c, "a"), ["1"]);
    let changes = world.hosts[c].node.registry_changes();
    world.pass(3 * SECOND);
    assert!(world.values(c, "a").is_empty());
    assert_ne!(world.hosts[c].node.registry_changes(), changes);
    assert_eq!(world.services(c), ["llm:80"]);
}

#[test]
fn a_service_is_renewed_until_it_is_withdrawn() {
    let (mut world, b, c) = three();
    let minutes = |n: u64| Duration::from_secs(60 * n);
    world.publish(b, "llm", 80, minutes(2));
    for _ in 0..8 {
        world.pass(minutes(1) / 2);
        let services = world.hosts[c].node.services();
        assert_eq!(services.len(), 1);
        let left = services[0].expires.since(world.now().unix);
        assert!(left >= minutes(1), "{left:?}");
    }
    let now = world.now();
    world.hosts[b]
        .node
        .withdraw_service(&name("llm"), now)
        .unwrap();
    world.settle();
    for at in [0, b, c] {
        assert!(world.services(at).is_empty());
    }
    world.pass(minutes(3));
    assert!(world.services(c).is_empty());
}

#[test]
fn a_service_that_breaks_a_rule_is_not_offered_and_what_was_offered_before_is() {
    let mut world = World::new();
    world.publish(0, "llm", 80, HOUR);
    let now = world.now();
    let node = &mut world.hosts[0].node;
    let refused = node.publish_service(&name("llm"), &service(0), HOUR, now);
    assert!(matches!(refused, Err(Rejection::WrongSchema(_))));
    assert_eq!(world.services(0), ["llm:80"]);
    let now = world.now();
    let node = &mut world.hosts[0].node;
    assert!(
        node.put_entry(&key("svc/x"), b"1".into(), HOUR, now)
            .is_err()
    );
    let long = node.put_entry(&key("a"), vec![0; 9000], HOUR, now);
    assert!(matches!(long, Err(Rejection::TooLarge { .. })));
}

#[test]
fn publishing_the_same_again_says_nothing() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.publish(b, "llm", 80, HOUR);
    let before = world.bytes;
    world.publish(b, "llm", 80, HOUR);
    assert_eq!(world.bytes, before);
    world.publish(b, "llm", 81, HOUR);
    assert_eq!(world.services(0), ["llm:81"]);
}

#[test]
fn an_expelled_member_is_not_read_and_writes_nothing_and_is_there_again_when_restored() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", 40 * HOUR);
    world.publish(b, "llm", 80, HOUR);
    let (peer, now) = (world.hosts[b].node.peer_id(), world.now());
    world.hosts[0].node.revoke(&peer, "lost", now).unwrap();
    world.settle();
    for at in [0, c] {
        assert!(world.values(at, "a").is_empty(), "host {at}");
        assert!(world.services(at).is_empty(), "host {at}");
    }
    world.pass(Duration::from_secs(1));
    let now = world.now();
    let expelled = &mut world.hosts[b].node;
    assert!(!expelled.is_member());
    let refused = expelled.put_entry(&key("b"), b"1".into(), HOUR, now);
    assert_eq!(refused, Err(Rejection::NotAMember));
    expelled
        .publish_service(&name("late"), &service(1), HOUR, now)
        .unwrap();
    let said = std::iter::from_fn(|| expelled.poll_output());
    let publishes = |output| {
        matches!(
            output,
            Output::PublishEntry { .. } | Output::Registry { .. }
        )
    };
    assert!(!said.into_iter().any(publishes));

    world.hosts[0].node.restore(&peer, now).unwrap();
    world.settle();
    for at in [0, c] {
        assert_eq!(world.values(at, "a"), ["1"], "host {at}");
    }
    let record = world.hosts[0]
        .node
        .directory
        .get(&peer)
        .unwrap()
        .record
        .encode();
    let _ = world.hosts[b].node.admit(&record, None, now);
    assert!(world.hosts[b].node.is_member());
    world.connect(0, b);
    world.pass(2 * SECOND);
    assert_eq!(world.services(0), ["late:1", "llm:80"]);
}

#[test]
fn a_client_reads_all_keeps_and_serves_nothing_of_others_and_publishes_its_own() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", HOUR);
    let invite = world.invite(4);
    let joined = world.ask(&invite, 4).unwrap();
    let mut start = start(4, joined.network, joined.credential, joined.records);
    (start.notices, start.registry_client) = (joined.notices, true);
    let client = world.start_host(start, 4);
    world.connect(c, client);
    world.pass(2 * SECOND);
    world.put(client, "a", "2", HOUR);
    world.put(b, "b", "3", HOUR);
    world.pass(2 * SECOND);
    assert_eq!(world.values(client, "a"), ["1", "2"]);
    assert_eq!(world.values(0, "a"), ["1", "2"]);
    assert_eq!(world.hosts[client].disk.entries.len(), 1, "its own alone");
    let now = world.now();
    let (asker, us) = (world.hosts[c].node.peer_id(), &mut world.hosts[client].node);
    for question in [
        RegistryMessage::Get(key("a")),
        RegistryMessage::Summary([1; 32]),
        RegistryMessage::Want(vec![]),
    ] {
        us.handle_registry_request(RequestId(5), asker, &question.encode(), now);
        let answer = std::iter::from_fn(|| us.poll_output()).find_map(answered);
        assert_eq!(answer, Some(RegistryMessage::Nothing));
    }
}

#[test]
fn whoever_seeks_a_key_asks_members_and_the_dht_for_what_may_be_old() {
    let (mut world, b, c) = three();
    world.put(b, "a", "1", 2 * Duration::from_secs(60));
    let seek = |world: &mut World| {
        let now = world.now();
        let node = &mut world.hosts[c].node;
        node.seek_entries(&key("a"), None, now);
        let outputs: Vec<_> = std::iter::from_fn(|| node.poll_output()).collect();
        let count = |is: fn(&Output) -> bool| outputs.iter().filter(|output| is(output)).count();
        (
            count(|output| matches!(output, Output::Registry { .. })),
            count(|output| matches!(output, Output::LookupEntry { .. })),
        )
    };
    assert_eq!(seek(&mut world), (2, 0));
    world.pass(Duration::from_secs(70));
    assert_eq!(seek(&mut world), (2, 1));
}

#[test]
fn how_busy_a_service_is_is_known_while_its_owner_is_there_and_says_so() {
    let (mut world, b, c) = three();
    world.publish(b, "llm", 80, HOUR);
    let load = |active| Load {
        active,
        ..Load::default()
    };
    let now = world.now();
    world.hosts[b].node.set_load(&name("llm"), load(3), now);
    world.settle();
    let seen = |world: &World, at: usize| world.hosts[at].node.services()[0].load;
    for at in [0, b, c] {
        assert_eq!(seen(&world, at), Some(load(3)), "host {at}");
    }
    for active in 4..9 {
        world.hosts[b]
            .node
            .set_load(&name("llm"), load(active), now);
    }
    world.settle();
    assert_eq!(
        seen(&world, c),
        Some(load(3)),
        "no more often than every second"
    );
    world.pass(2 * SECOND);
    assert_eq!(seen(&world, c), Some(load(8)));
    world.pass(90 * SECOND);
    assert_eq!(seen(&world, c), Some(load(8)), "it is told again");
    world.unplug(b);
    world.hosts[b].node.connections.begin_anew(world.start);
    world.pass(61 * SECOND);
    assert_eq!(seen(&world, c), None);
}

/// c says how busy b's service is.
#[test]
fn nobody_tells_how_busy_another_is() {
    let (mut world, b, c) = three();
    world.publish(b, "llm", 80, HOUR);
    let now = world.now();
    let busy = Load {
        queued: 1000,
        ..Load::default()
    };
    world.hosts[c].node.set_load(&name("llm"), busy, now);
    world.settle();
    assert_eq!(world.hosts[0].node.services()[0].load, None);
}
