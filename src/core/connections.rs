//! Which libp2p connections are wanted: one to every member, direct where possible, and none too many.
//!
//! A member without a connection is dialled, with a back-off that doubles: over QUIC first, and a moment later over TCP
//! as well, for where UDP is blocked. A member that is reached, but not over
//! QUIC, whose hole raw datagrams share, is tried better again and again, ever more rarely: by its own addresses, and
//! if only a relay leads to it by a fresh circuit, because hole punching starts only on a new one. Of several connections the better one stays; the node with the lower
//! identity closes the others, so that the two ends never close each other's choice.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use libp2p_core::{Multiaddr, multiaddr::Protocol};
use libp2p_identity::PeerId;

use crate::{
    connection::{ConnectionId, Link},
    output::Output,
    schedule::Schedule,
};

/// Wishes that time alone makes due are looked at this much late, so that many of them are looked at together. As
/// long as a connection that we closed has not gone, it is closed again this often.
const TICK: Duration = Duration::from_millis(500);
/// First pause after a dial that failed; it doubles up to [`MAX_BACKOFF`].
const BACKOFF: Duration = Duration::from_secs(1);
/// A member that is away costs one dial in this time.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// QUIC's head start. It needs one round trip where TCP with encryption needs four, so this is enough on any path that
/// lets UDP through; on one that does not, it is what a first connection costs.
const TCP_DELAY: Duration = Duration::from_millis(300);
/// A member that no path reaches may be found within this time without a new connection.
const LOST_PATIENCE: Duration = Duration::from_secs(1);
/// A new connection to a lost peer has so long to show a path that answers before another is tried.
const CHANCE: Duration = Duration::from_secs(5);
/// A dial that has told nothing for this long is forgotten.
const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// When a better connection is tried: at once by the addresses the peer gave (hole punching knows no LAN), later with
/// a new circuit too: the first hole punch may have begun before both ends knew how they are seen from outside.
const PUNCHES: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
    Duration::from_secs(300),
];
/// A circuit is dialled only when we know how we are seen from outside, because hole punching takes what is known at
/// that moment; but not later than this.
const CIRCUIT_PATIENCE: Duration = Duration::from_secs(1);
/// Connections must have lived this long before one of them goes: packets in flight get through, and a better one
/// has shown that it holds.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    link: Link,
    opened: Instant,
    authenticated: bool,
    carrier: bool,
}

/// What is known of the way to one member.
#[derive(Debug)]
struct Wish {
    addresses: Vec<Multiaddr>,
    next_dial: Instant,
    dialled: Option<Instant>,
    /// When somebody last could not wait.
    hurried: Option<Instant>,
    /// When the addresses without QUIC get their turn.
    next_tcp: Option<Instant>,
    /// News, which a dial under way does not try.
    news: Vec<Multiaddr>,
    failures: u32,
    /// When the next attempt at a better connection is due, and how many were made.
    next_punch: Option<Instant>,
    punches: usize,
    /// No path answers, whatever the connections say.
    lost: Option<Lost>,
}

/// A member that is connected as far as the connections know, and that no path answers for.
#[derive(Debug)]
struct Lost {
    since: Instant,
    /// When it is dialled next, beside the connections that it has, and how often it was.
    due: Instant,
    tries: u32,
}

/// All connections and wishes.
#[derive(Debug)]
pub struct Connections {
    us: PeerId,
    open: BTreeMap<ConnectionId, Connection>,
    by_peer: BTreeSet<(PeerId, ConnectionId)>,
    wishes: BTreeMap<PeerId, Wish>,
    schedule: Schedule<PeerId>,
    started: Instant,
    is_seen: bool,
}

impl Connections {
    /// Nobody is wanted yet.
    pub fn new(us: PeerId, now: Instant) -> Self {
        Self {
            us,
            open: BTreeMap::new(),
            by_peer: BTreeSet::new(),
            wishes: BTreeMap::new(),
            schedule: Schedule::new(now, TICK),
            started: now,
            is_seen: false,
        }
    }

    /// The network below may have changed: who is away is dialled at once, and a better connection to the others is
    /// tried.
    pub fn begin_anew(&mut self, now: Instant) {
        for (peer, wish) in &mut self.wishes {
            wish.begin_anew();
            wish.failures = 0;
            wish.dialled = None;
            wish.next_dial = now;
            self.schedule.hasten(*peer, now);
        }
    }

    /// No path to the member answers: its connections may be as dead as its paths, and not know it yet. A new one is
    /// tried a moment later, by whichever way, until a path answers; once there is one, the older ones have shown that they
    /// are dead.
    pub fn lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(wish) = self.wishes.get_mut(peer) {
            let due = now + LOST_PATIENCE;
            wish.lost.get_or_insert(Lost {
                since: now,
                due,
                tries: 0,
            });
            self.schedule.hasten(*peer, due);
        }
    }

    /// A path to the member answers.
    pub fn found(&mut self, peer: &PeerId) {
        if let Some(wish) = self.wishes.get_mut(peer) {
            wish.lost = None;
        }
    }

    /// Others have told us how they see us, or anybody can dial us: hole punching has something to work with. Where it
    /// was tried without, it begins anew.
    pub fn seen(&mut self, now: Instant) {
        self.is_seen = true;
        for (peer, wish) in &mut self.wishes {
            wish.begin_anew();
            self.schedule.hasten(*peer, now);
        }
    }

    /// Wants a connection to this member at one of these addresses. News about a member that is away are a
    /// reason to try at once.
    pub fn want(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        match self.wishes.get_mut(&peer) {
            Some(wish) if wish.addresses == addresses => {}
            Some(wish) => {
                wish.news = addresses
                    .iter()
                    .filter(|address| !wish.addresses.contains(address))
                    .cloned()
                    .collect();
                wish.addresses = addresses;
                wish.next_dial = now;
                wish.begin_anew();
                wish.failures = 0;
            }
            None => {
                let wish = Wish {
                    addresses,
                    next_dial: now,
                    dialled: None,
                    hurried: None,
                    next_tcp: None,
                    news: Vec::new(),
                    failures: 0,
                    next_punch: None,
                    punches: 0,
                    lost: None,
                };
                self.wishes.insert(peer, wish);
            }
        }
        self.schedule.hasten(peer, now);
    }

    /// Packets wait for this member: try now, but no more often than after a first failure.
    pub fn hurry(&mut self, peer: &PeerId, now: Instant) {
        let Some(wish) = self.wishes.get_mut(peer) else {
            return;
        };
        if wish.next_dial > now && wish.hurried.is_none_or(|at| now >= at + BACKOFF) {
            wish.hurried = Some(now);
            wish.next_dial = now;
            self.schedule.hasten(*peer, now);
        }
    }

    /// The member is no more: its connections are closed.
    pub fn unwant(&mut self, peer: &PeerId) -> Vec<Output> {
        self.wishes.remove(peer);
        self.schedule.set(*peer, None);
        self.all_of(peer).map(|(id, _)| Output::Close(id)).collect()
    }

    /// A connection came up. It carries nothing until both ends are authenticated.
    pub fn opened(&mut self, id: ConnectionId, peer: PeerId, link: Link, now: Instant) {
        self.by_peer.insert((peer, id));
        self.open.insert(
            id,
            Connection {
                peer,
                link,
                opened: now,
                authenticated: false,
                carrier: false,
            },
        );
    }

    /// Both ends of the connection are members. Returns whether it is the first such to this peer.
    pub fn authenticated(&mut self, id: ConnectionId, now: Instant) -> bool {
        let Some(connection) = self.open.get_mut(&id) else {
            return false;
        };
        connection.authenticated = true;
        connection.opened = now;
        let peer = connection.peer;
        if let Some(wish) = self.wishes.get_mut(&peer) {
            wish.dialled = None;
            wish.next_tcp = None;
            wish.failures = 0;
            wish.next_dial = now;
            self.schedule.hasten(peer, now);
        }
        self.of(&peer).count() == 1
    }

    /// The connection moved to another endpoint.
    pub fn moved(&mut self, id: ConnectionId, link: Link, now: Instant) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.link = link;
            self.schedule.hasten(connection.peer, now);
        }
    }

    /// The connection is gone. Returns how it went, if it was known.
    pub fn closed(&mut self, id: ConnectionId, now: Instant) -> Option<(PeerId, Link)> {
        let connection = self.open.remove(&id)?;
        self.by_peer.remove(&(connection.peer, id));
        let is_away = self.of(&connection.peer).next().is_none();
        if let Some(wish) = self.wishes.get_mut(&connection.peer).filter(|_| is_away) {
            // One that was never authenticated may have been refused: not at once again.
            let pause = if connection.authenticated {
                Duration::ZERO
            } else {
                BACKOFF
            };
            wish.next_dial = now + pause;
            wish.dialled = None;
            wish.next_tcp = None;
            if connection.authenticated {
                wish.failures = 0;
            }
        }
        self.schedule.hasten(connection.peer, now);
        Some((connection.peer, connection.link))
    }

    /// A dial came to nothing. Returns how often in a row; none while there is a connection, because then it was an
    /// attempt at a better one.
    pub fn dial_failed(&mut self, peer: &PeerId, now: Instant) -> u32 {
        let is_away = self.of(peer).next().is_none();
        let Some(wish) = self.wishes.get_mut(peer).filter(|_| is_away) else {
            return 0;
        };
        wish.dialled = None;
        let backoff = BACKOFF
            .saturating_mul(1 << wish.failures.min(6))
            .min(MAX_BACKOFF);
        wish.failures = wish.failures.saturating_add(1);
        wish.next_dial = now + backoff;
        let (failures, due) = (wish.failures, wish.next_dial);
        self.schedule.hasten(*peer, self.schedule.coarse(due));
        failures
    }

    /// The connection's carrier stream came up or broke.
    pub fn set_carrier(&mut self, id: ConnectionId, is_up: bool) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.carrier = is_up;
        }
    }

    /// Whether the connection has a carrier stream.
    pub fn has_carrier(&self, id: ConnectionId) -> bool {
        self.open
            .get(&id)
            .is_some_and(|connection| connection.carrier)
    }

    /// The authenticated connections to a peer.
    pub fn of(&self, peer: &PeerId) -> impl Iterator<Item = (ConnectionId, Link)> {
        self.all_of(peer)
            .filter(|(_, connection)| connection.authenticated)
            .map(|(id, connection)| (id, connection.link))
    }

    /// Whether an authenticated connection to this peer may be alive: one that is older than the silence of all paths has
    /// nothing to show for it, and takes up to half a minute to notice.
    pub fn may_live(&self, peer: &PeerId) -> bool {
        let lost = self.wishes.get(peer).and_then(|wish| wish.lost.as_ref());
        self.all_of(peer)
            .filter(|(_, connection)| connection.authenticated)
            .any(|(_, connection)| lost.is_none_or(|lost| connection.opened > lost.since))
    }

    /// How a peer is connected, authenticated or not.
    pub fn links_of(&self, peer: &PeerId) -> impl Iterator<Item = Link> {
        self.all_of(peer).map(|(_, connection)| connection.link)
    }

    /// Whether there is a connection to this peer, authenticated or not.
    pub fn is_open(&self, peer: &PeerId) -> bool {
        self.all_of(peer).next().is_some()
    }

    fn all_of(&self, peer: &PeerId) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        let (first, last) = (ConnectionId(0), ConnectionId(u64::MAX));
        self.by_peer
            .range((*peer, first)..=(*peer, last))
            .filter_map(|(_, id)| Some((*id, self.open.get(id)?)))
    }

    /// Whom a connection leads to, authenticated or not.
    pub fn peer_of(&self, id: ConnectionId) -> Option<(PeerId, Link)> {
        self.open
            .get(&id)
            .map(|connection| (connection.peer, connection.link))
    }

    /// The peers with an authenticated connection.
    pub fn connected(&self) -> impl Iterator<Item = PeerId> + '_ {
        let mut last = None;
        self.by_peer
            .iter()
            .filter(|(_, id)| self.open.get(id).is_some_and(|c| c.authenticated))
            .map(|(peer, _)| *peer)
            .filter(move |peer| last.replace(*peer) != Some(*peer))
            .filter(|peer| self.wishes.contains_key(peer))
    }

    /// When [`handle_timeout`](Self::handle_timeout) is wanted next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Says what to dial and what to close now.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(peer) = self.schedule.pop(now) {
            self.look_after(peer, now, &mut outputs);
        }
        outputs
    }

    /// Does what one wish wants now, and notes when to look at it again.
    fn look_after(&mut self, peer: PeerId, now: Instant, outputs: &mut Vec<Output>) {
        let best = self.of(&peer).map(|(_, link)| preference(&link)).min();
        let newest = self.all_of(&peer).map(|(_, known)| known.opened).max();
        let we_lead = self.us < peer;
        let circuits_from = if self.is_seen {
            now
        } else {
            self.started + CIRCUIT_PATIENCE
        };
        let Some(wish) = self.wishes.get_mut(&peer) else {
            return;
        };
        let lost_since = wish.lost.as_ref().map(|lost| lost.since);
        let mut due = None;
        if best.is_some() {
            outputs.extend(wish.search(peer, newest, now));
            let search = wish.lost.as_ref().map(|lost| lost.due);
            if let Some(due) = search.filter(|_| !wish.addresses.is_empty()) {
                self.schedule.hasten(peer, self.schedule.coarse(due));
            }
        }
        if let Some(best) = best.filter(|best| *best > QUIC) {
            outputs.extend(wish.punch(peer, best == RELAYED, we_lead, now));
            due = wish.next_punch;
        } else {
            wish.begin_anew();
        }
        if best.is_none() {
            outputs.extend(wish.dial(peer, circuits_from, now));
            due = wish.dial_due(circuits_from);
            // Not coarse: who needs TCP has waited long enough.
            if let Some(due) = wish.next_tcp {
                let due = wish.not_before(circuits_from, due);
                self.schedule.hasten(peer, due);
            }
        }
        if let Some(due) = due {
            self.schedule.hasten(peer, self.schedule.coarse(due));
        }
        if let Some(since) = lost_since {
            self.close_replaced(&peer, since, outputs);
        }
        if we_lead {
            self.close_surplus(&peer, now, outputs);
        }
    }

    /// Closes the connections of a lost peer that are older than one which came up since. They are dead, for the other
    /// end too: no choice of it is closed.
    fn close_replaced(&self, peer: &PeerId, since: Instant, outputs: &mut Vec<Output>) {
        let (old, new): (Vec<_>, Vec<_>) = self
            .all_of(peer)
            .filter(|(_, connection)| connection.authenticated)
            .partition(|(_, connection)| connection.opened < since);
        if !new.is_empty() {
            outputs.extend(old.into_iter().map(|(id, _)| Output::Close(id)));
        }
    }

    /// Closes the connections that a settled one, better or newer, has made superfluous.
    fn close_surplus(&mut self, peer: &PeerId, now: Instant, outputs: &mut Vec<Output>) {
        let authenticated: Vec<_> = self.all_of(peer).filter(|(_, c)| c.authenticated).collect();
        if authenticated.len() < 2 {
            return;
        }
        let (settled, fresh): (Vec<_>, Vec<_>) = authenticated
            .into_iter()
            .partition(|(_, c)| now >= c.opened + SETTLE);
        let rank = |(id, c): &(ConnectionId, &Connection)| (preference(&c.link), Reverse(*id));
        let best = settled.iter().map(rank).min();
        let surplus = settled.iter().filter(|held| Some(rank(held)) > best);
        let closed_before = outputs.len();
        outputs.extend(surplus.map(|(id, _)| Output::Close(*id)));
        let again = (outputs.len() > closed_before).then_some(now + TICK);
        let settling = fresh.iter().map(|(_, c)| c.opened + SETTLE);
        if let Some(due) = settling.chain(again).min() {
            self.schedule.hasten(*peer, self.schedule.coarse(due));
        }
    }
}

impl Wish {
    fn dial(&mut self, peer: PeerId, circuits_from: Instant, now: Instant) -> Option<Output> {
        if now < self.not_before(circuits_from, now) {
            return None;
        }
        let dial = |addresses: Vec<Multiaddr>, even_if_connected| {
            (!addresses.is_empty()).then_some(Output::Dial {
                peer,
                addresses,
                even_if_connected,
            })
        };
        let (quic, others): (Vec<_>, Vec<_>) = self.addresses.iter().cloned().partition(is_quic);
        if self.next_tcp.is_some_and(|due| now >= due) {
            self.next_tcp = None;
            // Beside the dial over QUIC, which goes on.
            return dial(others, true);
        }
        let is_dialling = self.dialled.is_some_and(|since| now < since + DIAL_LIMIT);
        if is_dialling {
            return dial(std::mem::take(&mut self.news), true);
        }
        if now < self.next_dial {
            return None;
        }
        self.news.clear();
        self.dialled = Some(now);
        if quic.is_empty() {
            return dial(others, false);
        }
        self.next_tcp = (!others.is_empty()).then_some(now + TCP_DELAY);
        dial(quic, false)
    }

    /// When [`dial`](Self::dial) has something to say next, apart from the addresses without QUIC.
    fn dial_due(&self, circuits_from: Instant) -> Option<Instant> {
        if self.addresses.is_empty() {
            return None;
        }
        let due = match self.dialled {
            Some(since) if self.news.is_empty() => self.next_dial.max(since + DIAL_LIMIT),
            Some(_) | None => self.next_dial,
        };
        Some(self.not_before(circuits_from, due))
    }

    /// Nothing is dialled before `circuits_from` if one of the addresses is a circuit.
    fn not_before(&self, circuits_from: Instant, due: Instant) -> Instant {
        if due < circuits_from && self.addresses.iter().any(is_circuit) {
            circuits_from
        } else {
            due
        }
    }

    /// Dials a lost peer beside the connections that it has, ever more rarely.
    fn search(&mut self, peer: PeerId, newest: Option<Instant>, now: Instant) -> Option<Output> {
        let lost = self.lost.as_mut().filter(|lost| now >= lost.due)?;
        if let Some(newest) = newest.filter(|at| *at >= lost.since && now < *at + CHANCE) {
            lost.due = newest + CHANCE;
            return None;
        }
        let pause = BACKOFF.saturating_mul(1 << lost.tries.min(6));
        lost.due = now + pause.min(MAX_BACKOFF);
        lost.tries = lost.tries.saturating_add(1);
        let addresses = self.addresses.clone();
        (!addresses.is_empty()).then_some(Output::Dial {
            peer,
            addresses,
            even_if_connected: true,
        })
    }

    /// Something changed that may make a better connection possible.
    fn begin_anew(&mut self) {
        self.next_punch = None;
        self.punches = 0;
    }

    fn punch(
        &mut self,
        peer: PeerId,
        is_relayed: bool,
        we_lead: bool,
        now: Instant,
    ) -> Vec<Output> {
        let due = *self.next_punch.get_or_insert(now + PUNCHES[0]);
        if now < due {
            return Vec::new();
        }
        self.punches += 1;
        self.next_punch = Some(now + PUNCHES[self.punches.min(PUNCHES.len() - 1)]);
        let (circuits, mut direct): (Vec<_>, Vec<_>) =
            self.addresses.iter().cloned().partition(is_circuit);
        if !is_relayed {
            direct.retain(is_quic);
        }
        let again = is_relayed && we_lead && self.punches > 1;
        [direct, if again { circuits } else { Vec::new() }]
            .into_iter()
            .filter(|addresses| !addresses.is_empty())
            .map(|addresses| Output::Dial {
                peer,
                addresses,
                even_if_connected: true,
            })
            .collect()
    }
}

const QUIC: u8 = 0;
const RELAYED: u8 = 2;

/// Lower is better.
fn preference(link: &Link) -> u8 {
    match link {
        Link::Quic(_) => QUIC,
        Link::Tcp(_) => 1,
        Link::Relayed { .. } => RELAYED,
    }
}

fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

fn is_circuit(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| matches!(part, Protocol::P2pCircuit))
}

#[cfg(test)]
mod tests;
