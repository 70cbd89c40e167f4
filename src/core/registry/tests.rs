//! One reader, and members who write well or badly.

mod forged;
mod merging;
mod messages;
mod rules;
mod schemas;

use std::time::Duration;

use super::{
    Entry, Key, Replica, Rules,
    replica::{Held, Put},
    seal::Sealing,
    validator::Pipeline,
};
use crate::membership::{
    Rejection, Signer, UnixTime,
    testing::{Hive, NOW, founder, signer},
};

const HOUR: Duration = Duration::from_secs(3600);

/// What somebody writes; what is not said is as it should be.
#[derive(Debug, Clone)]
struct Draft {
    owner: Signer,
    key: Key,
    seq: u64,
    issued: UnixTime,
    lifetime: Duration,
    value: Option<Vec<u8>>,
}

/// Of member 1.
fn draft(place: &str, value: &[u8]) -> Draft {
    Draft {
        owner: signer(1),
        key: key(place),
        seq: NOW.as_millis(),
        issued: NOW,
        lifetime: HOUR,
        value: Some(value.to_vec()),
    }
}

fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// A network of its founder and the members 1 and 2, and what one of its nodes has read.
struct Reader {
    hive: Hive,
    sealing: Sealing,
    rules: Rules,
    replica: Replica,
    now: UnixTime,
}

impl Reader {
    fn new() -> Reader {
        let mut hive = Hive::founded();
        hive.admit(&signer(1), "one", None);
        hive.admit(&signer(2), "two", None);
        Reader {
            sealing: Sealing::of(&hive.network),
            hive,
            rules: Rules::new(),
            replica: Replica::default(),
            now: NOW,
        }
    }

    fn pipeline(&self) -> Pipeline<'_> {
        Pipeline {
            network: &self.hive.network,
            sealing: &self.sealing,
            directory: &self.hive.directory,
            rules: &self.rules,
            replica: &self.replica,
            now: self.now,
        }
    }

    fn sealed(&self, draft: Draft) -> Vec<u8> {
        let network = self.hive.network.id();
        self.sealing.seal(&Entry::sign(
            &draft.owner,
            network,
            &draft.key,
            draft.seq,
            draft.issued,
            draft.lifetime,
            draft.value,
        ))
    }

    fn judge(&self, sealed: &[u8]) -> Result<Held, Rejection> {
        let passed = self.pipeline().arrival(sealed, None);
        passed
            .map(|passed| passed.held)
            .map_err(|refused| refused.reason)
    }

    fn take_sealed(&mut self, sealed: &[u8]) -> Result<Put, Rejection> {
        let held = self.judge(sealed)?;
        Ok(self.replica.put(held, self.now))
    }

    fn take(&mut self, draft: Draft) -> Result<Put, Rejection> {
        let sealed = self.sealed(draft);
        self.take_sealed(&sealed)
    }

    /// What may be read under a key.
    fn read(&self, place: &str) -> Vec<&[u8]> {
        let pipeline = self.pipeline();
        let held = self
            .replica
            .all()
            .filter(|held| held.entry.key.as_str() == place);
        held.filter(|held| pipeline.reading(held).is_ok())
            .filter_map(|held| held.entry.value.as_deref())
            .collect()
    }
}
