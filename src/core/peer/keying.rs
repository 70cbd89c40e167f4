//! How handshakes with a peer begin, and how the two agree on the key of their session.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{MAX_CALLS, Peer, Sealing, sessions::Slot};
use crate::{
    key_exchange::{self, Exchange, Gathering, Part, Stage},
    session::{MIN_BUFFER, Opened, Session, Timers},
    signal::Signal,
    tunnel_key::{self, ACCEPTANCE, Agreement, OFFER, Psk, SUITE},
};

/// A session whose handshake is not answered for so long may be one that only we still have: the peer is greeted as well.
const UNANSWERED: Duration = Duration::from_secs(3);
/// A pair does not agree on keys more often than this, whatever the peer says: each time costs us half a millisecond.
const INTERVAL: Duration = Duration::from_secs(1);

impl Peer {
    // ---- handshakes --------------------------------------------------------------------------------------

    /// Starts a handshake by every path, unless one is under way: whichever works carries the answer. Without a session
    /// the peer is greeted.
    pub fn initiate(&mut self, sealing: &mut Sealing, now: Instant) {
        if self.session().is_some() {
            let session = self.sessions.carrying_mut();
            begin(session, &self.paths, false, sealing, now);
        } else if !self.can_signal() {
            self.greet(false, sealing, now);
        }
    }

    /// Starts a handshake by every path, in place of one that is under way by fewer.
    pub(super) fn initiate_anew(&mut self, sealing: &mut Sealing, now: Instant) {
        if self.session().is_some() {
            let session = self.sessions.carrying_mut();
            begin(session, &self.paths, true, sealing, now);
        } else {
            self.greet(true, sealing, now);
        }
    }

    /// Begins a greeting by every path.
    pub fn greet(&mut self, anew: bool, sealing: &mut Sealing, now: Instant) {
        if self.paths.current().is_some() {
            self.make_greeting(sealing, now);
            self.sessions.greet(now);
            let session = self.sessions.get_mut(Slot::GREETING);
            begin(session, &self.paths, anew, sealing, now);
        }
    }

    /// Whether a handshake that the peer begins is to be answered: the greeting always has a place, and whoever greets may
    /// need keys.
    pub fn may_answer(
        &mut self,
        slot: Slot,
        initiation: &[u8],
        sealing: &Sealing,
        now: Instant,
    ) -> bool {
        if slot == Slot::GREETING {
            self.make_greeting(sealing, now);
        }
        let session = self.sessions.get_mut(slot);
        session.is_some_and(|session| session.courtesy_mut().may_answer(initiation, now))
    }

    /// We answered this handshake that the peer began.
    pub fn answered_handshake(&mut self, slot: Slot, initiation: &[u8], now: Instant) {
        if slot == Slot::GREETING {
            self.sessions.greeted(now);
        }
        if let Some(session) = self.sessions.get_mut(slot) {
            session.courtesy_mut().answered(initiation, now);
        }
    }

    fn make_greeting(&mut self, sealing: &Sealing, now: Instant) {
        let (keyring, key) = (&sealing.keyring, self.keys.key);
        let make = |index| {
            let psk = keyring.greeting_psk(&key);
            Session::new(keyring.identity(), key, &psk, index)
        };
        self.sessions.make_greeting(make, now);
    }

    /// Whether it was the peer, as far as can be told without the key, that wants to renew the keys of a session which we
    /// have not. Said by a session made for that alone: the greeting takes no handshake that is not its own.
    pub fn misses_session(
        &self,
        initiation: &[u8],
        from: Option<IpAddr>,
        sealing: &Sealing,
        buffer: &mut [u8],
    ) -> bool {
        // The key is about to be agreed on: the handshake was only faster than the last words about that.
        if self.sessions.is_exchanging() || self.sessions.greeting().is_some_and(Session::can_seal)
        {
            return false;
        }
        let (identity, nobodys) = (sealing.keyring.identity(), Psk::default());
        let mut session = Session::new(identity, self.keys.key, &nobodys, 0);
        let opened = session.open(from, initiation, buffer, |_| ());
        opened == Ok(Opened::Handshake)
    }

    // ---- keys --------------------------------------------------------------------------------------------

    /// Lets sessions come and go, and says again what was not answered.
    pub(super) fn turn_keys(&mut self, sealing: &mut Sealing, now: Instant) {
        let is_offering = sealing.keyring.offers_to(&self.keys.key);
        if self.sessions.promote(is_offering, now) {
            self.unanswered = None;
            self.is_refused = false;
            // The first words in the new session show the peer that it stands.
            self.paths.doubt_all();
        }
        self.sessions.let_go(now);
        if self.wants_other_keys(now) {
            self.sessions.want_another();
            self.greet(false, sealing, now);
        }
        if self.sessions.wants_exchange() {
            let stage = if is_offering {
                self.offered(sealing)
            } else {
                Stage::Wanted
            };
            self.sessions.exchange = Some(Box::new(Exchange::at(stage, now)));
            self.say(false, sealing, now);
        } else if let Some(exchange) = &mut self.sessions.exchange
            && exchange.repeats(now)
        {
            self.say(true, sealing, now);
        }
    }

    /// Whether the session is too old, or lost to the peer as it seems.
    fn wants_other_keys(&mut self, now: Instant) -> bool {
        let is_pressing = self
            .session()
            .is_some_and(|session| session.timers() == Timers::Handshake);
        if !is_pressing {
            self.unanswered = None;
        } else if now >= *self.unanswered.get_or_insert(now) + UNANSWERED {
            return self.sessions.greeting().is_none();
        }
        self.sessions.is_to_be_renewed(now)
    }

    fn offered(&self, sealing: &mut Sealing) -> Stage {
        let (secret, offer) = tunnel_key::offer(sealing.keyring.draw());
        let slot = self.sessions.free_slot();
        Stage::Offered {
            secret,
            number: key_exchange::number_of(&offer, self.sessions.index_of(slot)),
            offer,
            slot,
        }
    }

    /// Says what the exchange is at; if `again` or for the first time ever by every way that the peer was heard by, because
    /// the one in use may be one that does not work.
    fn say(&mut self, again: bool, sealing: &mut Sealing, now: Instant) {
        let Some(exchange) = &self.sessions.exchange else {
            return;
        };
        let signals: Vec<_> = match &exchange.stage {
            Stage::Wanted => vec![Signal::Want(SUITE)],
            Stage::Offered {
                number,
                offer,
                slot,
                ..
            } => {
                let session = self.sessions.index_of(*slot);
                let parts = key_exchange::parts(SUITE, *number, session, offer);
                parts.map(Signal::Offer).collect()
            }
            Stage::Accepted {
                number,
                acceptance,
                slot,
            } => {
                let session = self.sessions.index_of(*slot);
                let parts = key_exchange::parts(SUITE, *number, session, acceptance);
                parts.map(Signal::Accept).collect()
            }
        };
        let paths: Vec<_> = if again || !self.paths.is_proven() {
            self.paths.likely().take(MAX_CALLS).collect()
        } else {
            self.paths.current().into_iter().collect()
        };
        for path in paths {
            for signal in &signals {
                self.signal(signal, path, sealing);
            }
        }
        if let Some(session) = self.sessions.coming_mut() {
            begin(Some(session), &self.paths, true, sealing, now);
        }
    }

    /// The peer asks for an offer.
    pub fn handle_want(&mut self, suite: u8, sealing: &mut Sealing, now: Instant) {
        if self.refuses(suite) || !sealing.keyring.offers_to(&self.keys.key) {
            return;
        }
        if let Some(exchange) = &mut self.sessions.exchange {
            if exchange.echoes(now) {
                self.say(true, sealing, now);
            }
            return;
        }
        // Perhaps it asked before it had what we sent.
        let is_echo = self.sessions.has_agreed_within(INTERVAL, now);
        if !is_echo && self.sessions.greeting().is_some() {
            let stage = self.offered(sealing);
            self.sessions.exchange = Some(Box::new(Exchange::at(stage, now)));
            self.say(false, sealing, now);
        }
    }

    /// A part of the peer's offer.
    pub fn handle_offer(&mut self, part: &Part, sealing: &mut Sealing, now: Instant) {
        if self.refuses(part.suite) {
            // It learns why nothing comes of it.
            if let (0, Some(path)) = (part.number, self.paths.current()) {
                self.signal(&Signal::Want(SUITE), path, sealing);
            }
            return;
        }
        let is_ours = sealing.keyring.offers_to(&self.keys.key);
        if is_ours || self.sessions.greeting().is_none() {
            return;
        }
        if let Some(exchange) = &mut self.sessions.exchange
            && let Stage::Accepted { number, .. } = &exchange.stage
            && *number == part.exchange
        {
            if exchange.echoes(now) {
                self.say(true, sealing, now);
            }
            return;
        }
        if self.sessions.has_agreed_within(INTERVAL, now) {
            return;
        }
        if let Some(offer) = Gathering::add(&mut self.sessions.gathering, part, OFFER)
            && key_exchange::number_of(&offer, part.session) == part.exchange
        {
            self.accept(part, &offer, sealing, now);
        }
    }

    fn accept(&mut self, part: &Part, offer: &[u8], sealing: &mut Sealing, now: Instant) {
        let Some((acceptance, shared)) = tunnel_key::accept(offer, &sealing.keyring.draw()) else {
            tracing::debug!(peer = %self.keys.id, "an offer of keys that is no key");
            return;
        };
        let (keyring, key) = (&sealing.keyring, self.keys.key);
        let slot = self.sessions.free_slot();
        let index = self.sessions.index_of(slot);
        let agreement = Agreement {
            offering: (key, part.session),
            accepting: (keyring.identity().public(), index),
            offer,
            acceptance: &acceptance,
        };
        let psk = keyring.session_psk(&shared, &agreement);
        let session = Session::new(keyring.identity(), key, &psk, index);
        self.sessions
            .await_session(slot, session, part.session, true, now);
        let stage = Stage::Accepted {
            number: part.exchange,
            acceptance,
            slot,
        };
        self.sessions.exchange = Some(Box::new(Exchange::at(stage, now)));
        self.say(false, sealing, now);
    }

    /// A part of what the peer sends in return for our offer.
    pub fn handle_accept(&mut self, part: &Part, sealing: &mut Sealing, now: Instant) {
        if self.refuses(part.suite) {
            return;
        }
        let is_of = |exchange: &Exchange| matches!(exchange.stage, Stage::Offered { number, .. } if number == part.exchange);
        if !self.sessions.exchange.as_deref().is_some_and(is_of) {
            return;
        }
        let gathering = &mut self.sessions.gathering;
        let Some(acceptance) = Gathering::add(gathering, part, ACCEPTANCE) else {
            return;
        };
        let exchange = self.sessions.exchange.take();
        let Some(Stage::Offered {
            secret,
            offer,
            slot,
            ..
        }) = exchange.map(|exchange| exchange.stage)
        else {
            return;
        };
        let Some(shared) = tunnel_key::open(&secret, &acceptance) else {
            return;
        };
        let (keyring, key) = (&sealing.keyring, self.keys.key);
        let index = self.sessions.index_of(slot);
        let agreement = Agreement {
            offering: (keyring.identity().public(), index),
            accepting: (key, part.session),
            offer: &offer,
            acceptance: &acceptance,
        };
        let psk = keyring.session_psk(&shared, &agreement);
        let session = Session::new(keyring.identity(), key, &psk, index);
        self.sessions
            .await_session(slot, session, part.session, false, now);
    }

    /// Whether the peer agrees on keys in another way than we: then we do not at all.
    fn refuses(&mut self, suite: u8) -> bool {
        let refuses = suite != SUITE;
        if refuses && !std::mem::replace(&mut self.is_refused, true) {
            tracing::warn!(
                peer = %self.keys.id,
                "no tunnel: the peer keys tunnels with {}, this node with {}; both must run builds with the same `pq`",
                tunnel_key::name(suite),
                tunnel_key::name(SUITE),
            );
        }
        refuses
    }
}

/// Begins a handshake by every path, unless it is the peer's turn.
fn begin(
    session: Option<&mut Session>,
    paths: &crate::path::Paths,
    anew: bool,
    sealing: &mut Sealing,
    now: Instant,
) {
    let outbox = &mut sealing.outbox;
    let session = session.filter(|session| !session.courtesy().is_their_turn(now));
    if let (Some(session), Some(_)) = (session, paths.current()) {
        session.initiate(anew, &mut [0; MIN_BUFFER], |datagram| {
            for path in paths.all() {
                outbox.push(path, datagram);
            }
        });
    }
}
