//! What one member may cost the others: the news about it that are passed on, and the work it asks of us.
//!
//! The newest record of a member counts at once, here. But it is saved and passed on only so often, so that one who
//! signs a thousand descriptors a second does not make everybody gossip and write a thousand times. And whatever a
//! member sends costs some of what it may have looked at; beyond, it is not read, and directories are compared later.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use libp2p_identity::PeerId;

use super::{Node, Now};
use crate::{
    allowance::Allowances,
    membership::{Rejection, SyncMessage, directory::MAX_MEMBERS},
    output::Output,
};

/// News about one member that are saved and passed on at once.
pub const NEWS_BURST: u32 = 10;
/// And one more in this time.
pub const NEWS_PERIOD: Duration = Duration::from_secs(1);

/// What one member may have looked at at once, in signatures to check or what takes as long: half a second of work.
pub const WORK_BURST: u32 = 2048;
/// And one more in this time: about a hundredth of a processor.
const WORK_PERIOD: Duration = Duration::from_micros(1_000_000 / 64);
/// What it costs to answer a digest, with some hundred kilobytes of records.
pub(super) const DIGEST_WORK: u32 = 32;
/// Bytes of a message that cost as much as a signature, only to be read.
const BYTES_OF_WORK: usize = 16 << 10;

/// What members have had lately.
#[derive(Debug)]
pub(super) struct Restraint {
    news: Allowances<PeerId>,
    work: Allowances<PeerId>,
    /// Of whom there is something to pass on when it may be, and who told it last.
    held: BTreeMap<PeerId, Option<PeerId>>,
    next: Option<Instant>,
}

impl Restraint {
    pub fn new() -> Self {
        Self {
            // Those who are no more are remembered for a while: nobody waits for their place.
            news: Allowances::new(NEWS_BURST, NEWS_PERIOD, 2 * MAX_MEMBERS),
            work: Allowances::new(WORK_BURST, WORK_PERIOD, 2 * MAX_MEMBERS),
            held: BTreeMap::new(),
            next: None,
        }
    }

    /// When something that was held may be passed on.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Node {
    /// Saves and passes on what is new about a member, now or when it may be.
    pub(super) fn pass_on(&mut self, about: PeerId, from: Option<PeerId>, now: Instant) {
        if self.restraint.news.take(about, 1, now) {
            self.restraint.held.remove(&about);
            return self.pass_on_now(about, from);
        }
        self.restraint.held.insert(about, from);
        let due = self.restraint.news.next(&about, 1, now);
        let next = self.restraint.next;
        self.restraint.next = Some(next.map_or(due, |next| next.min(due)));
    }

    fn pass_on_now(&mut self, about: PeerId, from: Option<PeerId>) {
        let Some(member) = self.directory.get(&about) else {
            return;
        };
        let record = member.record.encode();
        self.outputs.push_back(Output::SaveRecord {
            peer: about,
            record: record.clone(),
        });
        self.announce(SyncMessage::announcement(record), Some(about), from);
    }

    /// Passes on what was held for long enough: of each member the newest alone.
    pub(super) fn pass_on_held(&mut self, now: Instant) {
        if self.restraint.next.is_none_or(|next| now < next) {
            return;
        }
        self.restraint.next = None;
        for (about, from) in std::mem::take(&mut self.restraint.held) {
            self.pass_on(about, from, now);
        }
    }

    /// Whether this member may have so much looked at. If not, directories are compared with it later.
    pub(super) fn works_for(&mut self, peer: PeerId, work: u32, now: Now) -> bool {
        let is_allowed = self.may_work_for(peer, work, now);
        if !is_allowed {
            let resync = self.resync.get(&peer);
            if resync.is_none_or(|resync| resync.due.is_none()) {
                self.handle_sync_failed(peer, now);
            }
        }
        is_allowed
    }

    /// The same, of something that is not of the directory.
    pub(super) fn may_work_for(&mut self, peer: PeerId, work: u32, now: Now) -> bool {
        let is_allowed = self.restraint.work.take(peer, work, now.instant);
        if !is_allowed {
            self.rejections.count(&Rejection::TooMuch);
        }
        is_allowed
    }
}

/// What it costs to read a message.
pub(super) fn work_to_read(message: &[u8]) -> u32 {
    1 + (message.len() / BYTES_OF_WORK) as u32
}
