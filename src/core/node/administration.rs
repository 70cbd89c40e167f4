//! Who may act on this node: what the directory knows of whoever asks.

use std::collections::BTreeMap;

use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::membership::{
    Administration, Name, Roles,
    administration::{Site, Step, message::Refusal},
};

impl Node {
    /// A message of a member that wants to act on this node. `listed` is what the configuration gives to members, by peer
    /// id or by the name in their certificate.
    pub fn administer(
        &mut self,
        administration: &mut Administration,
        listed: &BTreeMap<String, Roles>,
        from: &PeerId,
        message: &[u8],
        now: Now,
    ) -> Step {
        if self.directory.get(from).is_none() {
            let why = Refusal::NotAdministrator;
            return Step::Refused { user: None, why };
        }
        let listed = self.listed(listed, from);
        let site = Site {
            signer: &self.signer,
            network: self.network.id(),
            unix: self.time.now(now.unix),
            instant: now.instant,
        };
        administration.handle(from, listed, message, &site)
    }

    /// What the list gives to a member.
    fn listed(&self, listed: &BTreeMap<String, Roles>, member: &PeerId) -> Roles {
        let by_id = listed.get(&member.to_string()).copied();
        let by_name = self
            .certified_name(member)
            .and_then(|name| listed.get(name.as_str()).copied());
        by_id.unwrap_or_default() | by_name.unwrap_or_default()
    }

    /// The name that a member was admitted under, if nobody else was: a name in two certificates is nobody's. What a
    /// member calls itself does not count.
    fn certified_name(&self, member: &PeerId) -> Option<&Name> {
        let name = &self.directory.get(member)?.certificate.name;
        let mut bearers = self
            .directory
            .members()
            .filter(|other| other.certificate.name == *name);
        (bearers.next().is_some() && bearers.next().is_none()).then_some(name)
    }
}
