//! Everything the core may ask the shell to do. Datagrams and packets travel in batches of their own
//! ([`crate::batch`]); these are the rarer things.

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;

use crate::{
    connection::ConnectionId,
    membership::{NoticeId, UnixTime},
    node::Standing,
};

/// A request that came in and wants one answer. The shell gives out the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// One thing to do, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection to a member by whichever of the addresses answers.
    Dial {
        /// Who must answer.
        peer: PeerId,
        /// Where, direct and relayed.
        addresses: Vec<Multiaddr>,
        /// Another connection to this peer is no reason to refrain.
        even_if_connected: bool,
    },
    /// Close a connection that is not needed any more.
    Close(ConnectionId),
    /// The credential shown on this connection is good.
    Admit(ConnectionId),
    /// The credential shown on this connection is not; the reason is for our log alone.
    Refuse {
        /// The connection.
        connection: ConnectionId,
        /// The rule that was broken.
        reason: String,
    },
    /// Show this record, ours, to whoever proves that it knows the network; in place of any earlier one.
    Introduce(Vec<u8>),
    /// Send a sync message to a connected member. Its answer comes back by `Node::handle_sync_answer`.
    Sync {
        /// To whom.
        peer: PeerId,
        /// The encoded message.
        body: Vec<u8>,
    },
    /// Answer a request.
    Respond {
        /// Which.
        request: RequestId,
        /// The encoded answer.
        body: Vec<u8>,
    },
    /// Mark an invite as used on the disk, then send `accepted`; if somebody else was first or the disk does not
    /// take it, send `refused`. An admission is never answered before it is safe.
    Redeem {
        /// Which request is answered.
        request: RequestId,
        /// The invite's id.
        invite: [u8; 32],
        /// Who used it and what they got.
        redemption: Vec<u8>,
        /// The admission.
        accepted: Vec<u8>,
        /// The refusal.
        refused: Vec<u8>,
    },
    /// Keep a member's record.
    SaveRecord {
        /// Whose.
        peer: PeerId,
        /// Encoded.
        record: Vec<u8>,
    },
    /// A member is no more.
    ForgetRecord(PeerId),
    /// Keep a notice: who was expelled, who may act for the authority, which policy is in force.
    SaveNotice {
        /// What tells it from every other.
        id: NoticeId,
        /// Encoded.
        notice: Vec<u8>,
    },
    /// A notice has been replaced by another.
    ForgetNotice(NoticeId),
    /// Send a message of the join protocol to a connected node. Its answer comes back by
    /// `Node::handle_renewal_answer`, or none by `Node::handle_renewal_failed`.
    AskRenewal {
        /// Whom.
        peer: PeerId,
        /// The encoded message.
        body: Vec<u8>,
    },
    /// Whether the others take us for a member has changed.
    Standing(Standing),
    /// Another policy is in force: its body. None when there is no policy any more, and the default applies.
    PolicyChanged(Option<Vec<u8>>),
    /// This node is no member any more: it has no place reserved.
    Departed(PeerId),
    /// Remember the sequence number of our descriptor before anybody sees it.
    SaveDescriptorSeq(u64),
    /// Remember the latest moment we know of, so that a clock set back revives nothing.
    SaveTimeFloor(UnixTime),
    /// Our certificate was renewed: keep it.
    SaveCredential(Vec<u8>),
    /// Put our record into the DHT.
    Publish {
        /// Where: a keyed hash, so that outsiders cannot ask for it.
        key: [u8; 32],
        /// Our encoded record.
        record: Vec<u8>,
    },
    /// Ask the DHT for a member's newest record.
    Lookup {
        /// Where it lies.
        key: [u8; 32],
    },
    /// Send a message of the registry to a connected member. Its answer comes back by `Node::handle_registry_answer`, or
    /// none by `Node::handle_registry_failed`.
    Registry {
        /// To whom.
        peer: PeerId,
        /// The encoded message.
        body: Vec<u8>,
    },
    /// Keep an entry of the registry, in place of what is kept in its slot.
    SaveEntry {
        /// Its place in the DHT, which tells it from every other.
        slot: [u8; 32],
        /// Sealed.
        sealed: Vec<u8>,
    },
    /// Nothing of an entry need be remembered any more.
    ForgetEntry {
        /// Its place.
        slot: [u8; 32],
    },
    /// Put an entry of ours into the DHT.
    PublishEntry {
        /// Where.
        slot: [u8; 32],
        /// Sealed.
        sealed: Vec<u8>,
    },
    /// Ask the DHT for an entry. What it has comes back by `Node::handle_found_entry`.
    LookupEntry {
        /// Where it lies.
        slot: [u8; 32],
    },
    /// The members that offer to relay, with where they are reached.
    Relays(Vec<(PeerId, Vec<Multiaddr>)>),
    /// Our overlay IPv4 address changed: an older member holds the one we had, or let it go.
    SetIpv4(Option<std::net::Ipv4Addr>),
}
