//! A bounded queue into the data loop, from anywhere.
//!
//! The data loop is a plain thread that sleeps in poll(2): it cannot await a channel. Whoever puts something
//! into its mailbox therefore also wakes it. The loop drains the mailbox with [`Receiver::try_recv`] until it
//! is empty, then sleeps again.
//!
//! A full mailbox makes its senders wait: so a busy loop slows the network down instead of growing a queue.

use hivevpn_platform::poll::Waker;
use tokio::sync::mpsc;

/// Creates a mailbox for at most `capacity` messages, whose senders wake the loop with `waker`.
pub fn channel<T>(capacity: usize, waker: Waker) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (
        Sender {
            queue: sender,
            waker,
        },
        Receiver { queue: receiver },
    )
}

/// The loop that owned the receiving end is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data loop has ended and reads its mailbox no more")]
pub struct Closed;

/// Why a message was not taken; the message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected<T> {
    /// The loop is behind; nothing is lost by trying later.
    #[error("the mailbox of the data loop is full")]
    Full(T),
    /// The loop has ended.
    #[error("the data loop has ended and reads its mailbox no more")]
    Closed(T),
}

/// The sending end: any number of them, on any thread.
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    waker: Waker,
}

impl<T> Sender<T> {
    /// Puts `message` in, waiting for room.
    pub async fn send(&self, message: T) -> Result<(), Closed> {
        self.reserve().await?.send(message);
        Ok(())
    }

    /// Waits for room for one message. Nothing is lost when this future is dropped.
    pub async fn reserve(&self) -> Result<Permit<'_, T>, Closed> {
        let slot = self.queue.reserve().await.map_err(|_| Closed)?;
        Ok(Permit {
            slot,
            waker: &self.waker,
        })
    }

    /// Puts `message` in if there is room.
    pub fn try_send(&self, message: T) -> Result<(), Rejected<T>> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(message) => Rejected::Full(message),
            mpsc::error::TrySendError::Closed(message) => Rejected::Closed(message),
        })?;
        self.waker.wake();
        Ok(())
    }
}

// Derived, it would ask for `T: Clone`.
impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            waker: self.waker.clone(),
        }
    }
}

/// Room for one message.
pub struct Permit<'a, T> {
    slot: mpsc::Permit<'a, T>,
    waker: &'a Waker,
}

impl<T> Permit<'_, T> {
    /// Puts the message in.
    pub fn send(self, message: T) {
        self.slot.send(message);
        self.waker.wake();
    }
}

/// The data loop's end.
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
}

impl<T> Receiver<T> {
    /// The next message, if there is one.
    pub fn try_recv(&mut self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Whether nothing waits at the moment.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next message, for tests that have a runtime to wait in.
    #[cfg(test)]
    pub(crate) async fn recv(&mut self) -> Option<T> {
        self.queue.recv().await
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::AsFd, time::Duration};

    use hivevpn_platform::poll;

    use super::*;

    fn is_awake(waker: &Waker) -> bool {
        let ready = poll::wait(&[waker.as_fd()], Some(Duration::ZERO)).unwrap();
        !ready.is_empty()
    }

    #[test]
    fn each_way_to_send_wakes_the_loop() {
        let waker = Waker::new().unwrap();
        let (sender, mut receiver) = channel(2, waker.clone());
        assert!(!is_awake(&waker));
        sender.try_send(1).unwrap();
        assert!(is_awake(&waker));
        waker.drain();
        futures::executor::block_on(sender.send(2)).unwrap();
        assert!(is_awake(&waker));
        assert_eq!(
            (receiver.try_recv(), receiver.try_recv()),
            (Some(1), Some(2))
        );
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let waker = Waker::new().unwrap();
        let (sender, mut receiver) = channel(1, waker.clone());
        sender.try_send(1).unwrap();
        waker.drain();
        assert_eq!(sender.try_send(2), Err(Rejected::Full(2)));
        assert!(!is_awake(&waker), "nothing new to read");
        receiver.try_recv().unwrap();
        assert_eq!(sender.try_send(2), Ok(()));
    }

    #[test]
    fn nobody_sends_to_a_loop_that_has_ended() {
        let (sender, receiver) = channel(1, Waker::new().unwrap());
        drop(receiver);
        assert_eq!(sender.try_send(1), Err(Rejected::Closed(1)));
        assert_eq!(futures::executor::block_on(sender.send(1)), Err(Closed));
    }
}
