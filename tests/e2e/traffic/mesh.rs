//! Everybody asks everybody, all at the same time.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::deadline::Limit;
use crate::lab::Host;

const PORT: u16 = 4000;
const ASK: &[u8] = b"are you there?";
const ANSWER: &[u8] = b"I am.";
/// How often somebody who has not answered is asked.
const BEAT: Duration = Duration::from_millis(200);

/// When each was first answered by whom; who is missing never was.
pub type Answers = BTreeMap<(&'static str, &'static str), Duration>;

/// Sends datagrams between all of them until each has an answer of each, or time is up.
pub fn mesh(nodes: &[(Host, Ipv4Addr)], limit: Limit) -> Answers {
    let began = Instant::now();
    let missing = Arc::new(AtomicUsize::new(nodes.len() * (nodes.len() - 1)));
    let names: BTreeMap<IpAddr, &'static str> = nodes
        .iter()
        .map(|(host, address)| (IpAddr::from(*address), host.name()))
        .collect();
    let asking: Vec<_> = nodes
        .iter()
        .map(|(host, address)| {
            let (names, missing, address) = (names.clone(), Arc::clone(&missing), *address);
            host.thread(move || ask(address, names, &missing, began, limit))
        })
        .collect();
    let answers = asking.into_iter().zip(nodes).map(|(thread, (host, _))| {
        let answers = thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        answers
            .into_iter()
            .map(|(peer, after)| ((host.name(), peer), after))
    });
    answers.flatten().collect()
}

/// One of them: asks whom it must, and answers until nobody asks any more.
fn ask(
    us: Ipv4Addr,
    mut silent: BTreeMap<IpAddr, &'static str>,
    missing: &AtomicUsize,
    began: Instant,
    limit: Limit,
) -> Vec<(&'static str, Duration)> {
    silent.remove(&us.into());
    let socket = UdpSocket::bind((us, PORT)).expect("the address is the host's");
    socket
        .set_read_timeout(Some(BEAT / 4))
        .expect("the timeout is not zero");
    let (mut answers, mut datagram) = (Vec::new(), [0; 64]);
    let mut next = began;
    while missing.load(Ordering::Relaxed) > 0 && !limit.is_over() {
        if Instant::now() >= next {
            for peer in silent.keys() {
                let _ = socket.send_to(ASK, (*peer, PORT)); // who cannot be asked stays silent
            }
            next += BEAT;
        }
        let Ok((length, peer)) = socket.recv_from(&mut datagram) else {
            continue; // nothing came
        };
        if datagram[..length] == *ASK {
            let _ = socket.send_to(ANSWER, peer);
        } else if let Some(name) = silent.remove(&peer.ip()) {
            answers.push((name, began.elapsed()));
            missing.fetch_sub(1, Ordering::Relaxed);
        }
    }
    answers
}
