//! Who was a member and is none now: expired while it was away, or expelled.
//!
//! Its name, groups and seniority are kept for a while, so that a node that was switched off for
//! longer than its certificate lived can come back by itself, and an expelled one can be restored as
//! what it was. It claims nothing meanwhile: name and address are free for others.

use std::{collections::BTreeMap, time::Duration};

use libp2p_identity::PeerId;

use super::{record::Member, time::UnixTime};

/// A former member is remembered for so long after its last certificate ran out.
pub const MEMORY: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Former members that are remembered at the most; those go first whose certificates ran out first.
const MAX_FORMER: usize = 1024;

#[derive(Debug, Clone, Default)]
pub(super) struct Former(BTreeMap<PeerId, Member>);

impl Former {
    /// Remembers a member that is none any more, unless that is too long ago. Answers who is
    /// forgotten, perhaps this one.
    pub fn remember(&mut self, member: Member, now: UnixTime) -> Option<PeerId> {
        let peer = member.peer_id;
        if is_over(&member, now) {
            return Some(peer);
        }
        match self.0.get(&peer) {
            Some(known) if known.certificate.serial > member.certificate.serial => {}
            Some(_) | None => drop(self.0.insert(peer, member)),
        }
        if self.0.len() <= MAX_FORMER {
            return None;
        }
        let members = self.0.values();
        let oldest = members.min_by_key(|member| (member.certificate.not_after, member.peer_id));
        let oldest = oldest.map(|member| member.peer_id)?;
        self.0.remove(&oldest);
        Some(oldest)
    }

    /// It is a member again.
    pub fn came_back(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Forgets whose time is over.
    pub fn expire(&mut self, now: UnixTime) -> Vec<PeerId> {
        let over = self.0.values().filter(|member| is_over(member, now));
        let gone: Vec<PeerId> = over.map(|member| member.peer_id).collect();
        gone.iter().for_each(|peer| drop(self.0.remove(peer)));
        gone
    }

    pub fn get(&self, peer: &PeerId) -> Option<&Member> {
        self.0.get(peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }
}

fn is_over(member: &Member, now: UnixTime) -> bool {
    now > member.certificate.not_after.plus(MEMORY)
}
