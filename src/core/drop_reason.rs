//! Why a packet or a datagram went no further: one counter for each reason.

use std::fmt;

/// The reason that ended a packet's or datagram's walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Outbound: not a whole IP packet.
    NotIp,
    /// Outbound: no peer owns the destination address.
    NoOwner,
    /// Outbound: to a group or to everybody, which a tunnel to one peer cannot mean.
    Multicast,
    /// Outbound: no session yet and the few waiting places are taken.
    QueueFull,
    /// Outbound: the peer is reached by no path at the moment.
    NoPath,
    /// Outbound: the source is none of our overlay addresses.
    ForeignSource,
    /// Either way: longer than a datagram can be.
    TooLong,
    /// Outbound: longer than the path in use carries; its sender was told, unless told too often.
    PacketTooBig,
    /// Inbound: no WireGuard message, or one of the wrong length.
    Malformed,
    /// Inbound: no session has this index.
    UnknownSession,
    /// Inbound: a handshake by a key that no member announced.
    UnknownPeer,
    /// Inbound: failed authentication.
    Unauthentic,
    /// Inbound: seen before, or too old for the window.
    Replayed,
    /// Inbound: too many handshakes at the moment.
    UnderLoad,
    /// Inbound: authentic, but what it carries is no IP packet.
    InnerNotIp,
    /// Inbound: the inner source address belongs to somebody else.
    ForgedSource,
    /// Inbound: the inner destination is none of our addresses.
    NotForUs,
    /// Inbound: a packet in the session that keys are exchanged in, which carries none.
    Downgraded,
    /// Inbound: the policy does not let its sender begin this.
    PolicyDenied,
    /// Outbound: the destination's policy would refuse it, as far as is known here.
    PolicyRefused,
    /// Either way: an answer, an error or a part of a conversation that is not known here and may not begin.
    NoFlow,
    /// Inbound: a message of another version's core, or a damaged one.
    UnknownSignal,
    /// Relayed: the channel is none of ours, or leads to nobody now.
    UnknownChannel,
    /// Relayed: more than the owner of this node allows.
    RelayLimit,
}

impl DropReason {
    /// Every reason, in the order of the counters.
    pub const ALL: [DropReason; 24] = [
        Self::NotIp,
        Self::NoOwner,
        Self::Multicast,
        Self::QueueFull,
        Self::NoPath,
        Self::ForeignSource,
        Self::TooLong,
        Self::PacketTooBig,
        Self::Malformed,
        Self::UnknownSession,
        Self::UnknownPeer,
        Self::Unauthentic,
        Self::Replayed,
        Self::UnderLoad,
        Self::InnerNotIp,
        Self::ForgedSource,
        Self::NotForUs,
        Self::Downgraded,
        Self::PolicyDenied,
        Self::PolicyRefused,
        Self::NoFlow,
        Self::UnknownSignal,
        Self::UnknownChannel,
        Self::RelayLimit,
    ];

    /// Stable name for machines.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::NoOwner => "no_owner",
            Self::Multicast => "multicast",
            Self::QueueFull => "queue_full",
            Self::NoPath => "no_path",
            Self::ForeignSource => "foreign_source",
            Self::TooLong => "too_long",
            Self::PacketTooBig => "packet_too_big",
            Self::Malformed => "malformed",
            Self::UnknownSession => "unknown_session",
            Self::UnknownPeer => "unknown_peer",
            Self::Unauthentic => "unauthentic",
            Self::Replayed => "replayed",
            Self::UnderLoad => "under_load",
            Self::InnerNotIp => "inner_not_ip",
            Self::ForgedSource => "forged_source",
            Self::NotForUs => "not_for_us",
            Self::Downgraded => "downgraded",
            Self::PolicyDenied => "policy_denied",
            Self::PolicyRefused => "policy_refused",
            Self::NoFlow => "no_flow",
            Self::UnknownSignal => "unknown_signal",
            Self::UnknownChannel => "unknown_channel",
            Self::RelayLimit => "relay_limit",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One counter for each [`DropReason`].
#[derive(Debug, Clone, Default)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// Counts one drop.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many were dropped for `reason`.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.of(reason)))
            .filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_every_reason_at_its_own_place() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(place, reason as usize, "{reason}");
        }
    }
}
