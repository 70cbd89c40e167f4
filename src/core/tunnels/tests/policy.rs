//! Stories of the filter, between nodes whose datagrams are carried by hand. They hold for both families of addresses.

use super::*;
use crate::policy::{
    Exposed, Mode, Policy, Subject,
    flows::{MAX_FLOWS_PER_PEER, RESERVED_FLOWS},
    testing::{ACK, End, FIN, RST, SYN, echo, packet, policy, tcp, udp as datagram, unreachable},
};

/// Hosts that know each other as n1, n2…, under one policy.
struct Net {
    hosts: Vec<Host>,
    now: Instant,
}

const SSH: u16 = 22;
const CLIENT: u16 = 50_000;

impl Net {
    fn new(count: u8, policy: Policy) -> Self {
        let (hosts, now) = connected(count);
        let mut net = Self { hosts, now };
        for at in 0..net.hosts.len() {
            net.rename(at, &format!("n{}", at + 1));
        }
        net.set_policy(&policy);
        net
    }

    fn rename(&mut self, at: usize, name: &str) {
        let id = self.hosts[at].keys.id;
        let subject = Subject {
            peer: Some(id),
            name: Some(name.parse().unwrap()),
            groups: Default::default(),
        };
        for host in &mut self.hosts {
            match host.keys.id == id {
                true => host.tunnels.set_own_subject(subject.clone()),
                false => host.tunnels.set_subject(&id, subject.clone()),
            }
        }
    }

    fn set_policy(&mut self, policy: &Policy) {
        for host in &mut self.hosts {
            host.tunnels.set_policy(policy.clone());
        }
    }

    /// What the sender's own filter would stop goes out all the same.
    fn is_rogue(&mut self, at: usize) {
        self.hosts[at].tunnels.set_policy(Policy::of(Mode::Open));
    }

    fn end(&self, at: usize, port: u16) -> End {
        (address(&self.hosts[at]), port)
    }

    fn end6(&self, at: usize, port: u16) -> End {
        (self.hosts[at].keys.ipv6.into(), port)
    }

    /// Sends from a host and returns what came to each.
    fn send(&mut self, from: usize, packet: &[u8]) -> Vec<Vec<Vec<u8>>> {
        self.hosts[from]
            .tunnels
            .handle_overlay_packet(packet, self.now);
        settle(&mut self.hosts, self.now);
        self.hosts.iter_mut().map(received).collect()
    }

    /// Sends from one host to another; whether it arrived, and what the sender was told.
    fn ask(&mut self, from: usize, to: usize, packet: &[u8]) -> (bool, Option<Told>) {
        let came = self.send(from, packet);
        let arrived = came[to].iter().any(|came| came == packet);
        let mut told = came[from].iter().map(|packet| told(packet));
        (arrived, told.next_back())
    }

    fn arrives(&mut self, from: usize, to: usize, packet: &[u8]) -> bool {
        self.ask(from, to, packet).0
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        for host in &mut self.hosts {
            host.tunnels.handle_timeout(self.now);
        }
        settle(&mut self.hosts, self.now);
        // Silence may have cost the keys: a first packet fetches new ones.
        for host in &mut self.hosts {
            host.tunnels.inbox().clear();
        }
    }

    fn dropped(&self, at: usize, reason: DropReason) -> u64 {
        self.hosts[at].tunnels.drops().of(reason)
    }

    /// A TCP connection from one host to the other's SSH port, established.
    fn connect(&mut self, from: End, to: End, (at, peer): (usize, usize)) {
        assert!(self.arrives(at, peer, &tcp(from, to, SYN, (100, 0))));
        assert!(self.arrives(peer, at, &tcp(to, from, SYN | ACK, (900, 101))));
        assert!(self.arrives(at, peer, &tcp(from, to, ACK, (101, 901))));
    }
}

/// What a host hears instead of an answer.
#[derive(Debug, PartialEq)]
enum Told {
    /// A reset with these numbers.
    Reset {
        sequence: u32,
        acknowledgment: Option<u32>,
    },
    Prohibited,
    Other,
}

fn told(packet: &[u8]) -> Told {
    let packet = IpPacket::parse(packet).unwrap();
    let upper = packet.payload();
    let long = |at: usize| u32::from_be_bytes(upper[at..at + 4].try_into().unwrap());
    match (packet.protocol(), upper) {
        (6, _) if upper[13] & RST != 0 => Told::Reset {
            sequence: long(4),
            acknowledgment: (upper[13] & ACK != 0).then(|| long(8)),
        },
        (1, [3, 13, ..]) | (58, [1, 1, ..]) => Told::Prohibited,
        (_, _) => Told::Other,
    }
}

fn closed(rules: &[&str]) -> Policy {
    policy(Mode::Closed, rules)
}

#[test]
fn a_closed_network_answers_at_once_that_nothing_is_to_be_had() {
    let mut net = Net::new(2, closed(&[]));
    for (a, b) in [
        (net.end(0, CLIENT), net.end(1, SSH)),
        (net.end6(0, CLIENT), net.end6(1, SSH)),
    ] {
        let reset = Told::Reset {
            sequence: 0,
            acknowledgment: Some(101),
        };
        assert_eq!(
            net.ask(0, 1, &tcp(a, b, SYN, (100, 0))),
            (false, Some(reset))
        );
        let refused = (false, Some(Told::Prohibited));
        assert_eq!(net.ask(0, 1, &datagram(a, b, b"hello")), refused);
        assert_eq!(net.ask(0, 1, &echo(a.0, b.0, true, 7)), refused);
    }
    assert_eq!(net.dropped(0, DropReason::PolicyRefused), 6);
    assert_eq!(
        net.dropped(1, DropReason::PolicyDenied),
        0,
        "it was not asked"
    );
}

/// The attack: a member patches its own node and sends what the policy forbids. The destination decides for itself.
#[test]
fn a_member_that_does_not_keep_to_the_policy_is_stopped_by_the_destination() {
    let mut net = Net::new(2, closed(&[]));
    net.is_rogue(0);
    for (a, b) in [
        (net.end(0, CLIENT), net.end(1, SSH)),
        (net.end6(0, CLIENT), net.end6(1, SSH)),
    ] {
        let reset = Told::Reset {
            sequence: 0,
            acknowledgment: Some(101),
        };
        assert_eq!(
            net.ask(0, 1, &tcp(a, b, SYN, (100, 0))),
            (false, Some(reset))
        );
        let reset = Told::Reset {
            sequence: 555,
            acknowledgment: None,
        };
        assert_eq!(
            net.ask(0, 1, &tcp(a, b, ACK, (7, 555))),
            (false, Some(reset))
        );
        assert_eq!(net.ask(0, 1, &tcp(a, b, RST, (7, 0))), (false, None));
        let refused = (false, Some(Told::Prohibited));
        assert_eq!(net.ask(0, 1, &datagram(a, b, b"hello")), refused);
        assert_eq!(net.ask(0, 1, &echo(a.0, b.0, true, 7)), refused);
        assert!(
            !net.arrives(0, 1, &echo(a.0, b.0, false, 7)),
            "an answer to nothing"
        );
        let other = packet(a.0, b.0, 132, &[0; 12]);
        assert_eq!(net.ask(0, 1, &other), refused);
    }
    assert_eq!(net.dropped(1, DropReason::PolicyDenied), 12);
    assert_eq!(net.dropped(1, DropReason::NoFlow), 2);
}

#[test]
fn what_a_rule_allows_gets_its_answers_and_nothing_else_passes() {
    let mut net = Net::new(2, closed(&["allow n1 n2 tcp/22 udp/53 icmp"]));
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    net.connect(a, b, (0, 1));
    assert!(net.arrives(0, 1, &tcp(a, b, ACK | FIN, (101, 901))));
    assert!(net.arrives(1, 0, &tcp(b, a, ACK | FIN, (901, 102))));
    assert!(net.arrives(0, 1, &tcp(a, b, ACK, (102, 902))));
    let (question, dns) = (net.end(0, CLIENT), net.end(1, 53));
    assert!(net.arrives(0, 1, &datagram(question, dns, b"?")));
    assert!(net.arrives(1, 0, &datagram(dns, question, b"!")));
    assert!(net.arrives(0, 1, &echo(a.0, b.0, true, 7)));
    assert!(net.arrives(1, 0, &echo(b.0, a.0, false, 7)));
    // The other way nothing may begin.
    assert!(!net.arrives(1, 0, &tcp((b.0, CLIENT), (a.0, SSH), SYN, (1, 0))));
    assert!(!net.arrives(1, 0, &datagram((b.0, 53), (a.0, 99), b"?")));
    assert!(!net.arrives(1, 0, &echo(b.0, a.0, true, 7)));
    assert!(!net.arrives(0, 1, &tcp(a, (b.0, 23), SYN, (1, 0))));
}

/// The attack: whom we may reach sends a SYN out of the port that we speak to, to the port that we speak from. By its
/// numbers alone it belongs to our flow.
#[test]
fn nobody_comes_in_by_the_way_of_an_answer() {
    let mut net = Net::new(2, closed(&["allow n2 n1 tcp icmp"]));
    net.is_rogue(0);
    let (server, client) = (net.end(0, SSH), net.end(1, CLIENT));
    net.connect(client, server, (1, 0));
    assert!(!net.arrives(0, 1, &tcp(server, client, SYN, (1, 0))));
    assert!(net.arrives(0, 1, &tcp(server, client, ACK, (901, 101))));
    assert!(net.arrives(1, 0, &echo(client.0, server.0, true, 7)));
    assert!(!net.arrives(0, 1, &echo(server.0, client.0, true, 7)));
    assert!(net.arrives(0, 1, &echo(server.0, client.0, false, 7)));
    assert!(!net.arrives(0, 1, &echo(server.0, client.0, false, 8)));
}

#[test]
fn an_error_passes_with_the_flow_that_it_is_about() {
    let mut net = Net::new(2, closed(&["allow n1 n2 udp"]));
    for (a, b) in [
        (net.end(0, CLIENT), net.end(1, 33_434)),
        (net.end6(0, CLIENT), net.end6(1, 33_434)),
    ] {
        let probe = datagram(a, b, b"anybody?");
        let other = datagram((a.0, CLIENT + 1), b, b"anybody?");
        assert!(net.arrives(0, 1, &probe));
        assert!(net.arrives(1, 0, &unreachable(b.0, a.0, &probe)));
        assert!(!net.arrives(1, 0, &unreachable(b.0, a.0, &other)));
        assert!(!net.arrives(1, 0, &unreachable(b.0, a.0, &probe[..22])));
    }
}

#[test]
fn a_published_service_is_reached_and_the_rest_is_refused_by_the_destination() {
    let mut net = Net::new(2, Policy::of(Mode::Published));
    let exposed = Exposed::from(["tcp/22".parse().unwrap()]);
    net.hosts[1].tunnels.set_exposed(exposed);
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    net.connect(a, b, (0, 1));
    assert!(net.arrives(0, 1, &echo(a.0, b.0, true, 7)));
    assert!(net.arrives(0, 1, &datagram(a, (b.0, 53), b"?")));
    let (arrived, told) = net.ask(0, 1, &tcp(a, (b.0, 80), SYN, (100, 0)));
    assert!(
        !arrived && matches!(told, Some(Told::Reset { .. })),
        "{told:?}"
    );
    let (arrived, told) = net.ask(0, 1, &datagram(a, (b.0, 80), b"?"));
    assert_eq!((arrived, told), (false, Some(Told::Prohibited)));
    assert_eq!(net.dropped(1, DropReason::PolicyDenied), 2);
    assert_eq!(net.dropped(0, DropReason::PolicyRefused), 0);
    // What is no longer published is cut.
    net.hosts[1].tunnels.set_exposed(Exposed::new());
    assert!(!net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
}

/// Both ends believe in the connection, so both learn that it is over, with numbers that they accept.
#[test]
fn a_live_connection_is_cut_at_its_next_packet_and_both_ends_learn_it() {
    for before in [Mode::Open, Mode::Published] {
        let mut net = Net::new(2, policy(before, &["allow n1 n2 tcp"]));
        let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
        net.connect(a, b, (0, 1));
        net.set_policy(&policy(Mode::Open, &["deny n1 n2 tcp/22"]));
        net.is_rogue(0);
        let came = net.send(0, &tcp(a, b, ACK, (101, 901)));
        let to_peer = Told::Reset {
            sequence: 901,
            acknowledgment: None,
        };
        let to_us = Told::Reset {
            sequence: 101,
            acknowledgment: Some(901),
        };
        assert_eq!(
            came[0].iter().map(|p| told(p)).collect::<Vec<_>>(),
            [to_peer]
        );
        assert_eq!(came[1].iter().map(|p| told(p)).collect::<Vec<_>>(), [to_us]);
        // The server that goes on talking does not bring it back.
        let (arrived, told) = net.ask(1, 0, &tcp(b, a, ACK, (901, 101)));
        assert!(!arrived && matches!(told, Some(Told::Reset { .. })));
        assert!(!net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
        // Another connection is another matter.
        net.connect((b.0, CLIENT), (a.0, SSH), (1, 0));
    }
}

#[test]
fn a_connection_that_we_began_outlives_the_closing_of_what_is_ours() {
    let mut net = Net::new(2, Policy::of(Mode::Open));
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    net.connect(a, b, (0, 1));
    net.pass(3 * 60 * 60);
    net.set_policy(&closed(&["allow n1 n2 tcp/22"]));
    assert!(
        net.arrives(1, 0, &tcp(b, a, ACK, (901, 101))),
        "it began while nothing was denied"
    );
    assert!(net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
}

#[test]
fn datagrams_that_a_program_goes_on_sending_do_not_open_the_way_back() {
    let mut net = Net::new(2, closed(&["allow n1 n2 udp/443", "allow n2 n1 any"]));
    let (client, server) = (net.end(0, CLIENT), net.end(1, 443));
    assert!(net.arrives(0, 1, &datagram(client, server, b"hello")));
    assert!(net.arrives(1, 0, &datagram(server, client, b"hello")));
    net.set_policy(&closed(&["allow n2 n1 any"]));
    net.is_rogue(0);
    for _ in 0..10 {
        assert!(!net.arrives(0, 1, &datagram(client, server, b"still there?")));
        assert!(!net.arrives(1, 0, &datagram(server, client, b"still here")));
        net.pass(100);
    }
}

#[test]
fn other_groups_or_another_name_count_for_live_flows_as_a_new_policy_does() {
    let mut net = Net::new(2, closed(&["allow n1 n2 tcp/22"]));
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    net.connect(a, b, (0, 1));
    net.rename(0, "someone-else");
    net.is_rogue(0);
    assert!(!net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
    net.rename(0, "n1");
    assert!(net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
    net.rename(1, "someone-else");
    assert!(!net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
}

#[test]
fn a_flow_that_is_silent_for_too_long_must_begin_anew() {
    let mut net = Net::new(2, closed(&["allow n1 n2 tcp/22 udp/53 icmp"]));
    let (a, dns) = (net.end(0, CLIENT), net.end(1, 53));
    let b = net.end(1, SSH);
    net.connect(a, b, (0, 1));
    assert!(net.arrives(0, 1, &datagram(a, dns, b"?")));
    assert!(net.arrives(0, 1, &echo(a.0, b.0, true, 7)));
    net.pass(61);
    // A first packet after a while brings new keys along.
    assert!(!net.arrives(1, 0, &echo(b.0, a.0, false, 7)));
    assert!(net.arrives(1, 0, &datagram(dns, a, b"!")));
    net.pass(301);
    assert!(!net.arrives(1, 0, &datagram(dns, a, b"!")));
    net.pass(7200 - 362);
    net.send(0, &tcp(a, b, ACK, (101, 901)));
    assert!(net.arrives(1, 0, &tcp(b, a, ACK, (901, 101))));
}

#[test]
fn after_a_restart_a_connection_goes_on_where_it_could_begin() {
    let rules = closed(&["allow n1 n2 tcp/22"]);
    let mut net = Net::new(2, rules.clone());
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    // Neither has seen the beginning.
    assert_eq!(
        net.ask(1, 0, &tcp(b, a, ACK, (901, 101))),
        (false, None),
        "perhaps it is the client's own: no reset, which would end it"
    );
    assert!(net.arrives(0, 1, &tcp(a, b, ACK, (101, 901))));
    assert!(net.arrives(1, 0, &tcp(b, a, ACK, (901, 101))));
}

#[test]
fn the_rest_of_a_fragmented_packet_follows_its_first_part() {
    let mut net = Net::new(2, closed(&["allow n1 n2 tcp/22"]));
    net.is_rogue(0);
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    let fragment = |offset: u16, payload: &[u8]| {
        let mut packet = packet(a.0, b.0, 6, payload);
        packet[6..8].copy_from_slice(&offset.to_be_bytes());
        packet
    };
    assert!(net.arrives(0, 1, &fragment(3, b"more text")));
    // The attack of RFC 1858: parts of a header that was looked at are replaced, or too short to be looked at.
    assert!(!net.arrives(0, 1, &fragment(1, &[SYN; 16])));
    assert!(!net.arrives(0, 1, &fragment(0x2000, &tcp(a, b, SYN, (1, 0))[20..36])));
}

#[test]
fn one_peers_flows_are_bounded_and_never_those_of_another() {
    let mut net = Net::new(3, closed(&["allow * n1 tcp"]));
    let us = net.end(0, SSH);
    let other = net.end(2, CLIENT);
    net.connect(other, us, (2, 0));
    let flood = MAX_FLOWS_PER_PEER + 500;
    for number in 0..flood {
        let from = net.end(1, 1 + number as u16);
        net.hosts[1]
            .tunnels
            .handle_overlay_packet(&tcp(from, us, SYN, (1, 0)), net.now);
        if number % 64 == 0 {
            settle(&mut net.hosts, net.now);
        }
    }
    settle(&mut net.hosts, net.now);
    let flows = net.hosts[0].tunnels.filter().flows();
    assert_eq!(flows, MAX_FLOWS_PER_PEER + 1);
    assert!(flows > RESERVED_FLOWS);
    received(&mut net.hosts[0]);
    assert!(net.arrives(0, 2, &tcp(us, other, ACK, (901, 101))));
    // They end, and their memory is given back.
    net.pass(300);
    let from = net.end(1, 1);
    for _ in 0..3 {
        net.send(1, &tcp(from, us, SYN, (1, 0)));
    }
    let id = net.hosts[1].keys.id;
    net.hosts[0].tunnels.remove(&id);
    assert_eq!(net.hosts[0].tunnels.filter().flows(), 1);
}

#[test]
fn denied_packets_are_answered_in_measure() {
    let mut net = Net::new(2, closed(&[]));
    net.is_rogue(0);
    let (a, b) = (net.end(0, CLIENT), net.end(1, 99));
    let packet = datagram(a, b, b"?");
    let told: usize = (0..500).map(|_| net.send(0, &packet)[0].len()).sum();
    assert_eq!(told, 100);
    assert_eq!(net.dropped(1, DropReason::PolicyDenied), 500);
}

#[test]
fn a_peer_with_a_new_tunnel_key_keeps_its_flows() {
    let mut net = Net::new(2, closed(&["allow n1 n2 tcp/22"]));
    let (a, b) = (net.end(0, CLIENT), net.end(1, SSH));
    net.connect(a, b, (0, 1));
    let id = net.hosts[1].keys.id;
    let rotated = PeerKeys {
        key: WireGuardKey([99; 32]),
        ..net.hosts[1].keys
    };
    net.hosts[0].tunnels.upsert(rotated);
    assert_eq!(net.hosts[0].tunnels.filter().flows(), 1);
    let guard = net.hosts[0].tunnels.peer(&id).unwrap().guard();
    assert_eq!(guard.subject().name, Some("n2".parse().unwrap()));
}

#[test]
fn a_rule_about_others_costs_this_pair_nothing() {
    let mut net = Net::new(2, policy(Mode::Open, &["deny ghost n2 tcp/22"]));
    let (a, b) = (net.end(0, CLIENT), net.end(1, 99));
    assert!(net.arrives(0, 1, &datagram(a, b, b"hello")));
    assert_eq!(
        net.hosts[1].tunnels.filter().flows(),
        0,
        "no table is asked"
    );
}
