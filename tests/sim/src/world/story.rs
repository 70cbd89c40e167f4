//! What is told of a world: its trace, and what did not hold.

use std::fmt;

use super::World;
use crate::{invariants::Broken, trace::Trace, underlay::Loss};

impl World {
    pub(crate) fn note(&mut self, line: fmt::Arguments<'_>) {
        self.trace.note(self.clock.now(), line);
    }

    /// Begins a chapter of the story: what is broken from here on is told with its title.
    pub fn begin_chapter(&mut self, title: String) {
        self.note(format_args!("{title}"));
        self.chapter = title;
    }

    /// The story so far, as one number.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Errors that the core logged since the last call.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.take()
    }

    /// Nothing happens any more: what would happen is of no interest, and there is too much of it.
    pub(crate) fn stop(&mut self) {
        self.has_stopped = true;
    }

    /// Whether the world came to an end before its time.
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    /// Notes that an invariant is broken, unless the world has stopped: then nothing holds.
    pub fn report(&mut self, invariant: &'static str, what: String) {
        if self.has_stopped {
            return;
        }
        let at = self.now();
        self.note(format_args!("BROKEN {invariant}: {what}"));
        self.broken.push(Broken {
            invariant,
            at,
            what,
            after: self.chapter.clone(),
        });
    }

    /// Every invariant that was broken so far.
    pub fn broken(&self) -> &[Broken] {
        &self.broken
    }

    /// Counts how many datagrams were lost for a reason.
    pub fn lost_for(&self, loss: Loss) -> u64 {
        self.underlay.tally().lost.get(&loss).copied().unwrap_or(0)
    }
}
