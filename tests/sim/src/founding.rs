//! How hosts become members: the first founds the network, every other redeems an invite at it, by the real messages.

use std::{net::Ipv4Addr, time::Duration};

use hivevpn_core::{
    membership::{
        Credential, Founding, Invite, JoinAnswer, JoinMessage, JoinRequest, Name, Network, Signer,
        UnixTime, genesis,
    },
    node::{InviteRequest, Start},
    registry::Rules,
    relay, session,
};
use libp2p_identity::PeerId;
use zeroize::Zeroizing;

use crate::{
    clock::Moment,
    host::{Drained, Host, HostClock, JOIN, Order, disk::Disk},
    underlay::HostId,
};

/// The wall clock when the world begins.
pub const UNIX: UnixTime = UnixTime(1_800_000_000);
const MTU: u16 = 1420;

/// The identity of a host.
pub fn signer(host: HostId) -> Signer {
    Signer::from_seed(&seed(host))
}

fn seed(host: HostId) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(host as u64 + 1).to_be_bytes());
    seed
}

/// The overlay address of a host.
pub fn ipv4(host: HostId) -> Ipv4Addr {
    let [.., high, low] = (host as u32 + 1).to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

fn name(host: HostId) -> Name {
    Name::parse(&format!("n{host}")).expect("letters and digits")
}

/// Founds the network at host 0.
pub fn found(seed: u64, clock: HostClock, now: Moment) -> Host {
    let founding = Founding {
        name: Name::parse("home").expect("letters"),
        ipv4_prefix: genesis::DEFAULT_IPV4_PREFIX,
        certificate_lifetime: genesis::DEFAULT_CERTIFICATE_LIFETIME,
        founder_name: name(0),
        founder_ipv4: Some(ipv4(0)),
        policy_mode: None,
    };
    let authority = Signer::from_seed(&[200; 32]);
    let secret = Zeroizing::new([77; 32]);
    let founded = Network::found(founding, &authority, &signer(0), [9; 16], secret, UNIX)
        .expect("a sound founding");
    let mut start = start(0, seed, founded.network, founded.credential, Vec::new());
    start.delegation = Some(founded.delegation);
    Host::start(start, clock, now)
}

/// What a host starts from that has been there before. Fresh randomness comes with every start.
pub fn again(host: HostId, seed: u64, disk: &Disk) -> Start {
    let seed = seed.wrapping_add(disk.starts << 32);
    let records = disk.records.values().cloned().collect();
    let (network, credential) = (disk.network.clone(), disk.credential.clone());
    let mut start = start(host, seed, network, credential, records);
    start.secret_seed[31] = disk.starts as u8;
    start.random[31] = disk.starts as u8;
    start.delegation = disk.delegation.clone();
    start.notices = disk.notices.values().cloned().collect();
    start.entries = disk.entries.values().cloned().collect();
    start.descriptor_seq = disk.descriptor_seq;
    start.time_floor = disk.time_floor;
    start.registry_client = disk.is_client;
    start
}

fn start(
    host: HostId,
    world: u64,
    network: Network,
    credential: Credential,
    records: Vec<Vec<u8>>,
) -> Start {
    Start {
        signer: signer(host),
        wireguard: session::Identity::new(seed(host)),
        network,
        credential,
        delegation: None,
        name: name(host),
        mtu: MTU,
        secret_seed: Zeroizing::new(seed(host)),
        seed: world.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ host as u64,
        descriptor_seq: 0,
        time_floor: UNIX,
        records,
        notices: Vec::new(),
        redemptions: Vec::new(),
        password: None,
        random: Zeroizing::new(seed(host)),
        relay_terms: relay::Terms::default(),
        bootstrap: Vec::new(),
        entries: Vec::new(),
        rules: Rules::new(),
        registry_client: false,
    }
}

/// Lets the founder decide about a new host. Returns what the host starts from, or `None` when it shall ask again, and
/// what else the founder has to say.
pub fn join(founder: &mut Host, host: HostId, world: u64, now: Moment) -> (Option<Start>, Drained) {
    let invite = invite(founder, host, now);
    let joiner = signer(host);
    let wanted = Some(ipv4(host));
    let request = JoinRequest::seal(&invite, &joiner, name(host).as_str(), wanted);
    let body = JoinMessage::Invite(request).encode();
    founder.join_request(joiner.peer_id(), &body, now);
    let mut drained = founder.drain(now);
    let mut answer = None;
    drained.orders.retain(|order| {
        let Order::Respond(JOIN, body) = order else {
            return true;
        };
        answer = Some(body.clone());
        false
    });
    let answer = answer.expect("every request is answered");
    let joined = JoinAnswer::accept(&answer, &invite, &joiner.key(), UNIX).ok();
    let started = joined.map(|joined| {
        start(
            host,
            world,
            joined.network,
            joined.credential,
            joined.records,
        )
    });
    (started, drained)
}

fn invite(founder: &mut Host, host: HostId, now: Moment) -> Invite {
    let request = InviteRequest {
        name: None,
        groups: Default::default(),
        ipv4: None,
        lifetime: Duration::from_secs(3600),
    };
    let mut secret = [1; 32];
    secret[..8].copy_from_slice(&(host as u64).to_be_bytes());
    let clocks = founder.clocks(now);
    founder
        .node_mut()
        .invite(request, Vec::new(), Zeroizing::new(secret), clocks)
        .expect("the founder may invite")
}

/// The founder's identity, whom everybody knows from the invite.
pub fn founder() -> PeerId {
    signer(0).peer_id()
}
