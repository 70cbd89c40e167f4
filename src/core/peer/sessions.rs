//! The sessions with one peer: one to greet in, one that carries packets, and those that come and go.
//!
//! A *greeting* has a pre-shared key that follows from the network's secret. Only [signals](crate::signal) travel in it,
//! above all those by which the two agree on [the key of their own](crate::key_exchange) session; a packet in it is
//! dropped. It begins whenever one of the two has no session with the other, and ends soon after there is one.
//!
//! The session that *carries* packets stays in place when its successor is *coming*: only once that one stands, packets
//! go by it, and the old one, *retired*, takes in what is still on the way. So a change of keys loses nothing.
//!
//! Each has a slot, and the slot is part of the session index that datagrams name: whoever receives one needs to look up
//! nothing but the peer.
//!
//! A static peer that speaks plain WireGuard needs no greeting: its session, with the key from its configuration, would
//! carry packets from the start.

use std::time::{Duration, Instant};

use crate::{
    key_exchange::{Exchange, Gathering},
    peer::PeerIndex,
    session::{Session, Timers},
};

/// A greeting that leads to nothing ends after this time. Longer than WireGuard tries to begin a session (90 s), shorter
/// than it takes to renew keys (120 s).
const GREETING: Duration = Duration::from_secs(100);
/// How long what is superseded takes in what is still on its way.
const LINGER: Duration = Duration::from_secs(10);
/// A retired session whose peer was not heard in the new one: then its keys are too old to be used (whitepaper §6.1).
const REJECT_AFTER: Duration = Duration::from_secs(180);
/// A session that was agreed on stands by then, or never will.
const COMING: Duration = Duration::from_secs(30);
/// A pair agrees on another key after this time.
const RENEW_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// If it could not, it tries again after this one.
const RENEW_RETRY: Duration = Duration::from_secs(600);

/// The place of a session among those with the same peer: the two lowest bits of the 24 that name a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u8);

impl Slot {
    /// The place of the greeting.
    pub const GREETING: Self = Self(0);
    const OTHERS: [Self; 3] = [Self(1), Self(2), Self(3)];

    /// The slot that a session index (24 bits) names.
    pub fn of(session: u32) -> Self {
        Self((session & 3) as u8)
    }

    /// Its two bits.
    pub fn bits(self) -> u32 {
        self.0.into()
    }

    fn place(self) -> usize {
        (self.0 & 3).into()
    }
}

/// A session with what only one that was agreed on has.
struct Entry {
    session: Session,
    /// The peer's index (24 bits) of it; none in a greeting.
    theirs: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Coming {
    slot: Slot,
    /// We begin it.
    is_ours: bool,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Retired {
    slot: Slot,
    until: Instant,
    /// The peer was heard in the successor.
    is_over: bool,
}

/// The sessions with one peer.
pub struct Sessions {
    peer: PeerIndex,
    by_slot: [Option<Box<Entry>>; 4],
    carrying: Option<Slot>,
    coming: Option<Coming>,
    retired: Option<Retired>,
    greeting_until: Option<Instant>,
    greeting_had_keys: bool,
    /// When the pair last agreed on a key.
    agreed: Option<Instant>,
    renew: Option<Instant>,
    /// Another key is wanted though there is a session: it is old, or does not answer.
    wants_another: bool,
    /// What is said about keys at the moment.
    pub exchange: Option<Box<Exchange>>,
    /// Parts of the peer's offer, or of its acceptance of ours.
    pub gathering: Option<Gathering>,
}

impl Sessions {
    /// None yet.
    pub fn new(peer: PeerIndex) -> Self {
        Self {
            peer,
            by_slot: [const { None }; 4],
            carrying: None,
            coming: None,
            retired: None,
            greeting_until: None,
            greeting_had_keys: false,
            agreed: None,
            renew: None,
            wants_another: false,
            exchange: None,
            gathering: None,
        }
    }

    // ---- which is which ----------------------------------------------------------------------------------

    /// The session in this slot.
    pub fn get(&self, slot: Slot) -> Option<&Session> {
        let entry = self.by_slot[slot.place()].as_ref()?;
        Some(&entry.session)
    }

    /// The session in this slot.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Session> {
        let entry = self.by_slot[slot.place()].as_mut()?;
        Some(&mut entry.session)
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_slot.iter().flatten().map(|entry| &entry.session)
    }

    /// All there are.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.by_slot
            .iter_mut()
            .flatten()
            .map(|entry| &mut entry.session)
    }

    /// The one that carries packets.
    pub fn carrying(&self) -> Option<&Session> {
        self.get(self.carrying?)
    }

    /// The one that carries packets.
    pub fn carrying_mut(&mut self) -> Option<&mut Session> {
        self.get_mut(self.carrying?)
    }

    /// The greeting.
    pub fn greeting(&self) -> Option<&Session> {
        self.get(Slot::GREETING)
    }

    /// The one that signals travel in: whose keys are younger. If a peer was restarted, that is the greeting.
    pub fn for_signals(&mut self) -> Option<&mut Session> {
        let age = |session: Option<&Session>| {
            let session = session.filter(|session| session.can_seal());
            session.and_then(Session::since_handshake)
        };
        let greeting = age(self.greeting());
        match (age(self.carrying()), greeting) {
            (Some(carrying), Some(greeting)) if greeting < carrying => self.get_mut(Slot::GREETING),
            (Some(_), _) => self.carrying_mut(),
            (None, Some(_)) => self.get_mut(Slot::GREETING),
            (None, None) => None,
        }
    }

    /// Whether packets can be sent.
    pub fn can_carry(&self) -> bool {
        self.carrying().is_some_and(Session::can_seal)
    }

    /// Whether signals can be sent.
    pub fn can_signal(&self) -> bool {
        self.can_carry() || self.greeting().is_some_and(Session::can_seal)
    }

    /// The index (24 bits) of the session in this slot in the datagrams that we receive.
    pub fn index_of(&self, slot: Slot) -> u32 {
        self.peer.session(slot)
    }

    /// Which session a handshake is for that the peer begins and calls `theirs`. None that we have, if we lost it.
    pub fn slot_of(&self, theirs: u32) -> Option<Slot> {
        let retired = self.retired.map(|retired| retired.slot);
        let coming = self.coming.map(|coming| coming.slot);
        // The newest first: a peer that was restarted may use an index again.
        let slots = [coming, self.carrying, retired].into_iter().flatten();
        let mut known = slots.filter(|slot| {
            let entry = self.by_slot[slot.place()].as_ref();
            entry.is_some_and(|entry| entry.theirs == Some(theirs))
        });
        let is_greeting = Slot::of(theirs) == Slot::GREETING;
        known.next().or(is_greeting.then_some(Slot::GREETING))
    }

    // ---- the greeting ------------------------------------------------------------------------------------

    /// Makes a greeting, if there is none, and keeps it for a moment.
    pub fn make_greeting(&mut self, make: impl FnOnce(u32) -> Session, now: Instant) {
        let index = self.index_of(Slot::GREETING);
        let place = &mut self.by_slot[Slot::GREETING.place()];
        if place.is_none() {
            let session = make(index);
            let theirs = None;
            *place = Some(Box::new(Entry { session, theirs }));
            self.greeting_until = Some(now + LINGER);
            self.greeting_had_keys = false;
        }
    }

    /// We begin a greeting: WireGuard tries to for long.
    pub fn greet(&mut self, now: Instant) {
        let is_new = self
            .greeting()
            .is_some_and(|greeting| greeting.timers() == Timers::Stopped);
        if is_new {
            self.greeting_until = Some(now + GREETING);
        }
    }

    /// We answered a greeting: the peer may need another key, whatever we have. Whether it has sent it shows soon.
    pub fn greeted(&mut self, now: Instant) {
        let soon = now + LINGER;
        self.greeting_until = self.greeting_until.max(Some(soon));
    }

    /// Another key is wanted though there is a session.
    pub fn want_another(&mut self) {
        self.wants_another = true;
    }

    /// Whether the session is so old that another key is wanted. Who offers is the first to think so.
    pub fn is_to_be_renewed(&mut self, now: Instant) -> bool {
        let is_due = self.renew.take_if(|at| now >= *at).is_some();
        if is_due {
            self.renew = Some(now + RENEW_RETRY);
        }
        is_due
    }

    /// Whether the pair has to agree on a key, and can.
    pub fn wants_exchange(&self) -> bool {
        let can = self.greeting().is_some_and(Session::can_seal);
        let wants = self.carrying.is_none() || self.wants_another;
        can && wants && !self.is_exchanging()
    }

    /// Whether the pair agreed on a key less than this ago.
    pub fn has_agreed_within(&self, span: Duration, now: Instant) -> bool {
        self.agreed.is_some_and(|at| now < at + span)
    }

    // ---- from coming to retired --------------------------------------------------------------------------

    /// A slot for a session to come.
    pub fn free_slot(&self) -> Slot {
        let taken = [self.carrying, self.retired.map(|retired| retired.slot)];
        let coming = self.coming.map(|coming| coming.slot);
        let mut free = Slot::OTHERS
            .into_iter()
            .filter(|slot| !taken.contains(&Some(*slot)));
        let first = free.next().unwrap_or(Slot::OTHERS[0]);
        if Some(first) == coming {
            free.next().unwrap_or(first)
        } else {
            first
        }
    }

    /// A session that was agreed on; the peer's index of it is `theirs`. One that was to come before is not to come.
    pub fn await_session(
        &mut self,
        slot: Slot,
        session: Session,
        theirs: u32,
        is_ours: bool,
        now: Instant,
    ) {
        if let Some(superseded) = self.coming.take() {
            self.by_slot[superseded.slot.place()] = None;
        }
        self.by_slot[slot.place()] = Some(Box::new(Entry {
            session,
            theirs: Some(theirs),
        }));
        self.agreed = Some(now);
        self.coming = Some(Coming {
            slot,
            is_ours,
            until: now + COMING,
        });
    }

    /// The session that is to come, if it is ours to begin.
    pub fn coming_mut(&mut self) -> Option<&mut Session> {
        let coming = self.coming.filter(|coming| coming.is_ours)?;
        self.get_mut(coming.slot)
    }

    /// Whether the pair is about to agree on a key, or did and its session does not stand yet.
    pub fn is_exchanging(&self) -> bool {
        self.exchange.is_some() || self.coming.is_some()
    }

    /// Packets go by the session that was to come, if it stands. The peer is the one to `offer`.
    pub fn promote(&mut self, is_offering: bool, now: Instant) -> bool {
        let stands = |coming: &Coming| self.get(coming.slot).is_some_and(Session::can_seal);
        let Some(coming) = self.coming.filter(stands) else {
            return false;
        };
        self.coming = None;
        if let Some(retired) = self.retired.take() {
            self.by_slot[retired.slot.place()] = None;
        }
        // Who did not begin the session has keys only when the other was heard in it.
        let is_over = !coming.is_ours;
        let until = now + if is_over { LINGER } else { REJECT_AFTER };
        self.retired = self.carrying.map(|slot| Retired {
            slot,
            until,
            is_over,
        });
        self.carrying = Some(coming.slot);
        self.exchange = None;
        self.gathering = None;
        self.wants_another = false;
        self.greeting_until = self.greeting_until.map(|until| until.min(now + LINGER));
        // The other side would do so later, if this one does not.
        let patience = if is_offering {
            Duration::ZERO
        } else {
            RENEW_RETRY
        };
        self.renew = Some(now + RENEW_AFTER + patience);
        true
    }

    /// The peer was heard in this session.
    #[inline]
    pub fn heard(&mut self, slot: Slot, now: Instant) {
        if let Some(retired) = &mut self.retired
            && self.carrying == Some(slot)
            && !retired.is_over
        {
            retired.is_over = true;
            retired.until = now + LINGER;
        }
    }

    /// Forgets what has come to its end.
    pub fn let_go(&mut self, now: Instant) {
        if !self.greeting_had_keys && self.greeting().is_some_and(Session::can_seal) {
            self.greeting_had_keys = true;
            self.greeting_until = Some(now + GREETING);
        }
        let is_past = self.greeting_until.is_some_and(|until| now >= until);
        if is_past || self.greeting().is_some_and(Session::is_over) {
            self.greeting_until = None;
            self.by_slot[Slot::GREETING.place()] = None;
            self.exchange = None;
            self.gathering = None;
            self.wants_another = false;
        }
        if self.carrying().is_some_and(Session::is_over)
            && let Some(slot) = self.carrying.take()
        {
            self.by_slot[slot.place()] = None;
        }
        if let Some(retired) = self.retired.take_if(|retired| now >= retired.until) {
            self.by_slot[retired.slot.place()] = None;
        }
        if let Some(coming) = self.coming.take_if(|coming| now >= coming.until) {
            self.by_slot[coming.slot.place()] = None;
            self.exchange = None;
        }
    }

    /// When [`let_go`](Self::let_go) has something to do next, or something is to be said again.
    pub fn next_due(&self) -> Option<Instant> {
        let retired = self.retired.map(|retired| retired.until);
        let coming = self.coming.map(|coming| coming.until);
        let exchange = self.exchange.as_ref().map(|exchange| exchange.due());
        let all = [self.greeting_until, retired, coming, exchange];
        all.into_iter().flatten().min()
    }
}
