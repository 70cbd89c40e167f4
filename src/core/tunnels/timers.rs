//! Whose timers run when.

use std::time::{Duration, Instant};

use super::Tunnels;
use crate::peer::PeerIndex;

/// Between two ticks of one peer that nothing but the clock calls for.
const MIN_GAP: Duration = Duration::from_millis(1);

impl Tunnels {
    /// When [`handle_timeout`](Self::handle_timeout) is wanted next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.schedule.next().into_iter();
        due.chain(self.next_limiter_reset).min()
    }

    /// Lets those tunnels whose timers are due act on the time that passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_limiter_reset.is_some_and(|due| now >= due) {
            self.next_limiter_reset = None;
            self.sealing.keyring.identity().reset_limiter();
        }
        self.sweep_flows(now);
        while let Some(index) = self.schedule.pop(now) {
            self.tick_peer(index, now);
        }
    }

    /// Something happened to a peer whose timers may be set for later than it wants now.
    pub(super) fn rouse(&mut self, index: PeerIndex, now: Instant) {
        let rng = &mut self.rng;
        let peer = self.peers.get_mut(index);
        if let Some(at) = peer.and_then(|peer| peer.next_tick(now, |below| rng.u64(..below))) {
            // What is overdue because packets flow again is due now: nobody has overslept it.
            self.schedule
                .hasten(index, self.schedule.coarse(at.max(now)));
        }
    }

    pub(super) fn tick_peer(&mut self, index: PeerIndex, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let rng = &mut self.rng;
        peer.tick(&self.told, &mut self.sealing, now, || rng.u64(..));
        let has_keys = peer.can_carry();
        if peer.paths_mut().take_change(has_keys) {
            self.moved.push(peer.keys().id);
        }
        let next = peer.next_tick(now, |below| rng.u64(..below));
        // Never at once again: whatever still seems due, time must pass between two ticks.
        let next = next.map(|at| self.schedule.coarse(at.max(now + MIN_GAP)));
        self.schedule.set(index, next);
        if !self.pings.is_empty() {
            self.send_pings(index, now);
        }
        self.look_for_relays(index, now);
    }
}
