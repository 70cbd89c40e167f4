//! Whose turn it is to begin a handshake: two ends that both do, again and again, never end one.

use std::time::{Duration, Instant};

/// Who has answered a handshake leaves it to the other to end it for so long. A node that has no keys before the first
/// datagram under them comes would else begin another one with each path that opens, and two that do so replace each
/// other's keys faster than they learn of it.
const COURTESY: Duration = Duration::from_secs(1);
/// Handshakes of one peer that follow each other faster were kept back on the way, while we slept for example: all but the
/// last are past, and to answer each would push the keys in use out of boringtun's eight places. After the first of them
/// we begin one ourselves.
const BACKLOG: Duration = Duration::from_millis(50);

/// The handshakes of one session that its peer began.
#[derive(Debug, Default)]
pub struct Courtesy {
    /// When we last answered one.
    answered: Option<Instant>,
    /// The one that was answered last.
    initiation: Vec<u8>,
    /// When to begin one, because one of the peer's was not answered.
    overtake: Option<Instant>,
}

impl Courtesy {
    /// Whether one that was answered is the peer's to end.
    pub fn is_their_turn(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now < at + COURTESY)
    }

    /// Whether a handshake that the peer begins is to be answered. If not, we soon begin one; but for a copy that came by
    /// another path.
    pub fn may_answer(&mut self, initiation: &[u8], now: Instant) -> bool {
        let is_backlog = self.answered.is_some_and(|at| now < at + BACKLOG);
        let is_copy = self.initiation == initiation;
        if is_backlog && !is_copy {
            self.overtake.get_or_insert(now + BACKLOG);
        }
        !(is_backlog || is_copy)
    }

    /// We answered this one.
    pub fn answered(&mut self, initiation: &[u8], now: Instant) {
        self.answered = Some(now);
        self.initiation.clear();
        self.initiation.extend_from_slice(initiation);
    }

    /// When [`overtakes`](Self::overtakes) is wanted.
    pub fn next_overtake(&self) -> Option<Instant> {
        self.overtake
    }

    /// Whether to begin a handshake now, in place of one that was not answered.
    pub fn overtakes(&mut self, now: Instant) -> bool {
        let is_due = self.overtake.take_if(|at| now >= *at).is_some();
        if is_due {
            self.answered = None;
        }
        is_due
    }
}
