//! Small networks whose messages and datagrams are carried by hand.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use zeroize::Zeroizing;

use super::*;
use crate::testing::epoch;
use crate::{
    connection::{ConnectionId, Link},
    drop_reason::DropReason,
    membership::{
        Descriptor, Features, Founding, Invite, JoinAnswer, JoinMessage, JoinRefusal, JoinRequest,
        Joined, genesis,
    },
    output::RequestId,
};

mod administration;
mod certificates;
mod conflicts;
mod delegates;
mod expulsion;
mod hostile;
mod joining;
mod passwords;
mod policy;
pub(crate) mod registry;
mod renewal;
mod storage;

const UNIX: UnixTime = UnixTime(1_800_000_000);

/// A node with what its shell would hold.
struct Host {
    node: Node,
    number: u8,
    answers: Vec<Vec<u8>>,
    refused: Vec<String>,
    disk: storage::Disk,
}

struct World {
    hosts: Vec<Host>,
    start: Instant,
    elapsed: Duration,
    next_connection: u64,
    /// Each connection's two ends, by host number; the ids are the same at both.
    links: BTreeMap<ConnectionId, (usize, usize)>,
    /// What each sent about the registry, by host number.
    bytes: [u64; 256],
}

fn signer(number: u8) -> Signer {
    Signer::from_seed(&[number; 32])
}

fn endpoint(number: u8) -> SocketAddr {
    ([192, 0, 2, number], 7777).into()
}

/// The founder and two members, each connected with each.
fn three() -> (World, usize, usize) {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    world.connect(0, c);
    world.connect(b, c);
    (world, b, c)
}

fn founded(name: &str) -> (Network, Credential, Vec<u8>) {
    let founding = Founding {
        name: Name::parse("home").unwrap(),
        ipv4_prefix: genesis::DEFAULT_IPV4_PREFIX,
        certificate_lifetime: genesis::DEFAULT_CERTIFICATE_LIFETIME,
        founder_name: Name::parse(name).unwrap(),
        founder_ipv4: Some([10, 77, 0, 1].into()),
        policy_mode: None,
    };
    let secret = Zeroizing::new([77; 32]);
    let founded =
        Network::found(founding, &signer(200), &signer(1), [9; 16], secret, UNIX).unwrap();
    (founded.network, founded.credential, founded.delegation)
}

fn start(number: u8, network: Network, credential: Credential, records: Vec<Vec<u8>>) -> Start {
    Start {
        signer: signer(number),
        wireguard: session::Identity::new([number; 32]),
        network,
        credential,
        delegation: None,
        name: Name::parse(&format!("n{number}")).unwrap(),
        mtu: 1420,
        seed: number.into(),
        secret_seed: Zeroizing::new([number; 32]),
        descriptor_seq: 0,
        time_floor: UNIX,
        records,
        notices: Vec::new(),
        redemptions: Vec::new(),
        password: None,
        random: Zeroizing::new([number; 32]),
        relay_terms: relay::Terms::default(),
        bootstrap: Vec::new(),
        entries: Vec::new(),
        rules: Rules::default(),
        registry_client: false,
    }
}

impl World {
    /// One node, which has founded the network.
    fn new() -> Self {
        let (network, credential, delegation) = founded("n1");
        let mut start = start(1, network, credential, Vec::new());
        start.delegation = Some(delegation);
        let now = Now {
            instant: epoch(),
            unix: UNIX,
        };
        let node = Node::new(start, now).unwrap();
        let mut world = Self {
            hosts: vec![Host {
                node,
                number: 1,
                answers: Vec::new(),
                refused: Vec::new(),
                disk: storage::Disk::default(),
            }],
            start: now.instant,
            elapsed: Duration::ZERO,
            next_connection: 0,
            links: BTreeMap::new(),
            bytes: [0; 256],
        };
        world.reach(0);
        world
    }

    fn now(&self) -> Now {
        Now {
            instant: self.start + self.elapsed,
            unix: UNIX.plus(self.elapsed),
        }
    }

    fn reach(&mut self, at: usize) {
        let address = format!("/ip4/192.0.2.{}/udp/7777/quic-v1", self.hosts[at].number)
            .parse()
            .unwrap();
        let reach = Reach {
            addresses: vec![address],
            candidates: Vec::new(),
            relays: self.hosts[at].number == 1,
            is_seen: true,
        };
        let now = self.now();
        self.hosts[at].node.handle_reach(reach, now);
    }

    fn invite(&mut self, secret: u8) -> Invite {
        let request = InviteRequest {
            name: None,
            groups: Default::default(),
            ipv4: None,
            lifetime: Duration::from_secs(3600),
        };
        let now = self.now();
        self.hosts[0]
            .node
            .invite(request, Vec::new(), Zeroizing::new([secret; 32]), now)
            .unwrap()
    }

    /// Lets a stranger ask the founder.
    fn ask(&mut self, invite: &Invite, number: u8) -> Result<Joined, String> {
        let request = JoinRequest::seal(invite, &signer(number), &format!("n{number}"), None);
        let body = JoinMessage::Invite(request).encode();
        let now = self.now();
        self.hosts[0]
            .node
            .handle_join_request(RequestId(0), signer(number).peer_id(), &body, now);
        self.settle();
        let answer = self.hosts[0]
            .answers
            .pop()
            .expect("every request is answered");
        JoinAnswer::accept(&answer, invite, &signer(number).key(), UNIX)
            .map_err(|error| error.to_string())
    }

    fn join(&mut self, number: u8) -> usize {
        let invite = self.invite(number);
        let joined = self.ask(&invite, number).unwrap();
        let mut start = start(number, joined.network, joined.credential, joined.records);
        start.notices = joined.notices;
        self.start_host(start, number)
    }

    fn start_host(&mut self, start: Start, number: u8) -> usize {
        let mut disk = storage::Disk::default();
        disk.fill(&start);
        let node = Node::new(start, self.now()).unwrap();
        self.hosts.push(Host {
            node,
            number,
            answers: Vec::new(),
            refused: Vec::new(),
            disk,
        });
        self.reach(self.hosts.len() - 1);
        self.hosts.len() - 1
    }

    fn connect(&mut self, a: usize, b: usize) -> ConnectionId {
        self.connect_by(a, b, Link::Quic)
    }

    /// Opens a connection; each end shows its record, as the gate makes them.
    fn connect_by(&mut self, a: usize, b: usize, link: fn(SocketAddr) -> Link) -> ConnectionId {
        let id = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.links.insert(id, (a, b));
        let now = self.now();
        for (here, there) in [(a, b), (b, a)] {
            let (peer, number) = (self.hosts[there].node.peer_id(), self.hosts[there].number);
            let record = self.hosts[there].node.own_record().unwrap();
            let node = &mut self.hosts[here].node;
            node.handle_connection_opened(id, peer, link(endpoint(number)), now);
            node.handle_credential(id, peer, &record, now);
        }
        for here in [a, b] {
            self.hosts[here].node.handle_authenticated(id, now);
        }
        self.settle();
        id
    }

    fn other_end(&self, id: ConnectionId, here: usize) -> Option<usize> {
        let (a, b) = self.links.get(&id)?;
        Some(if *a == here { *b } else { *a })
    }

    /// Carries everything until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            for here in 0..self.hosts.len() {
                while let Some(output) = self.hosts[here].node.poll_output() {
                    quiet = false;
                    self.carry_out(here, output);
                }
                let from = Path::Direct(endpoint(self.hosts[here].number));
                let outbox: Vec<_> = self.hosts[here]
                    .node
                    .outbox()
                    .datagrams()
                    .map(|(to, d)| (to, d.to_vec()))
                    .collect();
                self.hosts[here].node.outbox().clear();
                let now = self.now().instant;
                for (to, datagram) in outbox {
                    quiet = false;
                    let there = self
                        .hosts
                        .iter_mut()
                        .find(|host| to == Path::Direct(endpoint(host.number)));
                    if let Some(there) = there {
                        there.node.handle_datagram(from, &datagram, now);
                    }
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn host_of(&self, peer: &PeerId) -> Option<usize> {
        self.hosts
            .iter()
            .position(|host| host.node.peer_id() == *peer)
    }

    /// The host that is `peer`, if a connection leads there.
    fn reached(&self, here: usize, peer: &PeerId) -> Option<usize> {
        let there = self.host_of(peer)?;
        let is_linked =
            |(a, b): &(usize, usize)| [*a, *b] == [here, there] || [*b, *a] == [here, there];
        self.links.values().any(is_linked).then_some(there)
    }

    /// Asks a host, and carries the answer back; what else the host has to say comes later.
    fn ask_host(
        &mut self,
        there: usize,
        ask: impl FnOnce(&mut Node, RequestId),
    ) -> Option<Vec<u8>> {
        ask(&mut self.hosts[there].node, RequestId(1));
        let mut answer = None;
        let mut later = Vec::new();
        while let Some(output) = self.hosts[there].node.poll_output() {
            if answer.is_some() {
                later.push(output);
            } else if let Output::Respond { body, .. } = output {
                answer = Some(body);
            } else {
                later.push(output);
            }
        }
        for output in later {
            self.carry_out(there, output);
        }
        answer
    }

    fn carry_out(&mut self, here: usize, output: Output) {
        let now = self.now();
        let us = self.hosts[here].node.peer_id();
        self.hosts[here].disk.keep(&output);
        match output {
            Output::Sync { peer, body } => {
                let Some(there) = self.reached(here, &peer) else {
                    return;
                };
                let answer = self.ask_host(there, |node, request| {
                    node.handle_sync_request(request, us, &body, now);
                });
                let node = &mut self.hosts[here].node;
                node.handle_sync_answer(peer, &answer.expect("always"), now);
            }
            Output::Registry { peer, body } => {
                self.bytes[usize::from(self.hosts[here].number)] += body.len() as u64;
                let Some(there) = self.reached(here, &peer) else {
                    return self.hosts[here].node.handle_registry_failed(peer, now);
                };
                let answer = self.ask_host(there, |node, request| {
                    node.handle_registry_request(request, us, &body, now);
                });
                let answer = answer.expect("always");
                self.bytes[usize::from(self.hosts[there].number)] += answer.len() as u64;
                let node = &mut self.hosts[here].node;
                node.handle_registry_answer(peer, &answer, now);
            }
            Output::AskRenewal { peer, body } => {
                let Some(there) = self.reached(here, &peer) else {
                    return self.hosts[here].node.handle_renewal_failed(peer, now);
                };
                let answer = self.ask_host(there, |node, request| {
                    node.handle_join_request(request, us, &body, now);
                });
                let node = &mut self.hosts[here].node;
                node.handle_renewal_answer(peer, &answer.expect("always"), now);
            }
            Output::Respond { body, .. } => self.hosts[here].answers.push(body),
            Output::Redeem { accepted, .. } => self.hosts[here].answers.push(accepted),
            Output::Refuse { reason, .. } => self.hosts[here].refused.push(reason),
            Output::Close(id) => self.close(here, id),
            Output::Dial { .. }
            | Output::Admit(_)
            | Output::Introduce(_)
            | Output::SaveRecord { .. }
            | Output::ForgetRecord(_)
            | Output::SaveNotice { .. }
            | Output::ForgetNotice(_)
            | Output::Standing(_)
            | Output::PolicyChanged(_)
            | Output::Departed(_)
            | Output::SaveDescriptorSeq(_)
            | Output::SaveTimeFloor(_)
            | Output::SaveCredential(_)
            | Output::Publish { .. }
            | Output::Lookup { .. }
            | Output::Relays(_)
            | Output::SetIpv4(_)
            | Output::SaveEntry { .. }
            | Output::ForgetEntry { .. }
            | Output::PublishEntry { .. }
            | Output::LookupEntry { .. } => {}
        }
    }

    fn close(&mut self, here: usize, id: ConnectionId) {
        let now = self.now();
        let there = self.other_end(id, here);
        self.links.remove(&id);
        self.hosts[here].node.handle_connection_closed(id, now);
        if let Some(there) = there {
            self.hosts[there].node.handle_connection_closed(id, now);
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.elapsed + span;
        while self.elapsed < end {
            self.elapsed += Duration::from_millis(250).min(end - self.elapsed);
            let now = self.now();
            for host in &mut self.hosts {
                host.node.handle_timeout(now);
                while host.node.poll_moved(now.instant).is_some() {}
            }
            self.settle();
        }
    }

    fn send(&mut self, from: usize, to: usize, text: &[u8]) -> Vec<Vec<u8>> {
        let (source, destination) = (
            self.hosts[from].node.ipv4().unwrap(),
            self.hosts[to].node.ipv4().unwrap(),
        );
        let mut packet = vec![0; 20];
        packet.extend_from_slice(text);
        packet[0] = 0x45;
        let length = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        let now = self.now().instant;
        self.hosts[from].node.handle_overlay_packet(&packet, now);
        self.settle();
        let inbox = self.hosts[to].node.inbox();
        let came = inbox.iter().map(|packet| packet[20..].to_vec()).collect();
        inbox.clear();
        came
    }

    fn names_known_to(&self, at: usize) -> BTreeSet<String> {
        self.hosts[at]
            .node
            .members()
            .iter()
            .map(|member| member.name.to_string())
            .collect()
    }
}

#[test]
fn two_nodes_that_joined_by_invite_reach_each_other_by_ip() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    assert_eq!(world.send(0, b, b"hello"), [b"hello".to_vec()]);
    assert_eq!(world.send(b, 0, b"and back"), [b"and back".to_vec()]);
    let peers = world.hosts[0].node.peers();
    assert_eq!(peers[0].path.map(|path| path.kind.name()), Some("direct"));
    assert!(peers[0].member.online);
}

/// UDP would work, but the connection came up over TCP, and no carrier stream yet: raw datagrams to where the other
/// listens for QUIC are tried from both ends.
#[test]
fn a_peer_that_is_connected_over_tcp_is_soon_reached_directly() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect_by(0, b, Link::Tcp);
    assert_eq!(world.hosts[0].node.peers()[0].path, None);
    world.pass(Duration::from_secs(2));
    for at in [0, b] {
        let path = world.hosts[at].node.peers()[0].path;
        assert_eq!(
            path.map(|path| path.kind.name()),
            Some("direct"),
            "as seen by host {at}"
        );
    }
}

#[test]
fn nodes_that_know_only_the_founder_learn_of_each_other_and_go_on_without_it() {
    let mut world = World::new();
    let (b, c) = (world.join(2), world.join(3));
    world.connect(0, b);
    world.connect(0, c);
    let everybody: BTreeSet<String> = ["n1", "n2", "n3"].map(str::to_owned).into();
    for at in [0, b, c] {
        assert_eq!(world.names_known_to(at), everybody, "as seen by host {at}");
    }
    world.hosts.remove(0);
    world.links.clear();
    world.connect(0, 1);
    assert_eq!(
        world.send(0, 1, b"without the founder"),
        [b"without the founder".to_vec()]
    );
}

/// The announcement of a new address is lost with the connection it went by, while another connection stays.
#[test]
fn news_that_were_lost_with_a_connection_are_told_again() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let (founder, other) = (world.hosts[0].node.peer_id(), world.hosts[b].node.peer_id());
    let now = world.now();
    let moved = Reach {
        addresses: vec!["/ip4/192.0.2.200/udp/1/quic-v1".parse().unwrap()],
        ..Reach::default()
    };
    world.hosts[b].node.handle_reach(moved.clone(), now);
    while let Some(output) = world.hosts[b].node.poll_output() {
        if let Output::Sync { peer, .. } = output {
            world.hosts[b].node.handle_sync_failed(peer, now);
        }
    }
    let known = |world: &World| {
        let member = world.hosts[0].node.directory.get(&other).unwrap();
        member.descriptor.addresses.clone()
    };
    assert_ne!(known(&world), moved.addresses);
    world.pass(Duration::from_secs(2));
    assert_eq!(known(&world), moved.addresses);
    assert!(world.hosts[b].node.resync.is_empty(), "{founder} was told");
}

#[test]
fn a_silent_path_is_noticed_and_the_peer_is_offline_though_its_connection_does_not_know_yet() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    assert!(world.hosts[0].node.peers()[0].member.online);
    world.hosts.truncate(1);
    world.links.clear();
    world.pass(Duration::from_secs(30));
    let peer = &world.hosts[0].node.peers()[0];
    assert!(!peer.member.online);
    assert_eq!(peer.path, None);
}

#[test]
fn a_lonely_node_tries_its_bootstrap_addresses_until_somebody_is_there() {
    let mut world = World::new();
    let b = world.join(2);
    let address: Multiaddr = "/ip4/203.0.113.9/udp/7777/quic-v1".parse().unwrap();
    let founder = world.hosts[0].node.peer_id();
    world.hosts[b].node.bootstrap = vec![(founder, address.clone())];
    let tried = |world: &mut World| {
        world.elapsed += BOOTSTRAP_PERIOD;
        let now = world.now();
        let node = &mut world.hosts[b].node;
        node.handle_timeout(now);
        std::iter::from_fn(|| node.poll_output())
            .filter(|output| matches!(output, Output::Dial { addresses, .. } if addresses == std::slice::from_ref(&address)))
            .count()
    };
    assert_eq!((tried(&mut world), tried(&mut world)), (1, 1));
    world.connect(0, b);
    assert_eq!(tried(&mut world), 0);
}

#[test]
fn a_second_start_knows_what_the_first_one_learnt() {
    let mut world = World::new();
    let b = world.join(2);
    world.connect(0, b);
    let (network, credential, delegation) = founded("n1");
    let mut again = start(1, network, credential, Vec::new());
    again.delegation = Some(delegation);
    again.records = world.hosts[0]
        .node
        .directory
        .members()
        .map(|member| member.record.encode())
        .collect();
    again.descriptor_seq = world.hosts[0].node.descriptor_seq;
    let node = Node::new(again, world.now()).unwrap();
    assert_eq!(node.resolve("n2"), Some(world.hosts[b].node.peer_id()));
    assert_eq!(
        node.resolve(&IpAddr::from(world.hosts[b].node.ipv4().unwrap()).to_string()),
        node.resolve("n2")
    );
    assert!(node.descriptor_seq > world.hosts[0].node.descriptor_seq);
}
