//! Waiting: one thread, several descriptors, one deadline.
//!
//! The data loop sleeps in [`wait`] until a device or a socket has something for it, its next timer is due, or another
//! thread calls [`Waker::wake`] because it has put something into a channel.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

#[cfg(target_os = "linux")]
#[path = "poll/linux.rs"]
mod waker;
#[cfg(not(target_os = "linux"))]
#[path = "poll/unsupported.rs"]
mod waker;

pub use waker::Waker;

/// Sources that one [`wait`] can tell apart.
const MAX_SOURCES: usize = 64;

/// Which sources of a [`wait`] have something to read. An error or hang-up counts: reading tells which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready(u64);

impl Ready {
    /// Whether the source at `index` of the slice given to [`wait`] is ready.
    pub fn contains(self, index: usize) -> bool {
        index < MAX_SOURCES && self.0 & (1 << index) != 0
    }

    /// Whether nothing is ready: the time is up, or a signal came.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Sleeps until one of `sources` (64 at most) can be read or `timeout` has passed; `None` sleeps without end.
///
/// The timeout is rounded up to whole milliseconds, so that a timer is due when the call returns. A signal ends the
/// sleep early with nothing ready.
pub fn wait(sources: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Ready> {
    if sources.len() > MAX_SOURCES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more than 64 descriptors to wait for",
        ));
    }
    let mut polled: Vec<_> = sources
        .iter()
        .map(|source| PollFd::new(*source, PollFlags::POLLIN))
        .collect();
    sleep(&mut polled, timeout)?;
    let ready = polled
        .iter()
        .enumerate()
        .filter(|(_, source)| source.any() == Some(true));
    Ok(Ready(ready.fold(0, |bits, (index, _)| bits | (1 << index))))
}

/// Sleeps until `target` takes more bytes (true) or `timeout` has passed (false).
pub fn wait_writable(target: BorrowedFd<'_>, timeout: Option<Duration>) -> io::Result<bool> {
    let mut polled = [PollFd::new(target, PollFlags::POLLOUT)];
    sleep(&mut polled, timeout)?;
    Ok(polled[0].any() == Some(true))
}

fn sleep(polled: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    match poll(polled, milliseconds(timeout)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn milliseconds(timeout: Option<Duration>) -> PollTimeout {
    let Some(timeout) = timeout else {
        return PollTimeout::NONE;
    };
    let rounded_up = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(rounded_up)
        .ok()
        .and_then(|count| PollTimeout::try_from(count).ok())
        .unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_ready_when_the_time_is_up() {
        let waker = Waker::new().unwrap();
        assert!(
            wait(&[waker.as_fd()], Some(Duration::ZERO))
                .unwrap()
                .is_empty()
        );
        assert!(
            wait(&[], Some(Duration::from_micros(1)))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn the_source_that_is_ready_is_told_from_the_others() {
        let (quiet, (reader, writer)) = (Waker::new().unwrap(), UnixDatagram::pair().unwrap());
        writer.send(b"x").unwrap();
        let ready = wait(&[quiet.as_fd(), reader.as_fd()], None).unwrap();
        assert!(!ready.contains(0));
        assert!(ready.contains(1));
        assert!(!ready.contains(64));
    }

    #[test]
    fn another_thread_wakes_the_loop() {
        let waker = Waker::new().unwrap();
        let elsewhere = waker.clone();
        let thread = thread::spawn(move || elsewhere.wake());
        assert!(wait(&[waker.as_fd()], None).unwrap().contains(0));
        thread.join().unwrap();

        waker.drain();
        assert!(
            wait(&[waker.as_fd()], Some(Duration::ZERO))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn many_wakes_are_one() {
        let waker = Waker::new().unwrap();
        (0..1000).for_each(|_| waker.wake());
        waker.drain();
        waker.drain();
        assert!(
            wait(&[waker.as_fd()], Some(Duration::ZERO))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_full_buffer_is_not_writable() {
        let (reader, writer) = UnixDatagram::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        while writer.send(&[0; 1024]).is_ok() {}
        assert!(!wait_writable(writer.as_fd(), Some(Duration::ZERO)).unwrap());
        reader.set_nonblocking(true).unwrap();
        while reader.recv(&mut [0; 1024]).is_ok() {}
        assert!(wait_writable(writer.as_fd(), None).unwrap());
    }

    #[test]
    fn a_timeout_is_never_cut_short() {
        assert_eq!(
            milliseconds(Some(Duration::from_nanos(1))).as_millis(),
            Some(1)
        );
        assert_eq!(
            milliseconds(Some(Duration::from_micros(1001))).as_millis(),
            Some(2)
        );
        assert_eq!(
            milliseconds(Some(Duration::MAX)).as_millis(),
            PollTimeout::MAX.as_millis()
        );
        assert_eq!(milliseconds(None), PollTimeout::NONE);
    }
}
