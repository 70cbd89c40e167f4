//! Strangers: connections whose peer has not shown that it belongs to us. They get little, and not for long.
//!
//! - so many at once, and so many from one [`Source`]: beyond, the oldest of the source that has most of them goes;
//! - a limit of time, whatever they say meanwhile: pings and streams keep an idle connection alive, not this one;
//! - so many requests to join from one source.
//!
//! Members that the directory knows are not counted: they are let in however many strangers there are. Who asks to
//! join is left alone while its request is in work.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hivevpn_core::allowance::Allowances;
use libp2p::{
    Multiaddr, PeerId,
    core::{ConnectedPoint, Endpoint, transport::PortUse},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{gate::Members, source::Source};

/// Connections of strangers at once. Each may fill what a connection buffers: 8 MiB over QUIC, and over TCP or a circuit
/// as many windows of 256 KiB as it may have streams.
pub const MOST: usize = 32;
/// Of these, from one source.
pub const MOST_FROM_ONE: usize = 8;
/// A stranger has this long to become a member, or after its last request to join was answered.
pub const PROOF_LIMIT: Duration = Duration::from_secs(30);
/// However often it asks to join.
pub const LAST_LIMIT: Duration = Duration::from_secs(120);
/// Requests to join that one source may send at once, and in which time one more.
pub const JOIN_BURST: u32 = 20;
const JOIN_PRICE: Duration = Duration::from_secs(1);
/// Sources whose requests are counted.
const SOURCES: usize = 4096;
/// How often somebody looks for those whose time is over.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// There are too many strangers, all in the middle of joining.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("too many strangers are connected: try again in a moment")]
pub struct Crowded;

/// Counts strangers, and sends them away.
pub struct Strangers {
    /// Who is admitted on some connection.
    members: Members,
    /// Who would be, as far as the directory knows.
    expected: HashSet<PeerId>,
    /// Before that, those whom we dialed may be what we need to get in.
    has_entered: Option<Instant>,
    limit: Duration,
    open: BTreeMap<ConnectionId, Stranger>,
    joins: Allowances<Source>,
    next_look: Option<Instant>,
    to_close: VecDeque<(PeerId, ConnectionId)>,
}

struct Stranger {
    peer: PeerId,
    source: Source,
    is_incoming: bool,
    since: Instant,
    /// Since when it has not been joining.
    idle_since: Instant,
    /// Requests to join in work.
    joining: u32,
}

impl Strangers {
    /// Nobody is here. Strangers have `limit` to become members.
    pub fn new(members: Members, limit: Duration) -> Self {
        Self {
            members,
            expected: HashSet::new(),
            has_entered: None,
            limit,
            open: BTreeMap::new(),
            joins: Allowances::new(JOIN_BURST, JOIN_PRICE, SOURCES),
            next_look: None,
            to_close: VecDeque::new(),
        }
    }

    /// The directory knows this member now.
    pub fn expect(&mut self, peer: PeerId) {
        self.expected.insert(peer);
    }

    /// It is none any more.
    pub fn unexpect(&mut self, peer: &PeerId) {
        self.expected.remove(peer);
    }

    /// We are a member: from now on those whom we dialed must be as well.
    pub fn entered(&mut self, now: Instant) {
        self.has_entered.get_or_insert(now);
    }

    /// The peer of this connection was admitted.
    pub fn admitted(&mut self, connection: ConnectionId) {
        self.open.remove(&connection);
    }

    /// Somebody asks to join. Returns whether that is to be looked at.
    pub fn joining(&mut self, connection: ConnectionId, now: Instant) -> bool {
        let Some(stranger) = self.open.get_mut(&connection) else {
            return true;
        };
        let is_allowed = self.joins.take(stranger.source, 1, now);
        if is_allowed {
            stranger.joining += 1;
        }
        is_allowed
    }

    /// It has its answer, or will get none.
    pub fn joined(&mut self, connection: ConnectionId, now: Instant) {
        if let Some(stranger) = self.open.get_mut(&connection)
            && stranger.joining > 0
        {
            stranger.joining -= 1;
            stranger.idle_since = now;
        }
    }

    /// Whose time is over.
    pub fn look(&mut self, now: Instant) -> Vec<ConnectionId> {
        if self.next_look.is_some_and(|at| now < at) {
            return Vec::new();
        }
        self.next_look = Some(now + LOOK_PERIOD);
        let over: Vec<_> = self
            .open
            .iter()
            .filter(|(_, stranger)| self.is_over(stranger, now))
            .map(|(id, _)| *id)
            .collect();
        for id in &over {
            self.open.remove(id);
        }
        over
    }

    fn is_over(&self, stranger: &Stranger, now: Instant) -> bool {
        let start = match (stranger.is_incoming, self.has_entered) {
            (true, _) => stranger.since,
            (false, Some(entered)) => stranger.since.max(entered),
            (false, None) => return false,
        };
        let idle = stranger.idle_since.max(start);
        now >= start + LAST_LIMIT || stranger.joining == 0 && now >= idle + self.limit
    }

    fn is_stranger(&self, peer: &PeerId) -> bool {
        !self.expected.contains(peer) && !self.members.contains(peer)
    }

    /// Makes room for one more, if it can.
    fn make_room(&mut self, source: Source) -> Result<(), Crowded> {
        let mut of_each: BTreeMap<Source, usize> = BTreeMap::new();
        for stranger in self.open.values() {
            if stranger.is_incoming && self.is_stranger(&stranger.peer) {
                *of_each.entry(stranger.source).or_default() += 1;
            }
        }
        let all: usize = of_each.values().sum();
        let of_source = of_each.get(&source).copied().unwrap_or_default();
        let whose = if of_source >= MOST_FROM_ONE {
            Some(source)
        } else if all >= MOST {
            None
        } else {
            return Ok(());
        };
        // The oldest of those who are many.
        let first = self
            .open
            .iter()
            .filter(|(_, stranger)| {
                stranger.is_incoming
                    && stranger.joining == 0
                    && whose.is_none_or(|whose| stranger.source == whose)
                    && self.is_stranger(&stranger.peer)
            })
            .max_by_key(|(id, stranger)| (of_each.get(&stranger.source), Reverse(**id)));
        let (id, peer) = first
            .map(|(id, stranger)| (*id, stranger.peer))
            .ok_or(Crowded)?;
        self.open.remove(&id);
        self.to_close.push_back((peer, id));
        Ok(())
    }
}

impl NetworkBehaviour for Strangers {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if self.is_stranger(&peer) {
            let room = self.make_room(Source::new(local, remote));
            room.map_err(ConnectionDenied::new)?;
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionEstablished(opened) = event {
            let source = match opened.endpoint {
                ConnectedPoint::Listener {
                    local_addr,
                    send_back_addr,
                } => Source::new(local_addr, send_back_addr),
                ConnectedPoint::Dialer { address, .. } => Source::new(address, address),
            };
            let now = Instant::now();
            let stranger = Stranger {
                peer: opened.peer_id,
                source,
                is_incoming: opened.endpoint.is_listener(),
                since: now,
                idle_since: now,
                joining: 0,
            };
            self.open.insert(opened.connection_id, stranger);
        } else if let FromSwarm::ConnectionClosed(closed) = event {
            self.open.remove(&closed.connection_id);
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.to_close.pop_front() {
            Some((peer_id, connection)) => Poll::Ready(ToSwarm::CloseConnection {
                peer_id,
                connection: CloseConnection::One(connection),
            }),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;
    use libp2p::swarm::behaviour::ConnectionEstablished;

    use super::*;

    const LOCAL: &str = "/ip4/203.0.113.1/tcp/7777";

    struct Door {
        strangers: Strangers,
        next: usize,
    }

    impl Door {
        fn new() -> Self {
            Self {
                strangers: Strangers::new(Members::default(), PROOF_LIMIT),
                next: 0,
            }
        }

        /// Somebody knocks; on which connection he is in.
        fn knock(&mut self, peer: PeerId, from: &str) -> Option<ConnectionId> {
            self.next += 1;
            let id = ConnectionId::new_unchecked(self.next);
            let (local, remote) = (LOCAL.parse().unwrap(), from.parse().unwrap());
            self.strangers
                .handle_established_inbound_connection(id, peer, &local, &remote)
                .ok()?;
            let endpoint = ConnectedPoint::Listener {
                local_addr: local,
                send_back_addr: remote,
            };
            self.tell_opened(id, peer, &endpoint);
            Some(id)
        }

        fn tell_opened(&mut self, id: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
            let opened = ConnectionEstablished {
                peer_id: peer,
                connection_id: id,
                endpoint,
                failed_addresses: &[],
                other_established: 0,
            };
            self.strangers
                .on_swarm_event(FromSwarm::ConnectionEstablished(opened));
        }

        fn closed(&mut self) -> usize {
            let waker = noop_waker();
            let mut cx = Context::from_waker(&waker);
            std::iter::from_fn(|| match self.strangers.poll(&mut cx) {
                Poll::Ready(event) => Some(event),
                Poll::Pending => None,
            })
            .count()
        }
    }

    fn from(last: usize) -> String {
        format!("/ip4/198.51.100.{last}/tcp/1")
    }

    #[test]
    fn one_source_takes_no_more_than_its_share() {
        let mut door = Door::new();
        let honest = door.knock(PeerId::random(), &from(1)).unwrap();
        for _ in 0..1000 {
            assert!(door.knock(PeerId::random(), &from(66)).is_some());
        }
        assert_eq!(door.strangers.open.len(), MOST_FROM_ONE + 1);
        assert_eq!(door.closed(), 1000 - MOST_FROM_ONE);
        assert!(door.strangers.open.contains_key(&honest));
    }

    #[test]
    fn many_sources_together_take_no_more_than_all_may() {
        let mut door = Door::new();
        for n in 0..1000 {
            assert!(door.knock(PeerId::random(), &from(n % 200)).is_some());
        }
        assert_eq!(door.strangers.open.len(), MOST);
    }

    #[test]
    fn members_come_in_however_many_strangers_there_are() {
        let mut door = Door::new();
        let member = PeerId::random();
        door.strangers.expect(member);
        let now = Instant::now();
        for n in 0..MOST {
            let id = door.knock(PeerId::random(), &from(n)).unwrap();
            assert!(door.strangers.joining(id, now));
        }
        assert!(
            door.knock(PeerId::random(), &from(250)).is_none(),
            "all are in the middle of joining"
        );
        assert!(door.knock(member, &from(0)).is_some());
        assert_eq!(door.closed(), 0);
        door.strangers.unexpect(&member);
        assert!(door.knock(PeerId::random(), &from(250)).is_some());
        assert_eq!(door.closed(), 1, "who is none any more has to go");
    }

    #[test]
    fn a_stranger_has_its_time_and_joining_stops_the_clock() {
        let mut door = Door::new();
        let idle = door.knock(PeerId::random(), &from(1)).unwrap();
        let joins = door.knock(PeerId::random(), &from(2)).unwrap();
        let start = Instant::now();
        assert!(door.strangers.joining(joins, start));
        assert_eq!(door.strangers.look(start + PROOF_LIMIT), [idle]);
        door.strangers.joined(joins, start + PROOF_LIMIT);
        let later = start + PROOF_LIMIT * 2;
        assert_eq!(door.strangers.look(later), [joins]);

        let endless = door.knock(PeerId::random(), &from(3)).unwrap();
        assert!(door.strangers.joining(endless, later));
        assert_eq!(door.strangers.look(start + LAST_LIMIT * 2), [endless]);
    }

    #[test]
    fn a_member_has_no_limit() {
        let mut door = Door::new();
        let member = door.knock(PeerId::random(), &from(1)).unwrap();
        door.strangers.admitted(member);
        assert!(door.strangers.look(Instant::now() + LAST_LIMIT).is_empty());
    }

    #[test]
    fn whom_we_dialed_may_be_a_stranger_until_we_are_a_member() {
        let mut door = Door::new();
        let id = ConnectionId::new_unchecked(1);
        let endpoint = ConnectedPoint::Dialer {
            address: from(1).parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        door.tell_opened(id, PeerId::random(), &endpoint);
        let start = Instant::now();
        assert!(door.strangers.look(start + LAST_LIMIT).is_empty());
        door.strangers.entered(start + LAST_LIMIT);
        let later = start + LAST_LIMIT + PROOF_LIMIT / 2;
        assert!(door.strangers.look(later).is_empty());
        assert_eq!(door.strangers.look(later + PROOF_LIMIT), [id]);
    }

    #[test]
    fn one_source_sends_so_many_requests_to_join() {
        let mut door = Door::new();
        let one = door.knock(PeerId::random(), &from(1)).unwrap();
        let other = door.knock(PeerId::random(), &from(2)).unwrap();
        let now = Instant::now();
        let asked = (0..1000).filter(|_| door.strangers.joining(one, now));
        assert_eq!(asked.count(), JOIN_BURST as usize);
        assert!(door.strangers.joining(other, now));
    }
}
