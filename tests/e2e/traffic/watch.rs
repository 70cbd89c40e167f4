//! Traffic that goes on while the world under it changes, and how long it rested.

use std::io::{Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{BLOCK, accept, any_port, connect, limit};
use crate::deadline::{Limit, passes, until};
use crate::lab::Host;

/// How often a datagram is sent.
const BEAT: Duration = Duration::from_millis(100);
/// How often a stream gets a block: 6.5 MB/s, which leaves the machine to the nodes.
const FLOW: Duration = Duration::from_millis(10);
/// How long it is watched, beyond what it may rest, whether it goes on for good.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// Longer than any stream may rest: it is the watch that says what is too long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What arrives, until it is dropped.
pub struct Watch {
    what: String,
    enough: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    arrivals: Vec<Instant>,
    /// What ended the traffic.
    end: Option<String>,
}

impl Watch {
    /// A datagram every 100 ms; its echoes are the arrivals.
    pub fn of_echoes(from: &Host, to: &Host, address: IpAddr) -> Self {
        let watch = Self::new("echoes", from, to);
        let server =
            to.here(move || UdpSocket::bind((address, 0)).expect("the address is the receiver's"));
        let target = server.local_addr().expect("a bound socket has an address");
        let enough = Arc::clone(&watch.enough);
        to.thread(move || {
            patient(&server, BEAT);
            let mut datagram = [0; 64];
            while !enough.load(Ordering::Relaxed) {
                if let Ok((n, peer)) = server.recv_from(&mut datagram) {
                    let _ = server.send_to(&datagram[..n], peer); // a lost echo shows as a rest
                }
            }
        });
        let (enough, seen) = (Arc::clone(&watch.enough), Arc::clone(&watch.seen));
        from.thread(move || {
            let socket = UdpSocket::bind(any_port(target)).expect("any port will do");
            let mut next = Instant::now();
            while !enough.load(Ordering::Relaxed) {
                if Instant::now() >= next {
                    let _ = socket.send_to(b"still there?", target); // an error shows as a rest
                    next += BEAT;
                }
                let wait = next.saturating_duration_since(Instant::now());
                patient(&socket, wait.max(Duration::from_millis(1)));
                if socket.recv(&mut [0; 64]).is_ok() {
                    seen.lock().unwrap().arrivals.push(Instant::now());
                }
            }
        });
        watch
    }

    /// A TCP stream in full flow; what its receiver reads are the arrivals. It must never break.
    pub fn of_stream(from: &Host, to: &Host, address: IpAddr) -> Self {
        let watch = Self::new("a stream", from, to);
        let listener = to.here(move || {
            std::net::TcpListener::bind((address, 0)).expect("the address is the receiver's")
        });
        let server = listener
            .local_addr()
            .expect("a bound socket has an address");
        let seen = Arc::clone(&watch.seen);
        to.thread(move || {
            let (mut stream, _) = accept(&listener);
            limit(&stream, PATIENCE);
            let mut block = vec![0; BLOCK];
            let end = loop {
                match stream.read(&mut block) {
                    Ok(0) => break "it was closed".to_owned(),
                    Ok(_) => seen.lock().unwrap().arrivals.push(Instant::now()),
                    Err(error) => break error.to_string(),
                }
            };
            seen.lock().unwrap().end = Some(end);
        });
        let (enough, seen) = (Arc::clone(&watch.enough), Arc::clone(&watch.seen));
        from.thread(move || {
            let (mut stream, block) = (connect(server), vec![0x5a; BLOCK]);
            limit(&stream, PATIENCE);
            while !enough.load(Ordering::Relaxed) {
                if let Err(error) = stream.write_all(&block) {
                    seen.lock().unwrap().end = Some(error.to_string());
                    return;
                }
                std::thread::park_timeout(FLOW);
            }
        });
        watch
    }

    fn new(kind: &str, from: &Host, to: &Host) -> Self {
        Self {
            what: format!("{kind} from {} to {}", from.name(), to.name()),
            enough: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// The longest time since then in which nothing arrived; panics when nothing ever will again.
    fn longest_rest(&self, since: Instant) -> Duration {
        let (end, arrivals) = {
            let seen = self.seen.lock().unwrap();
            (seen.end.clone(), seen.arrivals.clone())
        };
        assert!(end.is_none(), "{} broke: {end:?}", self.what);
        let mut last = since;
        let later = arrivals.into_iter().filter(|at| *at >= since);
        let rests = later.chain([Instant::now()]).map(|at| {
            let rest = at - last;
            last = at;
            rest
        });
        rests.max().unwrap_or_default()
    }

    /// Waits until it flows.
    fn flows(&self) {
        let what = format!("{} flow", self.what);
        until(PATIENCE, &what, || {
            self.seen.lock().unwrap().arrivals.len() > 1
        });
    }

    /// Waits until something arrives that has not yet.
    fn flows_on(&self, within: Duration) {
        let arrived = || self.seen.lock().unwrap().arrivals.len();
        let (before, what) = (arrived(), format!("{} flow on", self.what));
        until(within, &what, || arrived() > before);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Lets something happen to traffic that flows, and asserts that after it none of it rests for longer than `bound`, nor
/// breaks.
pub fn rests_at_most(bound: Duration, watches: &[&Watch], what: &str, happens: impl FnOnce()) {
    for watch in watches {
        watch.flows();
    }
    happens();
    let (since, limit) = (Instant::now(), Limit::new(bound));
    passes(bound + AFTERWARDS);
    for watch in watches {
        watch.flows_on(bound);
    }
    let rests: Vec<_> = watches
        .iter()
        .map(|watch| (&watch.what, watch.longest_rest(since)))
        .collect();
    println!("{what}: {rests:?}");
    assert!(
        rests.iter().all(|(_, rest)| *rest <= limit.granted()),
        "{what}: nothing should rest for more than {bound:?}: {rests:#?}"
    );
}

/// Lets something happen to traffic that flows, and asserts that it is over `bound` later at the latest.
pub fn dies_within(bound: Duration, watches: &[&Watch], what: &str, happens: impl FnOnce()) {
    for watch in watches {
        watch.flows();
    }
    let (since, limit) = (Instant::now(), Limit::new(bound));
    happens();
    until(bound * 2 + AFTERWARDS, "time passes", || {
        since.elapsed() >= limit.granted() + AFTERWARDS
    });
    for watch in watches {
        let last = watch.seen.lock().unwrap().arrivals.last().copied();
        let flowed = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since));
        println!("{what}: {} went on for {flowed:?}", watch.what);
        assert!(
            flowed <= limit.granted(),
            "{what}: {} still flows",
            watch.what
        );
    }
}

fn patient(socket: &UdpSocket, patience: Duration) {
    socket
        .set_read_timeout(Some(patience))
        .expect("the timeout is not zero");
}
