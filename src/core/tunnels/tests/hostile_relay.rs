//! A relay that means harm: it bends, repeats, inflates and swaps what passes through it. It can keep two members from
//! talking, as any cable can; it gets no packet through that they have not sent, and none twice.

use super::{relaying::*, *};
use crate::relay::{HEADER, Terms, split};

/// What the relay does to a datagram that it passes on; what comes out is sent in its place.
type Bend = fn(&[u8], &mut fastrand::Rng) -> Vec<Vec<u8>>;

fn flips_bits(datagram: &[u8], rng: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut bent = datagram.to_vec();
    let at = rng.usize(HEADER..bent.len());
    bent[at] ^= 1 << rng.u8(..8);
    vec![bent]
}

fn repeats(datagram: &[u8], _: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    vec![datagram.to_vec(); 5]
}

fn inflates(datagram: &[u8], rng: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let longer = datagram.len() + rng.usize(1..60_000);
    let mut bent = datagram.to_vec();
    bent.resize(longer, rng.u8(..));
    vec![bent]
}

fn cuts(datagram: &[u8], rng: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    vec![datagram[..rng.usize(..datagram.len())].to_vec()]
}

/// Everything at once, what it should pass on included.
fn does_all(datagram: &[u8], rng: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let all: [Bend; 4] = [flips_bits, inflates, cuts, repeats];
    all.iter().flat_map(|bend| bend(datagram, rng)).collect()
}

/// Carries datagrams as `settle_over` does, those that the relay passes on bent. What it is told itself stays as it is.
fn settle_bent(hosts: &mut [Host], bend: Bend, rng: &mut fastrand::Rng, now: Instant) {
    for _ in 0..8 {
        let mut flying = Vec::new();
        for host in hosts.iter_mut() {
            for (to, datagram) in host.tunnels.outbox().datagrams() {
                let to = Path::Direct(to.endpoint().expect("there are no connections"));
                let is_passed_on = host.endpoint == endpoint(1) && split(datagram).is_some();
                let sent = if is_passed_on {
                    bend(datagram, rng)
                } else {
                    vec![datagram.to_vec()]
                };
                flying.extend(sent.into_iter().map(|sent| (host.endpoint, to, sent)));
            }
            host.tunnels.outbox().clear();
        }
        for (from, to, datagram) in flying {
            if apart(from, to)
                && let Some(host) = hosts.iter_mut().find(|host| host.endpoint == to)
            {
                host.tunnels.handle_datagram(from, &datagram, now);
            }
        }
    }
}

/// Sends fifty packets through the relay while it bends; what arrives.
fn sent_through(bend: Bend) -> Vec<Vec<u8>> {
    let (mut hosts, mut now) = apart_with_relay(Terms::default());
    send(&mut hosts, 1, 2, b"hello", now);
    pass(&mut hosts, apart, &mut now, Duration::from_secs(2));
    assert_eq!(received(&mut hosts[2]).len(), 1);
    let mut rng = fastrand::Rng::with_seed(7);
    for n in 0..50_u8 {
        now += Duration::from_millis(10);
        let packet = udp(address(&hosts[1]), address(&hosts[2]), &[n; 40]);
        hosts[1].tunnels.handle_overlay_packet(&packet, now);
        settle_bent(&mut hosts, bend, &mut rng, now);
    }
    let arrived = received(&mut hosts[2]);
    // It does harm as long as it likes, not longer.
    pass(&mut hosts, apart, &mut now, Duration::from_secs(30));
    received(&mut hosts[2]);
    send(&mut hosts, 1, 2, b"afterwards", now);
    assert_eq!(received(&mut hosts[2]).len(), 1, "the tunnel lives");
    arrived
}

fn expected() -> Vec<Vec<u8>> {
    let [from, to] = [2, 3].map(|number| IpAddr::from([10, 77, 0, number]));
    (0..50_u8).map(|n| udp(from, to, &[n; 40])).collect()
}

#[test]
fn what_a_relay_bends_inflates_or_cuts_does_not_arrive() {
    for bend in [flips_bits as Bend, inflates, cuts] {
        assert_eq!(sent_through(bend), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn what_a_relay_repeats_arrives_once() {
    assert_eq!(sent_through(repeats), expected());
}

#[test]
fn what_a_relay_surrounds_with_lies_arrives_once_and_alone() {
    assert_eq!(sent_through(does_all), expected());
}
