//! One address given to two members on two sides of a partition.

use super::*;
use crate::membership::{GroupGrant, Powers};

impl World {
    /// A packet between the addresses that nobody can take away.
    fn send_by_ipv6(&mut self, from: usize, to: usize, text: &[u8]) -> Vec<Vec<u8>> {
        let address = |at: usize| {
            let node = &self.hosts[at].node;
            node.directory.get(&node.peer_id()).unwrap().ipv6
        };
        let mut packet = vec![0; 40];
        packet.extend_from_slice(text);
        packet[0] = 0x60;
        packet[5] = u8::try_from(text.len()).unwrap();
        packet[6] = 59;
        packet[8..24].copy_from_slice(&address(from).octets());
        packet[24..40].copy_from_slice(&address(to).octets());
        let now = self.now().instant;
        self.hosts[from].node.handle_overlay_packet(&packet, now);
        self.settle();
        let inbox = self.hosts[to].node.inbox();
        let came = inbox.iter().map(|packet| packet[40..].to_vec()).collect();
        inbox.clear();
        came
    }
}

#[test]
fn after_a_partition_all_agree_who_has_an_ipv4_address_and_ipv6_never_stops() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    world.delegate(b, Powers::ADMIT, GroupGrant::Any);
    world.unplug(b);
    let contested = Some([10, 77, 0, 50].into());
    world.elapsed += Duration::from_secs(60);
    let c = world.admitted_with(0, 3, contested);
    world.elapsed += Duration::from_secs(60);
    let d = world.admitted_with(b, 4, contested);
    assert_eq!(world.hosts[c].node.ipv4(), contested);
    assert_eq!(world.hosts[d].node.ipv4(), contested);
    assert_eq!(world.send_by_ipv6(b, d, b"before"), [b"before".to_vec()]);
    assert_eq!(world.send_by_ipv6(0, c, b"before"), [b"before".to_vec()]);

    world.connect(0, b);
    assert_eq!(world.send_by_ipv6(b, d, b"after"), [b"after".to_vec()]);
    assert_eq!(world.send_by_ipv6(d, b, b"after"), [b"after".to_vec()]);
    assert_eq!(world.send_by_ipv6(0, c, b"after"), [b"after".to_vec()]);
    for at in [0, b, c, d] {
        let holder = world.hosts[at].node.resolve("10.77.0.50");
        assert_eq!(holder, Some(world.peer(c)), "the older one, says host {at}");
    }
    assert_eq!(world.hosts[c].node.ipv4(), contested);
    assert_eq!(world.hosts[d].node.ipv4(), None);
    // The older one is expelled: the address is the other's.
    world.revoke(c);
    for at in [0, b, d] {
        let holder = world.hosts[at].node.resolve("10.77.0.50");
        assert_eq!(holder, Some(world.peer(d)), "says host {at}");
    }
    assert_eq!(world.send_by_ipv6(b, d, b"still"), [b"still".to_vec()]);
}
