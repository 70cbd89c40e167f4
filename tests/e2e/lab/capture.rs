//! Looking at the cables: every packet a host sees, searched for what must not be there.
//!
//! A packet socket of our own and not tcpdump, which insists on becoming another user and so does not
//! start inside a user namespace.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::Host;

/// A running search.
pub struct Capture {
    enough: Arc<AtomicBool>,
    search: JoinHandle<Seen>,
}

/// What a [`Capture`] saw.
#[derive(Clone, Copy, Default, Debug)]
pub struct Seen {
    /// Packets on all interfaces, each direction for itself.
    pub packets: u64,
    /// Those that contain what was searched for.
    pub matching: u64,
}

impl Capture {
    pub(super) fn start(host: &Host, needle: &'static [u8]) -> Self {
        let socket = host.here(|| {
            let everything = SockProtocol::EthAll;
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::empty(),
                everything,
            )
            .expect("we are root in this namespace");
            // More where the kernel lets us: a packet that is lost cannot be searched.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20));
            let patience = TimeVal::milliseconds(100);
            setsockopt(&socket, sockopt::ReceiveTimeout, &patience)
                .expect("the timeout is not zero");
            socket
        });
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        Self {
            enough,
            search: std::thread::spawn(move || search(&socket, needle, &stop)),
        }
    }

    /// Ends the search once everything that was seen before is searched.
    pub fn stop(self) -> Seen {
        self.enough.store(true, Ordering::Relaxed);
        self.search
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn search(socket: &OwnedFd, needle: &[u8], enough: &AtomicBool) -> Seen {
    let (mut seen, mut packet) = (Seen::default(), vec![0; 1 << 17]);
    loop {
        match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Ok(n) => {
                seen.packets += 1;
                seen.matching += u64::from(
                    packet[..n]
                        .windows(needle.len())
                        .any(|window| window == needle),
                );
            }
            Err(Errno::EAGAIN) if enough.load(Ordering::Relaxed) => return seen,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(error) => panic!("packet socket: {error}"),
        }
    }
}
