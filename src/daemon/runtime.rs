//! The thread that the network side of one network runs on.

use std::thread::JoinHandle;

use anyhow::{Context, Result};
use hivevpn_platform::priority;
use tokio::{
    runtime::{Handle, Runtime},
    sync::oneshot,
};
use tracing::Span;

/// Drives a runtime until told to end.
pub(super) struct RuntimeThread {
    handle: Handle,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl RuntimeThread {
    /// Starts what was spawned on the runtime so far.
    pub(super) fn start(runtime: Runtime, span: Option<Span>) -> Result<Self> {
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let drive = move || {
            priority::be_ordinary();
            let _inside = span.map(Span::entered);
            // The other end says so, or is gone.
            let _ = runtime.block_on(ended);
        };
        let thread = std::thread::Builder::new()
            .name("hivevpn-swarm".to_owned())
            .spawn(drive)
            .context("cannot start the network side of this node")?;
        Ok(Self {
            handle,
            end,
            thread,
        })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends it, and with it every connection that is still open.
    pub(super) fn end(self) {
        let _ = self.end.send(());
        if self.thread.join().is_err() {
            tracing::error!("the network side of this node panicked");
        }
    }
}
