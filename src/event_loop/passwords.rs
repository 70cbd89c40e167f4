//! The password that admits others, set and cleared.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::{membership::PasswordRecord, node::Now};
use zeroize::Zeroizing;

use super::EventLoop;

impl EventLoop {
    /// On the disk first: the old password must not come back with the next start.
    pub(super) fn set_password(&mut self, record: Option<String>, now: Now) -> Result<()> {
        self.node.may_set_password(now)?;
        let record = record.map(|text| decode(&text)).transpose()?;
        let encoded = record.as_ref().map(PasswordRecord::encode);
        self.store
            .save_password(encoded.as_ref().map(|bytes| bytes.as_slice()))?;
        match record {
            Some(_) => tracing::info!("the network's password was changed"),
            None => tracing::info!("the network's password was cleared"),
        }
        self.node.set_password(record);
        Ok(())
    }
}

fn decode(text: &str) -> Result<PasswordRecord> {
    let bytes = Zeroizing::new(BASE64.decode(text)?);
    PasswordRecord::decode(&bytes)
        .context("the password's record is damaged: is it another version?")
}
