//! A slow and lossy link between two network namespaces, for kernels that have no `netem`.
//!
//! Each end is a TUN device that exists already. Every packet read at one end is lost with a fixed probability;
//! if not, it joins the queue in front of the bottleneck, or is dropped when it would wait there for longer than
//! the queue is long; it passes the bottleneck at the link's rate, and is written to the other end one delay
//! later. Both directions are alike and independent. Ends when it is killed.
//!
//! Nothing but the standard library, so that `rustc -O` alone compiles it.
#![deny(missing_docs)]

use std::{
    ffi::{c_char, c_int, c_short, c_ulong},
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
    process::exit,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const USAGE: &str = "usage: linkem --delay-ms N --loss-percent N --rate-mbit N --queue-ms N \
                     NAMESPACE INTERFACE NAMESPACE INTERFACE";

unsafe extern "C" {
    fn setns(fd: c_int, kind: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

const CLONE_NEWNET: c_int = 0x4000_0000;
const TUNSETIFF: c_ulong = 0x4004_54ca;
const IFF_TUN: c_short = 0x0001;
const IFF_NO_PI: c_short = 0x1000;

/// `struct ifreq`, as far as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [c_char; 16],
    flags: c_short,
    padding: [u8; 22],
}

/// What one direction of the link does to packets.
#[derive(Clone, Copy)]
struct Link {
    /// From the bottleneck to the other end.
    delay: Duration,
    /// Share of packets lost, from 0 to 1.
    loss: f64,
    /// Of the bottleneck, in bytes per second.
    rate: f64,
    /// The longest a packet may wait for the bottleneck.
    queue: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((link, [namespace_a, interface_a, namespace_b, interface_b])) = parse(&arguments)
    else {
        eprintln!("{USAGE}");
        exit(2);
    };
    let open = |namespace: &str, interface: &str| {
        let tun = open_tun(namespace, interface);
        tun.unwrap_or_else(|error| fail(&format!("{interface} in {namespace}"), &error))
    };
    let a = open(namespace_a, interface_a);
    let b = open(namespace_b, interface_b);
    let duplicate = |tun: &File| tun.try_clone().unwrap_or_else(|error| fail("TUN", &error));
    let (a_again, b_again) = (duplicate(&a), duplicate(&b));

    thread::spawn(move || carry(a, b, link, 1));
    carry(b_again, a_again, link, 2);
}

fn fail(what: &str, error: &io::Error) -> ! {
    eprintln!("linkem: {what}: {error}");
    exit(1)
}

/// The link, and both ends' namespace and interface.
fn parse(arguments: &[String]) -> Option<(Link, [&str; 4])> {
    let (options, ends) = arguments.split_at_checked(8)?;
    let number = |name: &str| -> Option<f64> {
        let [_, value] = options
            .as_chunks::<2>()
            .0
            .iter()
            .find(|[option, _]| option == name)?;
        value.parse().ok()
    };
    let milliseconds = |name: &str| Duration::try_from_secs_f64(number(name)? / 1e3).ok();
    let link = Link {
        delay: milliseconds("--delay-ms")?,
        loss: number("--loss-percent")? / 100.0,
        rate: number("--rate-mbit").filter(|rate| *rate > 0.0)? * 1e6 / 8.0,
        queue: milliseconds("--queue-ms")?,
    };
    let [namespace_a, interface_a, namespace_b, interface_b] = ends else {
        return None;
    };
    Some((link, [namespace_a, interface_a, namespace_b, interface_b]))
}

/// Attaches to a TUN device in a namespace known to `ip netns`. Leaves this thread in that namespace.
fn open_tun(namespace: &str, interface: &str) -> io::Result<File> {
    let checked = |result: c_int| {
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    };

    let namespace = File::open(format!("/run/netns/{namespace}"))?;
    // SAFETY: takes an open descriptor and a constant.
    checked(unsafe { setns(namespace.as_raw_fd(), CLONE_NEWNET) })?;

    let tun = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        padding: [0; 22],
    };
    if interface.len() >= request.name.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name is too long for an interface",
        ));
    }
    for (to, from) in request.name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: the request is a whole `struct ifreq`, and outlives the call.
    checked(unsafe { ioctl(tun.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    Ok(tun)
}

/// One direction, for ever: this thread reads, loses and queues, another one waits and writes.
fn carry(mut from: File, mut to: File, link: Link, seed: u64) {
    let (under_way, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        for (due, packet) in arriving {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // An interface that is down takes nothing, as a cable would not.
            let _ = to.write(&packet);
        }
    });

    let mut buffer = vec![0; 65_536];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
    let mut bottleneck_free = Instant::now();
    loop {
        let length = from
            .read(&mut buffer)
            .unwrap_or_else(|error| fail("cannot read", &error));
        let now = Instant::now();
        let begin = bottleneck_free.max(now);
        if dice.roll() < link.loss || begin - now > link.queue {
            continue;
        }
        bottleneck_free = begin + Duration::from_secs_f64(length as f64 / link.rate);
        let packet = buffer[..length].to_vec();
        under_way
            .send((bottleneck_free + link.delay, packet))
            .expect("the writing thread ends with the process");
    }
}

/// xorshift64: the same losses in every run.
struct Dice(u64);

impl Dice {
    /// Uniform in [0, 1).
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
