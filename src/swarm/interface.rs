//! What the data loop asks of the swarm, and what the swarm tells it.

use std::collections::{BTreeMap, BTreeSet};

pub use hivevpn_core::output::RequestId;
use hivevpn_core::{
    connection::{ConnectionId, Link},
    membership::{Network, Rejection},
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use super::{
    addresses::Addresses,
    carrier::{Carrier, Frames},
};
use crate::{
    administration,
    bench::asking::{Asking, Unanswered},
    control::{Reply, Underlay},
    reflect,
};

/// The request protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Between a stranger and a member. At most 64 KiB each way.
    Join,
    /// Between authenticated members. At most 1 MiB each way.
    Sync,
    /// Between authenticated members, about entries of the registry. At most 1 MiB each way.
    Registry,
    /// From a member that wants to act on another's node. At most 64 KiB there and 1 MiB back. What we ask goes by
    /// [`Command::AskAdmin`].
    Admin,
}

/// What the swarm is to do. It carries out and decides nothing about membership.
///
/// Not `Debug`: a network's secret must not be printed.
pub enum Command {
    /// From now on we are a member: authenticate on every connection, the open ones included. Given again, it
    /// renews our credential; the network cannot change.
    EnterNetwork {
        /// The network, which the gate, the DHT and the ranges of the overlay follow from.
        network: Network,
        /// What we show to other members.
        credential: Vec<u8>,
    },
    /// The credential that was shown on this connection is good.
    Admit {
        /// The connection of [`Event::Credential`].
        connection: ConnectionId,
    },
    /// The credential that was shown on this connection is not; the connection closes.
    Refuse {
        /// The connection of [`Event::Credential`].
        connection: ConnectionId,
        /// For the log; the peer does not learn it.
        reason: String,
    },
    /// The directory knows this member: it is let in however many strangers there are.
    Expect {
        /// Who.
        peer: PeerId,
    },
    /// It is no member any more.
    Unexpect {
        /// Who.
        peer: PeerId,
    },
    /// Connect to `peer` by whichever address answers first. The result is an [`Event::ConnectionOpened`] or an
    /// [`Event::DialFailed`], or nothing if the peer is connected or being dialed already.
    Dial {
        /// Who must answer.
        peer: PeerId,
        /// Direct addresses and circuits, all tried at once.
        addresses: Vec<Multiaddr>,
        /// Whether to dial although there is a connection, to find a better one.
        even_if_connected: bool,
    },
    /// Close a connection.
    Close {
        /// Which.
        connection: ConnectionId,
    },
    /// Send a request to a connected peer. The result is an [`Event::Response`].
    Request {
        /// To whom.
        peer: PeerId,
        /// All but joining goes to authenticated members only.
        protocol: Protocol,
        /// Comes back with the response.
        token: u64,
        /// The message.
        body: Vec<u8>,
    },
    /// Answer an [`Event::Request`].
    Respond {
        /// Which.
        request: RequestId,
        /// The message.
        body: Vec<u8>,
    },
    /// Ask a connected member to be the far end of a measurement. The question knows who waits for the answer.
    AskBench {
        /// Whom.
        peer: PeerId,
        /// The question.
        asking: Asking,
    },
    /// Ask a connected member's daemon to be acted on. The result is an [`Event::AdminAnswer`].
    AskAdmin {
        /// Whom.
        peer: PeerId,
        /// The question.
        asking: administration::asking::Asking,
    },
    /// Ask a connected member what we cannot see by ourselves. The question knows who waits for the answer.
    AskReflection {
        /// Whom.
        peer: PeerId,
        /// The question.
        asking: reflect::asking::Asking,
    },
    /// Complete what is known of the underlay, for a command that waits.
    Survey {
        /// The data loop's part.
        underlay: Box<Underlay>,
        /// Where the whole goes.
        answer: oneshot::Sender<Reply>,
    },
    /// Put a record into the DHT, and keep it there.
    Publish {
        /// Where.
        key: Vec<u8>,
        /// What, at most 16 KiB.
        value: Vec<u8>,
    },
    /// Look for records in the DHT. Each that is found is an [`Event::Found`] or [`Event::FoundEntry`]; at the end there is
    /// an [`Event::LookedUp`].
    Lookup {
        /// Where.
        key: Vec<u8>,
    },
    /// The entry of an [`Event::EntryOffered`] may lie in our part of the DHT. If something else lies there meanwhile, it is
    /// offered once more.
    KeepEntry {
        /// Who brought it.
        from: PeerId,
        /// Where.
        slot: Vec<u8>,
        /// What.
        sealed: Vec<u8>,
        /// What it was judged better than.
        kept: Option<Vec<u8>>,
    },
    /// Put an entry into the parts of these members, who served an older one or none.
    WriteBack {
        /// Where.
        slot: Vec<u8>,
        /// What.
        sealed: Vec<u8>,
        /// Whose parts.
        to: Vec<PeerId>,
    },
    /// Take a record out of our part of the DHT, and publish it no more.
    Unpublish {
        /// Where.
        key: Vec<u8>,
    },
    /// Tell a command whom the DHT knows here, and what it keeps.
    Routes {
        /// What members are called.
        names: BTreeMap<PeerId, String>,
        /// Where it goes.
        answer: oneshot::Sender<Reply>,
    },
    /// The members that offer to relay, and where they are.
    Relays(Vec<(PeerId, Vec<Multiaddr>)>),
    /// The members to relay for from now on. Reservations of others end when they are due for renewal.
    RelayFor(BTreeSet<PeerId>),
}

/// What happened.
///
/// The events of one connection come in this order: `ConnectionOpened`; then `Credential`, `Authenticated` and
/// the others; `ConnectionClosed` last. Only those of the carrier may overtake `Authenticated`.
#[derive(Debug)]
pub enum Event {
    /// There is a connection.
    ConnectionOpened {
        /// Its number.
        connection: ConnectionId,
        /// Who is at the other end: proven, but not yet known to be a member.
        peer: PeerId,
        /// How it gets there.
        link: Link,
        /// Whether we dialed. After a hole punch both sides may have.
        dialed: bool,
    },
    /// QUIC noticed that the peer's endpoint changed.
    ConnectionMoved {
        /// Its number.
        connection: ConnectionId,
        /// How it gets there now.
        link: Link,
    },
    /// The connection is gone, and its carrier with it.
    ConnectionClosed {
        /// Its number.
        connection: ConnectionId,
        /// Who was at the other end.
        peer: PeerId,
    },
    /// The peer, who knows our network, showed its credential: [`Command::Admit`] or [`Command::Refuse`] must
    /// follow within seconds. On an authenticated connection this is a renewed one.
    Credential {
        /// On this connection.
        connection: ConnectionId,
        /// Whose it must be.
        peer: PeerId,
        /// Unchecked.
        credential: Vec<u8>,
    },
    /// Both sides admitted each other: the protocols of members can be used both ways.
    Authenticated {
        /// On this connection.
        connection: ConnectionId,
        /// The member.
        peer: PeerId,
    },
    /// The peer did not accept our credential, and will close the connection.
    RefusedByPeer {
        /// On this connection.
        connection: ConnectionId,
        /// Who refused.
        peer: PeerId,
    },
    /// Datagrams can be sent on this connection. If it had a carrier, this one takes its place.
    CarrierOpened {
        /// On this connection.
        connection: ConnectionId,
        /// The member.
        peer: PeerId,
        /// Sends to it.
        carrier: Carrier,
    },
    /// The carrier broke; another may follow.
    CarrierClosed {
        /// On this connection.
        connection: ConnectionId,
    },
    /// Datagrams came on the carrier, in the order in which they were sent.
    Frames {
        /// On this connection.
        connection: ConnectionId,
        /// The datagrams.
        frames: Frames,
    },
    /// A peer asks; [`Command::Respond`] answers within half a minute.
    Request {
        /// Its number.
        request: RequestId,
        /// Who asks.
        peer: PeerId,
        /// A stranger only joins.
        protocol: Protocol,
        /// The message.
        body: Vec<u8>,
    },
    /// The result of [`Command::Request`].
    Response {
        /// Of that request.
        token: u64,
        /// Who was asked.
        peer: PeerId,
        /// The answer, or why there is none.
        outcome: Result<Vec<u8>, String>,
    },
    /// The result of [`Command::AskAdmin`].
    AdminAnswer {
        /// Who was asked.
        peer: PeerId,
        /// The question.
        asking: administration::asking::Asking,
        /// The answer, or why there is none.
        outcome: Result<Vec<u8>, Unanswered>,
    },
    /// [`Command::Dial`] reached nobody.
    DialFailed {
        /// Who was dialed.
        peer: PeerId,
        /// Why, for each address.
        error: String,
    },
    /// mDNS found a node on this site, of any network.
    Discovered {
        /// Who it says it is.
        peer: PeerId,
        /// Where.
        addresses: Vec<Multiaddr>,
    },
    /// The DHT has this. A member put it there; whether it is true is for the core to judge.
    Found {
        /// Where.
        key: Vec<u8>,
        /// What.
        value: Vec<u8>,
    },
    /// The DHT has this entry of the registry. Whether it is true is for the core to judge.
    FoundEntry {
        /// Where.
        slot: Vec<u8>,
        /// What.
        sealed: Vec<u8>,
        /// In whose part; none if in ours.
        from: Option<PeerId>,
    },
    /// A [`Command::Lookup`] has found all that it will.
    LookedUp {
        /// Where.
        key: Vec<u8>,
        /// Members near it who had nothing.
        without: Vec<PeerId>,
    },
    /// A member wants us to keep an entry of the registry: [`Command::KeepEntry`] does so.
    EntryOffered {
        /// Who brought it; seldom its owner.
        from: PeerId,
        /// Where.
        slot: Vec<u8>,
        /// What.
        sealed: Vec<u8>,
        /// What lies there now.
        kept: Option<Vec<u8>>,
    },
    /// A member put something into the DHT that broke a rule; it was not kept.
    Rejected(Rejection),
    /// Our addresses changed: these are all.
    Addresses(Addresses),
    /// Whether we relay for others changed.
    Relaying(bool),
}
