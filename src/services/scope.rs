//! Who may use what is exposed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use hivevpn_core::policy::Selector;
use libp2p::PeerId;
use tokio::sync::watch;

use super::{Snapshot, snapshot::Member};

/// The members that may use it, as of now.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Everyone, if empty.
    to: BTreeSet<Selector>,
    snapshots: watch::Receiver<Snapshot>,
}

/// Who is being served: an address at a time is one member's, later perhaps another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// Where it comes from.
    pub from: SocketAddr,
    /// Which address of ours it came to.
    pub to: IpAddr,
    /// Who it is.
    pub member: PeerId,
}

impl Scope {
    /// These members, or everyone.
    pub fn new(to: BTreeSet<Selector>, snapshots: watch::Receiver<Snapshot>) -> Self {
        Self { to, snapshots }
    }

    /// The member who comes from there, if it may.
    pub fn guest(&self, from: SocketAddr, to: IpAddr) -> Option<Guest> {
        let snapshot = self.snapshots.borrow();
        let member = snapshot.member_at(from.ip())?;
        let may = member.this || member.is_among(&self.to);
        may.then_some(Guest {
            from,
            to,
            member: member.peer_id,
        })
    }

    /// Whether it still may.
    pub fn includes(&self, guest: &Guest) -> bool {
        self.guest(guest.from, guest.to) == Some(*guest)
    }

    /// Our addresses on the overlay.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        let snapshot = self.snapshots.borrow();
        let us = snapshot.us().into_iter();
        us.flat_map(Member::addresses).collect()
    }

    /// Returns when there may be something new of all that. Never, when there is nobody left to tell.
    pub async fn changed(&mut self) {
        if self.snapshots.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
