//! The way from the data loop to a carrier's stream: short, and dropping what does not fit.
//!
//! A long queue would not lose fewer datagrams, it would deliver them late: with room for 64 of them, the delay under
//! load stays at a tenth of what a thousand give. Tail drop tells the senders behind the tunnel to slow down.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use super::frames;

/// Bytes that wait for the stream: 64 datagrams of a common size, or one of the longest.
pub const CAPACITY: usize = 96 << 10;

/// Datagrams were not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// The stream is slower than what is sent on it.
    #[error("the carrier's queue is full")]
    Full,
    /// The stream is gone.
    #[error("the carrier has closed")]
    Closed,
    /// A datagram is empty or longer than 65535 bytes.
    #[error("no frame can carry a datagram of this length")]
    Length,
}

/// Sends datagrams to a peer on its carrier, from any thread, without waiting.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// Each piece holds whole frames. Bounded by `waiting`.
    queue: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

impl Carrier {
    /// Queues a run of datagrams of `segment` bytes each (the last may be shorter). Those at its end that find no room
    /// are dropped and counted.
    pub fn try_send(&self, run: &[u8], segment: usize) -> Result<(), Dropped> {
        let datagrams = run.chunks(segment.max(1));
        let count = datagrams.len();
        let (taken, outcome) = self.queue_up(run.len(), datagrams);
        self.dropped.fetch_add(
            (count - taken).max(usize::from(count == 0)) as u64,
            Ordering::Relaxed,
        );
        outcome
    }

    fn queue_up<'a>(
        &self,
        bytes: usize,
        datagrams: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> (usize, Result<(), Dropped>) {
        let mut outcome = if datagrams.len() == 0 {
            Err(Dropped::Length)
        } else {
            Ok(())
        };
        let room = CAPACITY.saturating_sub(self.waiting.load(Ordering::Relaxed));
        let mut piece = Vec::with_capacity(room.min(bytes + datagrams.len() * frames::OVERHEAD));
        let mut taken = 0;
        for datagram in datagrams {
            if !frames::fits(datagram) {
                outcome = Err(Dropped::Length);
                break;
            }
            if piece.len() + frames::OVERHEAD + datagram.len() > room {
                outcome = Err(Dropped::Full);
                break;
            }
            frames::encode(datagram, &mut piece);
            taken += 1;
        }
        if taken == 0 {
            return (0, outcome);
        }
        self.waiting.fetch_add(piece.len(), Ordering::Relaxed);
        match self.queue.send(piece) {
            Ok(()) => (taken, outcome),
            Err(_) => (0, Err(Dropped::Closed)),
        }
    }

    /// How many datagrams were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether both handles lead to the same stream.
    pub fn same(&self, other: &Self) -> bool {
        self.queue.same_channel(&other.queue)
    }
}

/// The end of the queue from which the stream is fed.
pub struct Waiting {
    queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

impl Waiting {
    /// Waits for frames and appends all there are to `stream`. False when nobody can send any more.
    pub async fn take(&mut self, stream: &mut Vec<u8>) -> bool {
        let Some(first) = self.queue.recv().await else {
            return false;
        };
        if stream.is_empty() {
            *stream = first;
        } else {
            stream.extend_from_slice(&first);
        }
        while let Ok(piece) = self.queue.try_recv() {
            stream.extend_from_slice(&piece);
        }
        true
    }

    /// The stream has taken `bytes` of what [`take`](Self::take) gave.
    pub fn written(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A new carrier and the end from which its stream is fed.
pub fn queue() -> (Carrier, Waiting) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let carrier = Carrier {
        queue: sender,
        waiting: waiting.clone(),
        dropped: Arc::default(),
    };
    let end = Waiting {
        queue: receiver,
        waiting,
    };
    (carrier, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 1500;
    const ROOM: usize = CAPACITY / (LENGTH + frames::OVERHEAD);

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (carrier, _waiting) = queue();
        for _ in 0..ROOM {
            carrier.try_send(&[1; LENGTH], LENGTH).unwrap();
        }
        assert_eq!(carrier.try_send(&[1; LENGTH], LENGTH), Err(Dropped::Full));
        assert_eq!(carrier.try_send(&[], 1), Err(Dropped::Length));
        assert_eq!(
            carrier.try_send(&vec![0; 65536], 65536),
            Err(Dropped::Length)
        );
        assert_eq!(carrier.dropped(), 3);
    }

    #[tokio::test]
    async fn the_end_of_a_run_is_dropped_and_there_is_room_again_once_the_stream_took_the_rest() {
        let (carrier, mut waiting) = queue();
        let run = vec![1; (ROOM + 3) * LENGTH];
        assert_eq!(carrier.try_send(&run, LENGTH), Err(Dropped::Full));
        assert_eq!(carrier.dropped(), 3);
        let mut stream = Vec::new();
        assert!(waiting.take(&mut stream).await);
        assert_eq!(stream.len(), ROOM * (LENGTH + frames::OVERHEAD));
        assert_eq!(carrier.try_send(&[1; LENGTH], LENGTH), Err(Dropped::Full));
        waiting.written(stream.len());
        carrier.try_send(&[1; LENGTH], LENGTH).unwrap();
    }

    #[test]
    fn the_longest_datagram_fits_an_empty_queue() {
        let (carrier, _waiting) = queue();
        carrier.try_send(&vec![1; 65535], 65535).unwrap();
    }

    #[test]
    fn a_closed_carrier_says_so() {
        let (carrier, waiting) = queue();
        drop(waiting);
        assert_eq!(carrier.try_send(&[1], 1), Err(Dropped::Closed));
        assert_eq!(carrier.dropped(), 1);
    }
}
