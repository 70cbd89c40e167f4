//! Between the loop and the services, which run beside it: what they read, and what they have published.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hivevpn_core::{
    membership::address,
    node::{MemberStatus, Now, ServiceStatus},
    policy::Exposed,
    registry,
};
use tokio::sync::oneshot;

use super::EventLoop;
use crate::{
    control::{Reply, services::Ask},
    services::{
        Asked, Desk, Snapshot, Told,
        snapshot::{Member, Taken},
    },
};

/// What changes all the time, round trips above all, is told this often; never while nothing happens.
const PERIOD: Duration = Duration::from_secs(1);
/// What was added or taken away is told no more often than this.
const PAUSE: Duration = Duration::from_millis(50);

/// The loop's end.
pub(super) struct ServicesDesk {
    desk: Desk,
    /// What the configuration publishes.
    publish: Exposed,
    told_at: Option<Instant>,
    /// The registry as it was told.
    services: Arc<Vec<ServiceStatus>>,
    told: u64,
    /// When what has happened since is to be told.
    next: Option<Instant>,
}

impl ServicesDesk {
    pub(super) fn new(desk: Desk, publish: Exposed) -> Self {
        Self {
            desk,
            publish,
            told_at: None,
            services: Arc::default(),
            told: 0,
            next: None,
        }
    }

    /// When [`tell_services`](EventLoop::tell_services) is wanted next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Passes a command's question on.
    pub(super) fn ask(&self, ask: Ask, answer: oneshot::Sender<Reply>) {
        if let Err(error) = self.desk.asked.try_send(Asked { ask, answer }) {
            let asked = error.into_inner();
            let busy = "the services of this node are too busy to answer".to_owned();
            // Whoever asked may have gone.
            let _ = asked.answer.send(Reply::Error(busy));
        }
    }
}

impl EventLoop {
    /// Tells the services what has changed.
    pub(super) fn tell_services(&mut self, now: Now) {
        let changes = self.node.registry_changes();
        let desk = &mut self.services;
        let is_changed = changes != desk.told || desk.told_at.is_none();
        let pause = if is_changed { PAUSE } else { PERIOD };
        let due = desk.told_at.map(|at| at + pause);
        desk.next = due.filter(|due| now.instant < *due);
        if desk.next.is_some() {
            return;
        }
        desk.told_at = Some(now.instant);
        if is_changed {
            desk.told = changes;
            desk.services = self.node.services().into();
        }
        let snapshot = self.snapshot(now);
        self.services.desk.snapshots.send_if_modified(|told| {
            let is_news = *told != snapshot;
            *told = snapshot;
            is_news
        });
    }

    fn snapshot(&self, now: Now) -> Snapshot {
        let members = self.node.members();
        let members = members.into_iter().map(|member| self.snapshot_of(member));
        let genesis = self.node.network().genesis();
        Snapshot {
            network: genesis.name().to_string(),
            ranges: vec![
                genesis.ipv4_prefix().into(),
                address::ipv6_prefix(&genesis.id()).into(),
            ],
            interface: self.tun.name().to_owned(),
            members: members.collect::<Vec<_>>().into(),
            services: self.services.services.clone(),
            admits_by_password: self.node.has_password(),
            taken: Taken(now.unix),
        }
    }

    fn snapshot_of(&self, member: MemberStatus) -> Member {
        let this = member.peer_id == self.node.peer_id();
        let peer = self.node.peer(&member.peer_id);
        let rtt = peer.and_then(|peer| peer.path).and_then(|path| path.rtt);
        Member {
            certified: self.node.subject(&member.peer_id).name,
            name: member.name,
            peer_id: member.peer_id,
            ipv4: member.ipv4,
            ipv6: member.ipv6,
            groups: member.groups,
            online: member.online,
            rtt: rtt.map(|rtt| Duration::from_millis((rtt.as_micros() as u64).div_ceil(1000))),
            this,
        }
    }

    /// What the services of this node tell.
    pub(super) fn on_services(&mut self, told: Told, now: Now) {
        match told {
            Told::Publish {
                name,
                service,
                answer,
            } => {
                let lifetime = registry::service::LIFETIME;
                let taken = self
                    .node
                    .publish_service(&name, &service, lifetime, now)
                    .map_err(|reason| reason.to_string());
                // Whoever asked may have gone.
                let _ = answer.send(taken);
            }
            Told::Withdraw { name } => {
                if let Err(reason) = self.node.withdraw_service(&name, now) {
                    tracing::warn!(service = %name, %reason, "it is not withdrawn");
                }
            }
            Told::Exposed(exposed) => {
                let published = self.services.publish.union(&exposed).copied().collect();
                self.node.set_exposed(published);
            }
            Told::Load { name, load } => self.node.set_load(&name, load, now),
        }
    }
}
