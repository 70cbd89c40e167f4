//! Packets of every length over a route that silently loses the long datagrams, alone or beside a relay.

use proptest::prelude::*;

use super::*;
use crate::{
    checksum,
    path::PathView,
    session::{OVERHEAD, sealed_length},
};

const RELAY: Path = Path::Carrier(ConnectionId(9));
const DONT_FRAGMENT: u8 = 0x40;
/// What every direct path must carry, as a datagram.
const MIN_ROUTE: usize = 1280 + OVERHEAD;

/// Two nodes; the route between their endpoints loses datagrams that are longer than it carries.
struct World {
    hosts: Vec<Host>,
    now: Instant,
    route: usize,
    mtu: u16,
}

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Arrived(Vec<Vec<u8>>),
    /// The sender was told to send no more than this.
    TooBig(u16),
    Lost,
}

impl World {
    fn new(mtu: u16, route: usize) -> Self {
        let mut hosts = vec![host_with_mtu(1, mtu), host_with_mtu(2, mtu)];
        introduce(&mut hosts);
        let mut world = Self {
            hosts,
            now: epoch(),
            route,
            mtu,
        };
        for at in [0, 1] {
            let (id, endpoint) = (world.hosts[1 - at].keys.id, world.hosts[1 - at].endpoint);
            let tunnels = &mut world.hosts[at].tunnels;
            tunnels.open_path(&id, endpoint, PathKind::Direct, world.now);
        }
        world.settle();
        world
    }

    fn with_relay(mtu: u16, route: usize) -> Self {
        let mut world = Self::new(mtu, route);
        for at in [0, 1] {
            let id = world.hosts[1 - at].keys.id;
            let kind = PathKind::Relay(PeerId::random());
            let tunnels = &mut world.hosts[at].tunnels;
            tunnels.open_path(&id, RELAY, kind, world.now);
        }
        world.settle();
        world
    }

    fn settle(&mut self) {
        loop {
            let mut flying = Vec::new();
            for (at, host) in self.hosts.iter_mut().enumerate() {
                for (to, datagram) in host.tunnels.outbox().datagrams() {
                    let (from, carried) = match to {
                        Path::Direct(_) | Path::Relayed { .. } => {
                            (host.endpoint, datagram.len() <= self.route)
                        }
                        Path::Carrier(_) => (to, true),
                    };
                    if carried {
                        flying.push((1 - at, from, datagram.to_vec()));
                    }
                }
                host.tunnels.outbox().clear();
            }
            if flying.is_empty() {
                return;
            }
            for (to, from, datagram) in flying {
                let tunnels = &mut self.hosts[to].tunnels;
                tunnels.handle_datagram(from, &datagram, self.now);
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(250);
            for host in &mut self.hosts {
                host.tunnels.handle_timeout(self.now);
            }
            self.settle();
        }
    }

    fn view(&self) -> PathView {
        let peer = self.hosts[0].tunnels.peer(&self.hosts[1].keys.id);
        peer.unwrap().paths().view().unwrap()
    }

    fn send(&mut self, packet: &[u8]) -> Fate {
        self.hosts[0]
            .tunnels
            .handle_overlay_packet(packet, self.now);
        self.settle();
        if let [answer] = &received(&mut self.hosts[0])[..] {
            let answer = IpPacket::parse(answer).unwrap();
            let message = answer.payload();
            return Fate::TooBig(u16::from_be_bytes([message[6], message[7]]));
        }
        match received(&mut self.hosts[1]) {
            packets if packets.is_empty() => Fate::Lost,
            packets => Fate::Arrived(packets),
        }
    }

    fn ipv6(&self, length: u16) -> Vec<u8> {
        let mut packet = vec![0; length.into()];
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&(length - 40).to_be_bytes());
        packet[6] = 17;
        packet[8..24].copy_from_slice(&self.hosts[0].keys.ipv6.octets());
        packet[24..40].copy_from_slice(&self.hosts[1].keys.ipv6.octets());
        packet
    }

    fn ipv4(&self, length: u16, flags: u8) -> Vec<u8> {
        let text: Vec<_> = (28..length).map(|at| at as u8).collect();
        let mut packet = udp(address(&self.hosts[0]), address(&self.hosts[1]), &text);
        packet[6] = flags;
        packet[10..12].fill(0);
        checksum::write_ipv4_header(&mut packet[..20]);
        packet
    }

    /// A sender that does as it is told gets through at once, or with its second try.
    fn assert_gets_through(&mut self, packet_of: impl Fn(&Self, u16) -> Vec<u8>, length: u16) {
        let packet = packet_of(self, length);
        let told = match self.send(&packet) {
            Fate::Arrived(packets) => return assert_eq!(packets, [packet]),
            Fate::TooBig(told) => told,
            Fate::Lost => panic!("{length} bytes are lost by {:?}", self.view()),
        };
        assert!(told < length && told >= self.mtu.min(1280));
        let shorter = packet_of(self, told);
        assert_eq!(self.send(&shorter), Fate::Arrived(vec![shorter]));
    }

    /// Packets of all lengths arrive, or a shorter one does after an answer.
    fn assert_no_length_stalls(&mut self) {
        for length in [48, 576, 1279, 1280, 1281, 1332, 1400, 1420, 2000, self.mtu] {
            if length <= self.mtu {
                self.assert_gets_through(|world, length| world.ipv4(length, DONT_FRAGMENT), length);
                self.assert_gets_through(Self::ipv6, length);
                let whole = self.ipv4(length, 0);
                let Fate::Arrived(fragments) = self.send(&whole) else {
                    panic!("{length} bytes that may be cut by {:?}", self.view())
                };
                let payload: Vec<_> = fragments.iter().flat_map(|part| &part[20..]).collect();
                assert!(payload.into_iter().eq(&whole[20..]));
            }
        }
    }

    fn assert_knows_the_route(&self) {
        let truth = self.route.saturating_sub(OVERHEAD).min(self.mtu.into());
        let known = usize::from(self.view().mtu);
        assert!(
            known <= truth && known + 8 >= truth,
            "route {}: {:?}",
            self.route,
            self.view()
        );
    }
}

/// Every length of a route that anything is known of: each in steps, and one by one where something changes.
fn routes() -> impl Iterator<Item = usize> {
    let edges = [MIN_ROUTE, 1420 + OVERHEAD, 8920 + OVERHEAD];
    let around = edges.into_iter().flat_map(|edge| edge - 3..=edge + 3);
    (576..=9000).step_by(41).chain(around)
}

#[test]
fn no_packet_stalls_on_any_route_beside_a_relay() {
    for mtu in [1420, 8920] {
        for route in routes() {
            let mut world = World::with_relay(mtu, route);
            world.pass(Duration::from_secs(40));
            let view = world.view();
            if route < MIN_ROUTE {
                assert_eq!((view.path, view.mtu), (RELAY, mtu), "route {route}");
            } else {
                assert_eq!(view.kind, PathKind::Direct, "route {route}");
                world.assert_knows_the_route();
            }
            world.assert_no_length_stalls();
        }
    }
}

#[test]
fn no_packet_stalls_on_any_route_that_carries_the_minimum() {
    for mtu in [1280, 1420, 8920] {
        for route in routes().filter(|route| *route >= MIN_ROUTE) {
            let mut world = World::new(mtu, route);
            world.pass(Duration::from_secs(40));
            world.assert_knows_the_route();
            world.assert_no_length_stalls();
        }
    }
}

#[test]
fn a_narrow_interface_needs_no_wide_route() {
    let mut world = World::new(576, 576 + OVERHEAD);
    world.pass(Duration::from_secs(5));
    assert!(world.view().proven);
    world.assert_no_length_stalls();
}

#[test]
fn a_direct_path_of_576_bytes_is_never_in_use_while_a_relay_works() {
    let mut world = World::with_relay(1420, 576);
    for _ in 0..200 {
        world.pass(Duration::from_millis(250));
        assert_eq!(world.view().path, RELAY);
        let packet = world.ipv6(1420);
        assert_eq!(world.send(&packet), Fate::Arrived(vec![packet]));
    }
}

/// How long a sender that always has something to send, and does as it is told, sends in vain.
fn silence(world: &mut World, length: &mut u16) -> Duration {
    let start = world.now;
    loop {
        let packet = world.ipv6(*length);
        match world.send(&packet) {
            Fate::Arrived(_) => return world.now - start,
            Fate::TooBig(told) => *length = told,
            Fate::Lost => world.pass(Duration::from_millis(250)),
        }
        assert!(world.now - start < Duration::from_secs(60), "a stall");
    }
}

#[test]
fn a_flow_goes_on_within_seconds_after_its_route_narrows() {
    for route in [MIN_ROUTE, 1313, 1350, 1400, 1451] {
        let mut world = World::with_relay(1420, 1500);
        world.pass(Duration::from_secs(30));
        let mut length = 1420;
        assert_eq!(silence(&mut world, &mut length), Duration::ZERO);
        world.route = route;
        assert!(silence(&mut world, &mut length) <= Duration::from_secs(7));
        assert_eq!(world.view().kind, PathKind::Direct);
        for _ in 0..80 {
            world.pass(Duration::from_millis(250));
            assert_eq!(silence(&mut world, &mut length), Duration::ZERO);
        }
        world.assert_knows_the_route();
    }
}

#[test]
fn a_flow_moves_to_the_relay_when_its_route_narrows_too_much() {
    for route in [0, 576, MIN_ROUTE - 1] {
        let mut world = World::with_relay(1420, 1500);
        world.pass(Duration::from_secs(30));
        world.route = route;
        assert!(silence(&mut world, &mut 1420) <= Duration::from_secs(8));
        for _ in 0..200 {
            assert_eq!(world.view().path, RELAY);
            world.pass(Duration::from_millis(250));
            assert_eq!(silence(&mut world, &mut 1420), Duration::ZERO);
        }
    }
}

#[test]
fn a_route_that_widens_under_a_flow_is_used_in_full_after_a_while() {
    let mut world = World::new(1420, 1350);
    world.pass(Duration::from_secs(30));
    world.route = 1500;
    for _ in 0..620 {
        world.pass(Duration::from_secs(1));
        silence(&mut world, &mut 1280);
    }
    assert_eq!(world.view().mtu, 1420);
}

#[test]
fn what_is_too_big_is_counted_and_answers_are_bounded() {
    let mut world = World::new(1420, 1350);
    world.pass(Duration::from_secs(30));
    let packet = world.ipv6(1420);
    let host = &mut world.hosts[0];
    for _ in 0..1000 {
        host.tunnels.handle_overlay_packet(&packet, world.now);
    }
    assert_eq!(host.tunnels.drops().of(DropReason::PacketTooBig), 1000);
    assert_eq!(received(host).len(), 100);
}

#[test]
fn both_ends_of_a_tcp_connection_are_told_what_fits() {
    let mut world = World::new(1420, 1350);
    world.pass(Duration::from_secs(30));
    let mtu = world.view().mtu;
    let mut syn = world.ipv4(44, DONT_FRAGMENT);
    syn[9] = 6;
    syn[20..].fill(0);
    syn[32..34].copy_from_slice(&[0x60, 0x02]);
    syn[40..].copy_from_slice(&[2, 4, 0x05, 0x64]);
    let mss = |packet: &[u8]| u16::from_be_bytes([packet[42], packet[43]]);
    let Fate::Arrived(arrived) = world.send(&syn) else {
        panic!("lost")
    };
    assert_eq!(mss(&arrived[0]), mtu - 40);
    // A peer that does not clamp: what it sends is clamped on its way in.
    let datagram = sealed(&mut world.hosts, &syn);
    let from = world.hosts[0].endpoint;
    let tunnels = &mut world.hosts[1].tunnels;
    tunnels.handle_datagram(from, &datagram, world.now);
    assert!(mss(&received(&mut world.hosts[1])[0]) < mss(&syn));
}

/// What the first host could send to the second that does not keep to our rules.
fn sealed(hosts: &mut [Host], packet: &[u8]) -> Vec<u8> {
    let to = hosts[1].keys.id;
    let peers = &mut hosts[0].tunnels.peers;
    let index = peers.index_of(&to).unwrap();
    let peer = peers.get_mut(index).unwrap();
    let mut datagram = vec![0; sealed_length(packet.len())];
    let session = peer.sessions_mut().carrying_mut().unwrap();
    let length = session
        .seal(packet, packet.len(), &mut Vec::new(), &mut datagram)
        .unwrap();
    datagram.truncate(length);
    datagram
}

/// Bytes that look like a packet between two hosts as far as they reach.
fn disguised(world: &World, mut bytes: Vec<u8>, protocol: u8, is_ipv4: bool) -> Vec<u8> {
    let length = bytes.len() as u16;
    let header = if is_ipv4 {
        let options = bytes.first().map_or(5, |byte| (byte & 0x0f).max(5));
        let mut header = world.ipv4(28, 0)[..20].to_vec();
        header[0] = 0x40 | options;
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[6..8].copy_from_slice(bytes.get(6..8).unwrap_or(&[0, 0]));
        header[9] = protocol;
        header
    } else {
        let mut header = world.ipv6(40);
        header[4..6].copy_from_slice(&length.saturating_sub(40).to_be_bytes());
        header[6] = protocol;
        header
    };
    for (byte, wanted) in bytes.iter_mut().zip(header) {
        *byte = wanted;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_that_one_member_can_send_makes_another_panic(
        packets in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..200), 0..1800_usize, 0..4_u8, any::<bool>()),
            1..40,
        ),
    ) {
        let mut world = World::new(1420, 1350);
        world.pass(Duration::from_secs(20));
        for (mut bytes, longer, kind, is_ipv4) in packets {
            if kind % 2 == 0 {
                bytes.resize(bytes.len() + longer, 0);
            }
            let protocol = [6, 1, 58, 253][usize::from(kind)];
            let packet = disguised(&world, bytes, protocol, is_ipv4);
            let _ = world.send(&packet);
            for host in &mut world.hosts {
                received(host);
            }
            let datagram = sealed(&mut world.hosts, &packet);
            let from = world.hosts[0].endpoint;
            world.hosts[1].tunnels.handle_datagram(from, &datagram, world.now);
            received(&mut world.hosts[1]);
        }
        world.assert_gets_through(World::ipv6, 1420);
    }
}
