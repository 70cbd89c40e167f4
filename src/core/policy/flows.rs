//! The flows of one peer: conversations that began rightly, so that their packets may pass both ways.
//!
//! Each peer has a table of its own. When it is full, one of its own flows makes room, the one that ends soonest among
//! the next few in turn; so no peer can crowd out another's. Nothing runs by a timer: a flow that has ended is found out
//! when it is asked for, or when its place is wanted.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::content::{Conversation, ICMPV4, ICMPV6, Step, TCP};

/// One peer's flows. More than a busy proxy keeps open to one node; about a megabyte.
pub const MAX_FLOWS_PER_PEER: usize = 8192;
/// The flows of all peers together, 30 MB; beyond, only peers that hold few may add one.
pub const MAX_FLOWS: usize = 262_144;
/// What a peer may hold even when the others have taken all there is: enough to work.
pub const RESERVED_FLOWS: usize = 64;
/// How many are looked at to find one that makes room.
const CANDIDATES: usize = 8;

/// How long a flow lives without a packet. What breaks if shorter: see each.
mod lifetime {
    use std::time::Duration;

    /// A connection that both sides have spoken on. RFC 5382 REQ-5: keepalives may come every two hours.
    pub const TCP_ESTABLISHED: Duration = Duration::from_secs(2 * 60 * 60 + 4 * 60);
    /// One that begins or has ended on both sides. RFC 5382 REQ-5: four minutes, twice the longest life of a segment.
    pub const TCP_TRANSITORY: Duration = Duration::from_secs(4 * 60);
    /// One that was reset: what is still under way may arrive.
    pub const TCP_RESET: Duration = Duration::from_secs(10);
    /// RFC 4787 REQ-5 recommends five minutes; QUIC and DNS need far less.
    pub const DATAGRAMS: Duration = Duration::from_secs(5 * 60);
    /// RFC 5508 REQ-1: sixty seconds at least.
    pub const ECHO: Duration = Duration::from_secs(60);
}

/// Who began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The peer did: our own policy decides.
    Peer,
    /// We did.
    Us,
}

/// Names a flow, the same for both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    theirs: IpAddr,
    ours: IpAddr,
    their_port: u16,
    our_port: u16,
    protocol: u8,
}

impl FlowKey {
    /// The flow of a packet that `sender` sent.
    pub fn of(conversation: &Conversation, sender: Origin) -> Self {
        let Conversation {
            protocol,
            source,
            destination,
            source_port,
            destination_port,
        } = *conversation;
        let source = (source, source_port);
        let destination = (destination, destination_port);
        let ((theirs, their_port), (ours, our_port)) = match sender {
            Origin::Peer => (source, destination),
            Origin::Us => (destination, source),
        };
        Self {
            theirs,
            ours,
            their_port,
            our_port,
            protocol,
        }
    }
}

/// What is remembered of a flow.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Who began.
    pub origin: Origin,
    /// The state of the policy for which [`allowed`](Self::allowed) was found out.
    pub epoch: u32,
    /// Whether it may go on. One that may not is remembered too, so that it is not mistaken for something new.
    pub allowed: bool,
    protocol: u8,
    /// Who has spoken, and who has finished: [`bit`]s.
    spoke: u8,
    finished: u8,
    is_reset: bool,
    last: Instant,
}

const BOTH: u8 = 3;

fn bit(sender: Origin) -> u8 {
    match sender {
        Origin::Peer => 1,
        Origin::Us => 2,
    }
}

impl Flow {
    /// One that `origin` has just begun, or is taken to have begun.
    pub fn new(key: &FlowKey, origin: Origin, epoch: u32, now: Instant) -> Self {
        Self {
            origin,
            epoch,
            allowed: true,
            protocol: key.protocol,
            spoke: 0,
            finished: 0,
            is_reset: false,
            last: now,
        }
    }

    /// A packet of it, sent by `sender`, passes.
    pub fn pass(&mut self, sender: Origin, step: Step, now: Instant) {
        self.last = now;
        self.spoke |= bit(sender);
        match step {
            Step::Reset => self.is_reset = true,
            Step::Finish => self.finished |= bit(sender),
            // A reset that was none: the connection goes on.
            Step::Continue | Step::Either => self.is_reset = false,
            // The same ports once more.
            Step::Begin => {
                self.is_reset = false;
                self.finished = 0;
                self.spoke = bit(sender);
            }
        }
    }

    /// A packet of it does not pass. As long as somebody tries, it is remembered why.
    pub fn refuse(&mut self, now: Instant) {
        self.last = now;
    }

    fn is_established(&self) -> bool {
        let is_over = self.is_reset || self.finished == BOTH || !self.allowed;
        self.protocol == TCP && self.spoke == BOTH && !is_over
    }

    fn lifetime(&self, is_ipv4: bool) -> Duration {
        match (self.protocol, is_ipv4) {
            (TCP, _) if self.is_established() => lifetime::TCP_ESTABLISHED,
            (TCP, _) if self.is_reset && self.allowed => lifetime::TCP_RESET,
            (TCP, _) => lifetime::TCP_TRANSITORY,
            (ICMPV4, true) | (ICMPV6, false) => lifetime::ECHO,
            (_, _) => lifetime::DATAGRAMS,
        }
    }
}

/// The flows of one peer.
#[derive(Debug, Default)]
pub struct Flows {
    places: HashMap<FlowKey, usize>,
    slots: Vec<(FlowKey, Flow)>,
    /// Where the next search for a place begins.
    hand: usize,
    /// Before this moment not every packet was seen, so no flow has been idle for longer than since then.
    watched_since: Option<Instant>,
}

impl Flows {
    /// How many there are, those included that have ended and were not found out yet.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// From now on every packet is seen (`Some`), or only those by which a TCP connection lives.
    pub fn watch(&mut self, since: Option<Instant>) {
        self.watched_since = since;
    }

    /// The flow of this key, unless it has ended.
    pub fn get_mut(&mut self, key: &FlowKey, now: Instant) -> Option<&mut Flow> {
        let at = *self.places.get(key)?;
        self.remaining(at, now)?;
        Some(&mut self.slots[at].1)
    }

    /// Adds a flow, or replaces the one of this key. Without `may_grow` one of the others makes room. Returns where it is,
    /// or nothing if there is no room at all.
    pub fn insert(
        &mut self,
        key: FlowKey,
        flow: Flow,
        may_grow: bool,
        now: Instant,
    ) -> Option<&mut Flow> {
        let at = match self.places.get(&key) {
            Some(&at) => at,
            None => {
                self.drop_ended_at_hand(now);
                let at = if may_grow && self.slots.len() < MAX_FLOWS_PER_PEER {
                    self.slots.push((key, flow));
                    self.slots.len() - 1
                } else {
                    let at = self.soonest_to_end(now)?;
                    self.places.remove(&self.slots[at].0);
                    at
                };
                self.places.insert(key, at);
                at
            }
        };
        self.slots[at] = (key, flow);
        Some(&mut self.slots[at].1)
    }

    /// Lets go of all that have ended.
    pub fn drop_ended(&mut self, now: Instant) {
        for at in (0..self.slots.len()).rev() {
            if self.remaining(at, now).is_none() {
                self.remove(at);
            }
        }
        if self.slots.is_empty() {
            // Memory that was wanted once need not be kept for ever.
            (self.slots, self.places) = (Vec::new(), HashMap::new());
        }
    }

    /// Each flow that comes looks at two that are there: so the table shrinks about as fast as its flows end.
    fn drop_ended_at_hand(&mut self, now: Instant) {
        for _ in 0..2 {
            if self.slots.is_empty() {
                return;
            }
            self.hand %= self.slots.len();
            if self.remaining(self.hand, now).is_none() {
                self.remove(self.hand);
            } else {
                self.hand += 1;
            }
        }
    }

    fn remove(&mut self, at: usize) {
        let (key, _) = self.slots.swap_remove(at);
        self.places.remove(&key);
        if let Some((moved, _)) = self.slots.get(at) {
            self.places.insert(*moved, at);
        }
    }

    fn soonest_to_end(&mut self, now: Instant) -> Option<usize> {
        let count = self.slots.len();
        let next = (0..count.min(CANDIDATES)).map(|step| (self.hand + step) % count);
        let soonest = next.min_by_key(|&at| self.remaining(at, now))?;
        self.hand = (self.hand + CANDIDATES) % count;
        Some(soonest)
    }

    /// How much longer the flow lives if nothing comes; `None` when it has ended.
    fn remaining(&self, at: usize, now: Instant) -> Option<Duration> {
        let (key, flow) = &self.slots[at];
        let lifetime = flow.lifetime(key.theirs.is_ipv4());
        let last = match self.watched_since {
            Some(since) => flow.last.max(since),
            None if flow.is_established() => now,
            None => flow.last,
        };
        lifetime
            .checked_sub(now.saturating_duration_since(last))
            .filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::epoch;

    fn key(number: u16, protocol: u8) -> FlowKey {
        let conversation = Conversation {
            protocol,
            source: [10, 77, 0, 1].into(),
            destination: [10, 77, 0, 2].into(),
            source_port: number,
            destination_port: 22,
        };
        FlowKey::of(&conversation, Origin::Peer)
    }

    proptest! {
        /// Whatever comes, the table and its index agree, and what has ended is never found.
        #[test]
        fn the_table_agrees_with_a_list(
            steps in proptest::collection::vec((0..40_u16, any::<bool>(), 0..200_u64, any::<bool>()), 1..300),
        ) {
            let mut flows = Flows::default();
            flows.watch(Some(epoch()));
            let mut list: Vec<(FlowKey, Instant)> = Vec::new();
            let mut now = epoch();
            for (number, is_echo, pause, adds) in steps {
                now += Duration::from_secs(pause);
                let (key, lifetime) = match is_echo {
                    true => (key(number, ICMPV4), lifetime::ECHO),
                    false => (key(number, 17), lifetime::DATAGRAMS),
                };
                let at = list.iter().position(|(listed, _)| *listed == key);
                let lives = at.is_some_and(|at| now.duration_since(list[at].1) < lifetime);
                prop_assert_eq!(flows.get_mut(&key, now).is_some(), lives);
                if adds {
                    let mut flow = Flow::new(&key, Origin::Peer, 0, now);
                    flow.pass(Origin::Peer, Step::Either, now);
                    prop_assert!(flows.insert(key, flow, true, now).is_some());
                    list.retain(|(listed, _)| *listed != key);
                    list.push((key, now));
                }
                prop_assert_eq!(flows.places.len(), flows.slots.len());
                for (at, (key, _)) in flows.slots.iter().enumerate() {
                    prop_assert_eq!(flows.places.get(key), Some(&at));
                }
            }
            flows.drop_ended(now + Duration::from_secs(1000));
            prop_assert!(flows.is_empty());
        }
    }

    #[test]
    fn what_began_and_never_went_on_makes_room_before_what_is_established() {
        let now = epoch();
        let mut flows = Flows::default();
        flows.watch(Some(now));
        for number in 0..8 {
            let key = key(number, TCP);
            let flow = Flow::new(&key, Origin::Peer, 0, now);
            let flow = flows.insert(key, flow, true, now).unwrap();
            flow.pass(Origin::Peer, Step::Begin, now);
            if number != 5 {
                flow.pass(Origin::Us, Step::Continue, now);
            }
        }
        let new = key(9, TCP);
        flows.insert(new, Flow::new(&new, Origin::Peer, 0, now), false, now);
        assert_eq!(flows.len(), 8);
        assert!(flows.get_mut(&key(5, TCP), now).is_none());
        assert!(flows.get_mut(&new, now).is_some());
    }
}
