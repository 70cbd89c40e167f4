//! Whether the others take us for a member, as far as we know, and what we do if not.

use super::{Node, Now};
use crate::{
    membership::{Rejection, UnixTime},
    output::Output,
};

/// What our own certificate is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// We are a member.
    Member,
    /// Our certificate has run out. A node that may admit members will renew it if it remembers us.
    Lapsed,
    /// The delegation that our certificate rests on has been ended, and nobody has given us another one yet.
    Unsupported,
    /// We were expelled.
    Expelled {
        /// When, as whoever did it says.
        at: UnixTime,
        /// Why, as whoever did it says.
        reason: String,
    },
}

impl Node {
    /// Whether we are a member, as far as we know.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(super) fn is_member(&self) -> bool {
        self.standing == Standing::Member
    }

    /// What the notices and the time say of our own certificate.
    fn judged(&self, unix: UnixTime) -> Standing {
        let notices = self.directory.notices();
        match notices.check(&self.certificate, &self.basis) {
            Err(Rejection::Revoked) => match notices.revocation_of(&self.certificate.subject) {
                Some((revocation, _)) => Standing::Expelled {
                    at: revocation.revoked_at,
                    reason: revocation.reason.clone(),
                },
                None => Standing::Unsupported,
            },
            Err(_) => Standing::Unsupported,
            Ok(()) if unix > self.certificate.not_after => Standing::Lapsed,
            Ok(()) => Standing::Member,
        }
    }

    /// Looks at our own certificate again, and withdraws from the network or comes back to it.
    pub(super) fn judge_ourselves(&mut self, now: Now) {
        let unix = self.time.now(now.unix);
        let standing = self.judged(unix);
        if standing == self.standing {
            return;
        }
        let was_member = self.is_member();
        self.standing = standing;
        self.outputs
            .push_back(Output::Standing(self.standing.clone()));
        match &self.standing {
            Standing::Member => {
                tracing::info!("this node is a member again");
                self.come_back(now);
            }
            Standing::Lapsed => tracing::error!(
                "our certificate has expired: asking those who may admit members for a new one"
            ),
            Standing::Unsupported => tracing::error!(
                "our certificate rests on a delegation that has been ended: asking for a new one"
            ),
            Standing::Expelled { reason, .. } => tracing::error!(
                %reason,
                "this node was expelled from the network: it carries no packets until an administrator restores it"
            ),
        }
        if was_member {
            self.withdraw();
        }
    }

    /// Ends every tunnel and connection. Who the members are is still known: one of them may have a new certificate.
    fn withdraw(&mut self) {
        let us = self.peer_id();
        let others = self.directory.members().map(|member| member.peer_id);
        for peer in others.filter(|peer| *peer != us) {
            self.tunnels.remove(&peer);
            self.outputs.extend(self.connections.unwant(&peer));
        }
    }

    fn come_back(&mut self, now: Now) {
        self.announce_ourselves(now);
        let us = self.peer_id();
        let members = self.directory.members().map(|member| member.peer_id);
        let others: Vec<_> = members.filter(|peer| *peer != us).collect();
        for peer in &others {
            self.apply(peer, now);
        }
        self.offer_relays();
        self.tend_registry(now);
    }
}
