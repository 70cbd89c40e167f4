//! How long datagrams take to the peer and back, and how many get lost.

use std::{
    collections::HashMap,
    convert::Infallible,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    net::UdpSocket,
    time::{MissedTickBehavior, interval, timeout_at},
};

use super::wire::{Echo, Ticket};

/// An echo that takes longer is lost.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Round trips, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of them took at most this long.
    pub p50: f64,
    /// All but one in a hundred took at most this long.
    pub p99: f64,
}

impl Latency {
    /// Of these round trips; `None` if there are none.
    pub fn of(mut round_trips: Vec<Duration>) -> Option<Self> {
        round_trips.sort_unstable();
        Some(Self {
            p50: milliseconds(percentile(&round_trips, 50)?),
            p99: milliseconds(percentile(&round_trips, 99)?),
        })
    }
}

/// The nearest-rank percentile: the smallest of `sorted` that at least `percent` of them do not exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Milliseconds with microseconds behind the point.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What came of the echoes of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Echoes {
    /// None if none came back.
    pub latency_ms: Option<Latency>,
    /// Of those whose fate is known; none if there are none.
    pub loss_percent: Option<f64>,
}

/// Sends datagrams at an even pace and takes their echoes.
pub struct Pinger<'a> {
    socket: &'a UdpSocket,
    ticket: Ticket,
    every: Duration,
    /// Goes on from one phase to the next, so that a late echo is not mistaken for another.
    next: &'a mut u32,
    waiting: HashMap<u32, Instant>,
    last_sent: Instant,
    round_trips: Vec<Duration>,
}

impl<'a> Pinger<'a> {
    /// On a socket that is connected to the responder's.
    pub fn new(socket: &'a UdpSocket, ticket: Ticket, every: Duration, next: &'a mut u32) -> Self {
        Self {
            socket,
            ticket,
            every,
            next,
            waiting: HashMap::new(),
            last_sent: Instant::now(),
            round_trips: Vec::new(),
        }
    }

    /// Sends and receives until it is dropped.
    pub async fn run(&mut self) -> Infallible {
        let mut tick = interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                number = receive(self.socket, self.ticket) => self.came_back(number),
                _ = tick.tick() => self.send(),
            }
        }
    }

    /// Returns when the first echo has come.
    pub async fn first(&mut self) {
        let mut tick = interval(self.every);
        while self.round_trips.is_empty() {
            tokio::select! {
                number = receive(self.socket, self.ticket) => self.came_back(number),
                _ = tick.tick() => self.send(),
            }
        }
    }

    /// Waits for the echoes that are still under way, until they are lost.
    pub async fn settle(&mut self) {
        let deadline = self.last_sent + PATIENCE;
        while !self.waiting.is_empty() {
            let received = receive(self.socket, self.ticket);
            let Ok(number) = timeout_at(deadline.into(), received).await else {
                return;
            };
            self.came_back(number);
        }
    }

    /// What came of them. Those that are still under way are neither answered nor lost.
    pub fn result(self) -> Echoes {
        let lost = self.waiting.values();
        let lost = lost.filter(|sent| sent.elapsed() >= PATIENCE).count();
        let known = lost + self.round_trips.len();
        Echoes {
            loss_percent: (known > 0)
                .then(|| (lost as f64 / known as f64 * 10_000.0).round() / 100.0),
            latency_ms: Latency::of(self.round_trips),
        }
    }

    fn send(&mut self) {
        let number = *self.next;
        *self.next = number.wrapping_add(1);
        self.last_sent = Instant::now();
        self.waiting.insert(number, self.last_sent);
        let echo = Echo {
            ticket: self.ticket,
            number,
        };
        // One that cannot be sent is lost, and counted as such.
        let _ = self.socket.try_send(&echo.encode());
    }

    fn came_back(&mut self, number: u32) {
        if let Some(sent) = self.waiting.remove(&number) {
            self.round_trips.push(sent.elapsed());
        }
    }
}

/// The number of the next echo of ours.
async fn receive(socket: &UdpSocket, ticket: Ticket) -> u32 {
    let mut datagram = [0; Echo::LENGTH + 1];
    loop {
        // An error is about a datagram that we sent: it is lost.
        let Ok(length) = socket.recv(&mut datagram).await else {
            continue;
        };
        match Echo::decode(&datagram[..length]) {
            Some(echo) if echo.ticket == ticket => return echo.number,
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(milliseconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        milliseconds
            .into_iter()
            .map(Duration::from_millis)
            .collect()
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let of = |times| Latency::of(times).map(|latency| (latency.p50, latency.p99));
        assert_eq!(of(times([])), None);
        assert_eq!(of(times([7])), Some((7.0, 7.0)));
        assert_eq!(of(times([30, 10, 20])), Some((20.0, 30.0)));
        assert_eq!(of(times((1..=100).rev())), Some((50.0, 99.0)));
        assert_eq!(of(times(1..=1000)), Some((500.0, 990.0)));
    }

    proptest! {
        #[test]
        fn a_percentile_is_the_smallest_that_enough_do_not_exceed(
            mut milliseconds in prop::collection::vec(0..50_u64, 1..200),
            percent in 1..=100_usize,
        ) {
            milliseconds.sort_unstable();
            let times = times(milliseconds);
            let found = percentile(&times, percent).unwrap();
            let share = |limit: &dyn Fn(&Duration) -> bool| times.iter().filter(|t| limit(t)).count() * 100;
            prop_assert!(share(&|time| *time <= found) >= percent * times.len());
            prop_assert!(share(&|time| *time < found) < percent * times.len());
        }
    }

    #[tokio::test]
    async fn what_is_under_way_is_neither_answered_nor_lost() {
        let socket = UdpSocket::bind("[::1]:0").await.unwrap();
        let mut next = 0;
        let ticket = Ticket([0; 16]);
        let mut pinger = Pinger::new(&socket, ticket, Duration::from_secs(1), &mut next);
        for _ in 0..4 {
            pinger.send();
        }
        pinger.came_back(0);
        pinger.came_back(0); // twice is once
        pinger.came_back(77); // of another phase
        for number in [1, 2] {
            let long_ago = Instant::now().checked_sub(PATIENCE).unwrap();
            pinger.waiting.insert(number, long_ago);
        }
        let result = pinger.result();
        assert_eq!(result.loss_percent, Some(66.67));
        assert!(result.latency_ms.is_some());
        assert_eq!(next, 4);
    }
}
