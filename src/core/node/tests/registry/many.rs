//! Many writers, many services, many nodes.

use super::*;

/// The founder and `count` members; each is connected with a few others, as in a large network.
fn crowd(count: u8) -> World {
    let mut world = World::new();
    for number in 2..count + 2 {
        // The founder does not answer everybody at once.
        if number % 8 == 0 {
            world.elapsed += Duration::from_secs(60);
        }
        let at = world.join(number);
        for other in BTreeSet::from([0, at / 2, at.saturating_sub(1)]) {
            if other != at {
                world.connect(other, at);
            }
        }
    }
    world.pass(3 * SECOND);
    world
}

#[test]
fn ten_who_write_under_one_key_at_once_are_all_kept_everywhere() {
    let mut world = crowd(10);
    let now = world.now();
    for at in 1..11 {
        let node = &mut world.hosts[at].node;
        let value = format!("from {at}").into_bytes();
        node.put_entry(&key("shared/list"), value, HOUR, now)
            .unwrap();
    }
    world.settle();
    world.pass(3 * SECOND);
    for at in 0..11 {
        assert_eq!(world.values(at, "shared/list").len(), 10, "host {at}");
    }
}

#[test]
fn five_hundred_services_on_fifty_nodes_are_known_to_all() {
    let mut world = crowd(49);
    world.bytes = [0; 256];
    let now = world.now();
    for at in 0..50 {
        for n in 0..10 {
            let node = &mut world.hosts[at].node;
            let called = name(&format!("s{n}"));
            let port = 1000 + n;
            node.publish_service(&called, &service(port), HOUR, now)
                .unwrap();
        }
    }
    world.settle();
    for at in 0..50 {
        let services = world.hosts[at].node.services();
        assert_eq!(services.len(), 500, "host {at}");
        assert!(services.is_sorted_by_key(|it| (it.name.clone(), it.owner)));
    }
    let sent: u64 = world.bytes.iter().sum();
    let most = world.bytes.iter().max().unwrap();
    println!(
        "500 services told to 50 nodes: {} bytes by each, {most} at the most",
        sent / 50
    );

    world.bytes = [0; 256];
    world.pass(Duration::from_secs(660));
    let sent: u64 = world.bytes.iter().sum();
    println!("11 quiet minutes: {} bytes by each", sent / 50);

    let node = &world.hosts[7].node;
    let before = epoch();
    let listed = node.services().len();
    let all = epoch().duration_since(before);
    let before = epoch();
    let found = node.entries_at(&key("svc/s7")).len();
    let one = epoch().duration_since(before);
    println!("{listed} services listed in {all:?}, {found} of one name found in {one:?}");
    assert_eq!(found, 50);
}
