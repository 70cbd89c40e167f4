//! Which policy is in force, who the members are to its rules, and what it says of a pair.

use std::collections::BTreeSet;

use libp2p_identity::PeerId;

use super::Node;
use crate::policy::{Exposed, Mode, Policy, Selector, Subject, Test, Traffic, Verdict};

impl Node {
    /// The policy in force.
    pub fn policy_in_force(&self) -> &Policy {
        self.tunnels.filter().policy()
    }

    /// What this node publishes: everybody may reach it when the policy's mode is "published".
    pub fn exposed(&self) -> &Exposed {
        self.tunnels.filter().exposed()
    }

    /// Publishes these services and no others.
    pub fn set_exposed(&mut self, exposed: Exposed) {
        self.tunnels.set_exposed(exposed);
    }

    /// Brings the policy into force that was set last, or else the founder's.
    pub(super) fn enforce_policy(&mut self) {
        let body = self.policy().map(|(_, body)| Policy::decode(body));
        let policy = match body {
            None => Policy::of(self.network.genesis().policy_mode()),
            Some(Ok(policy)) => policy,
            Some(Err(reason)) => {
                tracing::error!(%reason, "the network has a policy that this node cannot read: until it can, nothing may begin here");
                Policy::of(Mode::Closed)
            }
        };
        self.tunnels.set_policy(policy);
    }

    /// A member as rules see it.
    pub fn subject(&self, peer: &PeerId) -> Subject {
        let Some(member) = self.directory.get(peer) else {
            return Subject::unknown(*peer);
        };
        let name = &member.certificate.name;
        let is_its = self.directory.is_named(peer, name);
        Subject {
            peer: Some(*peer),
            name: is_its.then(|| name.clone()),
            groups: member.certificate.groups.clone(),
        }
    }

    /// Who a selector means, if it means one member and there is such a one.
    pub fn selected(&self, selector: &Selector) -> Option<Subject> {
        let peer = match selector {
            Selector::Everyone | Selector::Group(_) => return None,
            Selector::Node(name) => self.directory.namesakes(name).find(|peer| {
                let member = self.directory.get(peer);
                member.is_some_and(|member| member.certificate.name == *name)
            })?,
            Selector::Peer(peer) => *peer,
        };
        self.directory.get(&peer).map(|_| self.subject(&peer))
    }

    /// What the policy in force says, and why. Of another node it is not known here what it publishes.
    pub fn trace(&self, from: &Subject, to: &Subject, traffic: Traffic) -> Verdict<'_> {
        let is_us = to.peer == Some(self.peer_id());
        let exposed = is_us.then(|| self.exposed());
        self.policy_in_force().decide(from, to, traffic, exposed)
    }

    /// The tests of a policy that do not come out as they should in this network.
    pub fn failed_tests<'a>(&self, policy: &'a Policy) -> Vec<(&'a Test, Verdict<'a>)> {
        policy.failed_tests(|selector| self.selected(selector))
    }

    /// Tells the filter who a member is now, and who those are that share its name: one of them has it.
    pub(super) fn identify(&mut self, peer: &PeerId) {
        let certified = self.directory.get(peer).map(|m| m.certificate.name.clone());
        let before = self.tunnels.subject(peer).and_then(|s| s.name.clone());
        let names = certified.iter().chain(&before);
        let mut concerned: BTreeSet<_> = names
            .flat_map(|name| self.directory.namesakes(name))
            .collect();
        concerned.insert(*peer);
        for peer in &concerned {
            let subject = self.subject(peer);
            if *peer == self.peer_id() {
                self.tunnels.set_own_subject(subject);
            } else {
                self.tunnels.set_subject(peer, subject);
            }
        }
    }
}
