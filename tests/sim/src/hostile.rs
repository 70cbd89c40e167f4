//! Bytes from somebody who means harm, in the middle of a network that works.
//!
//! [`live_through`] is what fuzzers call, and what an ordinary test calls with the corpus that they left. The bytes are read
//! as *acts*: each says which host is meant, by which door, and with what. Whatever they say, nobody panics, nobody
//! logs an error, and afterwards every pair still reaches each other.
//!
//! ```text
//! door (1) │ host (1) │ length (1) │ as many bytes
//! ```

use crate::{
    clock::{millis, seconds},
    invariants::{self, Broken},
    nat::NatKind,
    underlay::{GOOD_LINE, GatewayKind, HostId},
    world::World,
};

/// Acts beyond are not played: one run should take a moment.
const MAX_ACTS: usize = 64;
/// The founder, and one behind each kind of NAT that can be punched.
const GATEWAYS: [GatewayKind; 3] = [
    GatewayKind::Open,
    GatewayKind::Nat(NatKind::PORT_RESTRICTED),
    GatewayKind::Nat(NatKind::FULL_CONE),
];

/// By which door hostile bytes come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// A datagram from an endpoint that is nobody's.
    Stranger,
    /// A datagram that pretends to come from another host.
    Forger,
    /// A datagram on the carrier stream of a connection.
    Carrier,
    /// A question of a member.
    Question,
    /// A member's answer to a question that was never asked.
    Answer,
    /// A record out of the DHT.
    Record,
    /// A stranger that wants to join.
    Join,
    /// Nobody: time passes, a tenth of a second for each byte.
    Time,
}

impl Door {
    fn of(byte: u8) -> Self {
        match byte % 8 {
            0 => Self::Stranger,
            1 => Self::Forger,
            2 => Self::Carrier,
            3 => Self::Question,
            4 => Self::Answer,
            5 => Self::Record,
            6 => Self::Join,
            _ => Self::Time,
        }
    }
}

/// Plays the acts in `bytes`; returns what did not hold.
pub fn live_through(bytes: &[u8]) -> Vec<Broken> {
    let mut world = World::new(1);
    for gateway in GATEWAYS {
        let site = world.add_site(gateway, GOOD_LINE);
        world.add_host(site, millis(0));
    }
    world.run_for(seconds(8));
    world.begin_chapter("hostility".to_owned());
    let mut rest = bytes;
    for _ in 0..MAX_ACTS {
        let [door, host, length, after @ ..] = rest else {
            break;
        };
        let length = usize::from(*length).min(after.len());
        let (body, next) = after.split_at(length);
        play(
            &mut world,
            Door::of(*door),
            usize::from(*host) % GATEWAYS.len(),
            body,
        );
        rest = next;
    }
    world.begin_chapter("peace".to_owned());
    world.run_for(seconds(20));
    invariants::delivery(&mut world, invariants::FIRST_PACKET);
    invariants::bounded(&mut world);
    world.broken().to_vec()
}

fn play(world: &mut World, door: Door, here: HostId, body: &[u8]) {
    let now = world.now();
    let other = (here + 1) % GATEWAYS.len();
    let (pretended, peer) = (world.underlay.address_of(other), world.peer_id(other));
    let connection = world.swarm().connections.keys().next().copied();
    let host = world.host(here);
    match (door, connection) {
        (Door::Stranger, _) => {
            let stranger = std::net::SocketAddrV4::new([198, 51, 100, 66].into(), 666);
            host.datagram(stranger, body, now);
        }
        (Door::Forger, _) => host.datagram(pretended, body, now),
        (Door::Carrier, Some(connection)) => host.frame(connection, body, now),
        (Door::Carrier, None) => {}
        (Door::Question, _) => host.sync_request(u64::MAX, peer, body, now),
        (Door::Answer, _) => host.sync_answer(peer, body, now),
        (Door::Record, _) => host.found(body, now),
        (Door::Join, _) => host.join_request(peer, body, now),
        (Door::Time, _) => world.run_for(millis(100) * body.len() as u32),
    }
    world.drain(here);
}
