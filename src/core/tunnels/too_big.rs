//! A packet that is longer than its path carries: cut where its sender allows it, else answered.

use std::time::Instant;

use super::Tunnels;
use crate::{
    drop_reason::DropReason, fragment::Fragments, icmp, ip_packet::IpPacket, peer::PeerIndex,
};

impl Tunnels {
    /// Lets `packet` pass in pieces of at most `mtu` bytes, or has the local kernel send shorter ones.
    pub(super) fn send_too_big(
        &mut self,
        index: PeerIndex,
        packet: &IpPacket<'_>,
        mtu: u16,
        now: Instant,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).ok_or(DropReason::NoOwner)?;
        if let Some(mut fragments) = Fragments::of(packet, mtu) {
            while fragments.write_next(&mut self.rewritten) {
                peer.send(&self.rewritten, &mut self.sealing, now)?;
            }
            return Ok(());
        }
        if icmp::packet_too_big(packet, mtu, &mut self.rewritten) && self.icmp_budget.pay(now) {
            self.inbox.push(&self.rewritten);
        }
        Err(DropReason::PacketTooBig)
    }
}
