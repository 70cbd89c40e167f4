//! What members keep under keys and offer to each other.

use super::*;
use crate::registry::{Health, Key, Kind, Load, Service, State, Transport, entry::MAX_LIFETIME};

const HOUR: Duration = Duration::from_secs(3600);

pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

pub fn service(port: u16) -> Service {
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

impl World {
    pub fn put(&mut self, at: usize, place: &str, value: &str, lifetime: Duration) -> u64 {
        let now = self.now();
        let node = &mut self.hosts[at].node;
        let seq = node.put_entry(&key(place), value.into(), lifetime, now);
        self.settle();
        seq.unwrap()
    }

    /// The values under a key, as a host sees them, in the order of their text.
    pub fn values(&self, at: usize, place: &str) -> Vec<String> {
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
}

#[test]
fn what_one_writes_all_read_and_when_it_is_deleted_nobody_does() {
    let (mut world, b, c) = three();
    world.put(b, "weather/berlin", "rain", HOUR);
    for at in [0, b, c] {
        assert_eq!(world.values(at, "weather/berlin"), ["rain"], "host {at}");
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
    world.pass(Duration::from_secs(3));
    assert_eq!(world.values(d, "a"), ["1", "2"]);
    let _ = (MAX_LIFETIME, Load::default(), service(1));
}
