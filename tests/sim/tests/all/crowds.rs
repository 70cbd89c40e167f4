//! Many nodes: what a network costs while nothing happens, and while everybody comes at once.

use std::time::Duration;

use hivevpn_sim::{
    clock::{millis, seconds},
    nat::NatKind,
    underlay::{GOOD_LINE, GatewayKind, HostId},
    world::World,
};

/// Sites as they are met: most behind NATs that can be punched, some that cannot, some public.
const GATEWAYS: [GatewayKind; 8] = [
    GatewayKind::Nat(NatKind::PORT_RESTRICTED),
    GatewayKind::Nat(NatKind::PORT_REMAPPING),
    GatewayKind::Nat(NatKind::ADDRESS_RESTRICTED),
    GatewayKind::Nat(NatKind::PORT_RESTRICTED),
    GatewayKind::Nat(NatKind::SYMMETRIC),
    GatewayKind::Nat(NatKind::PORT_RESTRICTED),
    GatewayKind::Open,
    GatewayKind::Nat(NatKind::FULL_CONE),
];

/// A public founder, and `count - 1` hosts at sites of their own that start within `span`.
fn crowd(count: usize, span: Duration) -> World {
    let mut world = World::new(1);
    let public = world.add_site(GatewayKind::Open, GOOD_LINE);
    world.add_host(public, millis(0));
    for number in 1..count {
        let site = world.add_site(GATEWAYS[number % GATEWAYS.len()], GOOD_LINE);
        let start = millis(100) + span * number as u32 / count as u32;
        world.add_host(site, start);
    }
    world
}

fn knows_everybody(world: &World, host: HostId, count: usize) -> bool {
    world
        .running(host)
        .is_some_and(|host| host.members() == count)
}

/// What all hosts have sent: control messages, their bytes, dials.
fn control(world: &World, count: usize) -> [u64; 3] {
    (0..count)
        .map(|host| world.swarm().control_of(host))
        .fold([0; 3], |[messages, bytes, dials], (m, b, d)| {
            [messages + m, bytes + b, dials + d]
        })
}

/// Control messages that a node may send until a network of 200 that join at once is at rest, and their bytes: it is
/// 7300 messages and 4.4 MB, about 36 messages for each other node.
const MESSAGES_PER_NODE: u64 = 8_000;
const BYTES_PER_NODE: u64 = 5_000_000;
const SETTLED_WITHIN: Duration = seconds(120);

#[test]
fn two_hundred_nodes_that_join_at_once_settle_with_a_bounded_number_of_messages() {
    const COUNT: usize = 200;
    let mut world = crowd(COUNT, seconds(1));
    let settled = world.run_until(SETTLED_WITHIN, seconds(1), |world| {
        (0..COUNT).all(|host| knows_everybody(world, host, COUNT))
    });
    let settled = settled.expect("everybody comes to know everybody");
    world.run_for(seconds(20));
    let [messages, bytes, dials] = control(&world, COUNT).map(|sum| sum / COUNT as u64);
    let sent = world.underlay.tally().sent / COUNT as u64;
    println!(
        "200 nodes: everybody knows everybody after {settled:?}; 20 s later {messages} messages, {bytes} bytes, \
         {dials} dials, {sent} datagrams a node"
    );
    assert!(messages <= MESSAGES_PER_NODE, "{messages} messages a node");
    assert!(bytes <= BYTES_PER_NODE, "{bytes} bytes a node");
    assert_eq!(world.broken(), []);
    // At rest: what follows is heartbeats, no messages.
    world.run_for(seconds(30));
    let before = control(&world, COUNT);
    world.run_for(seconds(20));
    let after = control(&world, COUNT);
    assert!(
        after[0] - before[0] <= 2 * COUNT as u64,
        "{} messages in 20 s of rest",
        after[0] - before[0]
    );
}

/// Bytes that an idle node may send in a day, UDP and IP headers included, and datagrams in a second for each pair.
///
/// It is 0.98 datagrams, 0.26 of them WireGuard's, and 259 MB: far more than the 20 MB that a node should need. What is too
/// much is the swarm's: a connection to every other node that is kept alive every 8 s, and circuits with their punching
/// for the pairs that no patience gets through.
const IDLE_BYTES_PER_DAY: f64 = 280e6;
const IDLE_DATAGRAMS: f64 = 1.0;

#[test]
fn an_idle_network_of_fifty_nodes_is_quiet() {
    const COUNT: usize = 50;
    let mut world = crowd(COUNT, seconds(20));
    world.run_for(seconds(600));
    let sent = |world: &World| {
        let each = (0..COUNT).map(|host| world.underlay.sent_by(host));
        each.fold((0, 0), |(d, b), (datagrams, bytes)| {
            (d + datagrams, b + bytes)
        })
    };
    let before = (sent(&world), world.underlay.tally().sent_wireguard);
    let span = seconds(1800);
    world.run_for(span);
    let after = (sent(&world), world.underlay.tally().sent_wireguard);
    let pairs = (COUNT * (COUNT - 1) / 2) as f64;
    let rate = |count: u64| count as f64 / span.as_secs_f64();
    let datagrams = rate(after.0.0 - before.0.0) / pairs;
    let wireguard = rate(after.1 - before.1) / pairs;
    let bytes = rate(after.0.1 - before.0.1) / COUNT as f64 * 86_400.0;
    println!(
        "50 idle nodes: {datagrams:.3} datagrams a second and pair, {wireguard:.3} of them WireGuard; {:.1} MB a day \
         and node",
        bytes / 1e6
    );
    assert_eq!(world.broken(), []);
    assert!(datagrams <= IDLE_DATAGRAMS, "{datagrams} datagrams");
    assert!(bytes <= IDLE_BYTES_PER_DAY, "{bytes} bytes");
}
