//! What this node offers, and what it knows of the offers of others.

use std::time::Duration;

use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::{
    membership::{Name, Rejection, UnixTime},
    registry::{Load, Service},
};

/// A service of a member, this node included.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceStatus {
    /// Whose.
    pub owner: PeerId,
    /// What its owner calls it.
    pub name: Name,
    /// What it is.
    pub service: Service,
    /// How busy it is, if its owner says.
    pub load: Option<Load>,
    /// When its entry was signed.
    pub issued: UnixTime,
    /// When it is gone, unless it is renewed before.
    pub expires: UnixTime,
}

impl Node {
    /// The services of all members, by name and owner.
    pub fn services(&self) -> Vec<ServiceStatus> {
        Vec::new()
    }

    /// Tells everybody that we offer this, in place of what we offered by that name, for so long.
    pub fn publish_service(
        &mut self,
        _name: &Name,
        _service: &Service,
        _lifetime: Duration,
        _now: Now,
    ) -> Result<(), Rejection> {
        Ok(())
    }

    /// Tells everybody that we do not offer it any more.
    pub fn withdraw_service(&mut self, _name: &Name, _now: Now) -> Result<(), Rejection> {
        Ok(())
    }

    /// Tells connected members how busy a service of ours is.
    pub fn set_load(&mut self, _name: &Name, _load: Load, _now: Now) {}

    /// Another number whenever [`services`](Self::services) has changed.
    pub fn registry_changes(&self) -> u64 {
        0
    }
}
