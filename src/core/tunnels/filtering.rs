//! What the policy does to packets, beside letting them pass: it answers those that it stops.

use std::time::Instant;

use libp2p_identity::PeerId;

use super::Tunnels;
use crate::{
    icmp,
    ip_packet::IpPacket,
    peer::PeerIndex,
    policy::{Answer, Denial, Exposed, Filter, Policy, Subject, reset},
};

impl Tunnels {
    /// Another policy is in force. Flows that live are looked at again when their next packet comes.
    pub fn set_policy(&mut self, policy: Policy) {
        self.filter.set_policy(policy);
    }

    /// What everybody may reach here when the policy's mode is "published".
    pub fn set_exposed(&mut self, exposed: Exposed) {
        self.filter.set_exposed(exposed);
    }

    /// Who we are, as rules see it.
    pub fn set_own_subject(&mut self, us: Subject) {
        self.filter.set_us(us);
    }

    /// Who a peer is, as rules see it.
    pub fn set_subject(&mut self, id: &PeerId, subject: Subject) {
        let index = self.peers.index_of(id);
        if let Some(peer) = index.and_then(|index| self.peers.get_mut(index)) {
            peer.guard_mut().set_subject(subject);
        }
    }

    /// Who a peer is, as rules see it.
    pub fn subject(&self, id: &PeerId) -> Option<&Subject> {
        self.peer(id).map(|peer| peer.guard().subject())
    }

    /// The policy in force, who we are, what we publish.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// When there are too many flows, lets go of those that have ended.
    pub(super) fn sweep_flows(&mut self, now: Instant) {
        if self.filter.wants_sweep(now) {
            for peer in self.peers.iter_mut() {
                peer.guard_mut().sweep(&mut self.filter, now);
            }
        }
    }

    /// Tells the local sender of a packet that its destination would refuse it.
    pub(super) fn answer_refused(&mut self, packet: &IpPacket<'_>, denial: Denial, now: Instant) {
        let is_answered = match denial.answer {
            Answer::Silence => false,
            Answer::Refusal | Answer::RefusalToBoth => {
                reset::refusing(packet, &mut self.rewritten)
                    || icmp::prohibited(packet, &mut self.rewritten) && self.icmp_budget.pay(now)
            }
        };
        if is_answered {
            self.inbox.push(&self.rewritten);
        }
    }

    /// Tells a peer that the packet of `length` bytes in the inbox's slot, which it sent, is refused.
    pub(super) fn answer_denied(
        &mut self,
        index: PeerIndex,
        length: usize,
        denial: Denial,
        now: Instant,
    ) {
        if denial.answer == Answer::Silence {
            return;
        }
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let Some(packet) = IpPacket::parse(&self.inbox.slot(length)[..length]) else {
            return;
        };
        if reset::refusing(&packet, &mut self.rewritten)
            || icmp::prohibited(&packet, &mut self.rewritten) && peer.guard_mut().may_answer(now)
        {
            // One that cannot be sent is one that was lost.
            let _ = peer.send(&self.rewritten, &mut self.sealing, now);
        }
        if denial.answer == Answer::RefusalToBoth && reset::replacing(&packet, &mut self.rewritten)
        {
            self.inbox.push(&self.rewritten);
        }
    }
}
