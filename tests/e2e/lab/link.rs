//! A link with length: what enters at one end leaves at the other later, not faster than its rate, and not all of it.
//!
//! Some kernels have this as `netem`; this works on all. Each end is a TAP interface, and a thread for each direction
//! takes frames out of one and puts them into the other when they are due.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hivevpn_platform::priority::Urgency;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use super::cable::End;
use super::namespace;

/// What a link does, to both directions alike.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// How long a frame is on its way.
    pub delay: Duration,
    /// Bits per second; without, as fast as the machine.
    pub rate: Option<u32>,
    /// A frame that would wait longer for the line is dropped: the length of a modem's queue. Only with a rate.
    pub queue: Duration,
    /// How many frames of a thousand are lost by chance.
    pub loss: u32,
}

impl Link {
    /// Long, and nothing else.
    pub fn delay(milliseconds: u64) -> Self {
        Self {
            delay: Duration::from_millis(milliseconds),
            rate: None,
            queue: Duration::ZERO,
            loss: 0,
        }
    }

    /// With so many Mbit/s, and a queue that holds them for this long.
    pub fn rate(self, megabits: u32, queue: Duration) -> Self {
        Self {
            rate: Some(megabits * 1_000_000),
            queue,
            ..self
        }
    }

    /// With so many frames of a thousand lost.
    pub fn loss(self, per_mille: u32) -> Self {
        Self {
            loss: per_mille,
            ..self
        }
    }
}

/// A link in operation. It must end before its namespaces can.
pub struct Running {
    stop: Arc<AtomicBool>,
    directions: Vec<JoinHandle<()>>,
}

impl Running {
    /// Makes the interfaces and connects them. They are not up yet.
    pub fn start(link: Link, ends: &[End; 2]) -> Self {
        let [a, b] = ends.clone().map(|end| Arc::new(tap(end)));
        let stop = Arc::new(AtomicBool::new(false));
        let directions = [(Arc::clone(&a), Arc::clone(&b), 1), (b, a, 2)];
        Self {
            directions: directions
                .map(|(from, to, seed)| {
                    let stop = Arc::clone(&stop);
                    std::thread::spawn(move || carry(&from, &to, Line::new(link, seed), &stop))
                })
                .into(),
            stop,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for direction in self.directions.drain(..) {
            if direction.join().is_err() {
                eprintln!("lab: a link had broken"); // its own panic said why
            }
        }
    }
}

/// A TAP interface in another namespace.
fn tap(end: End) -> SyncDevice {
    let made = std::thread::spawn(move || {
        namespace::enter(&end.namespace);
        DeviceBuilder::new()
            .name(&end.interface)
            .layer(Layer::L2)
            .inherit_enable_state()
            .build_sync()
            .and_then(|device| device.set_nonblocking(true).map(|()| device))
            .unwrap_or_else(|error| panic!("TAP interface {}: {error}", end.interface))
    });
    made.join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Frames taken before those that are due get their turn.
const BURST: usize = 64;
/// How often a quiet direction looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than any frame.
const FRAME: usize = 1 << 16;

fn carry(from: &SyncDevice, to: &SyncDevice, mut line: Line, stop: &AtomicBool) {
    // A link does not wait behind busy programs, else the tests would measure this machine.
    let mut urgency = Urgency::of_this_thread(Instant::now());
    let mut frame = vec![0; FRAME];
    while !stop.load(Ordering::Relaxed) {
        let wait = line.next_due().map_or(LOOK, |due| {
            due.saturating_duration_since(Instant::now()).min(LOOK)
        });
        sleep(from.as_fd(), wait);
        urgency.turn(!wait.is_zero(), Instant::now());
        for _ in 0..BURST {
            match from.recv(&mut frame) {
                Ok(length) => line.enter(&frame[..length], Instant::now()),
                Err(_) => break, // there are no more; an interface that is down has none
            }
        }
        while let Some(frame) = line.leave(Instant::now()) {
            let _ = to.send(&frame); // an interface that is down takes no frames
        }
    }
}

fn sleep(source: BorrowedFd<'_>, wait: Duration) {
    let mut polled = [PollFd::new(source, PollFlags::POLLIN)];
    let _ = ppoll(&mut polled, Some(TimeSpec::from_duration(wait)), None); // a signal only ends it early
}

/// One direction: a queue before the line, and what is on its way.
struct Line {
    link: Link,
    /// When the line has sent everything that entered.
    free: Instant,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    random: u64,
}

impl Line {
    fn new(link: Link, seed: u64) -> Self {
        Self {
            link,
            free: Instant::now(),
            under_way: VecDeque::new(),
            random: seed,
        }
    }

    fn enter(&mut self, frame: &[u8], now: Instant) {
        if self.is_lost() {
            return;
        }
        self.free = self.free.max(now);
        if let Some(rate) = self.link.rate {
            if self.free > now + self.link.queue {
                return;
            }
            self.free += Duration::from_secs_f64(frame.len() as f64 * 8.0 / f64::from(rate));
        }
        self.under_way
            .push_back((self.free + self.link.delay, frame.to_vec()));
    }

    fn is_lost(&mut self) -> bool {
        // Knuth's MMIX generator: the same losses in every run.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % 1000 < self.link.loss.into()
    }

    fn next_due(&self) -> Option<Instant> {
        self.under_way.front().map(|(due, _)| *due)
    }

    fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.under_way
            .pop_front_if(|(due, _)| *due <= now)
            .map(|(_, frame)| frame)
    }
}
