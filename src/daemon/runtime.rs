//! The threads of one network beside its loop: of its network side, and of its services.

use std::thread::JoinHandle;

use anyhow::{Context, Result};
use hivevpn_platform::priority;
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};
use tracing::Span;

use crate::services;

/// Drives a runtime until told to end.
pub(super) struct RuntimeThread {
    handle: Handle,
    end: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl RuntimeThread {
    /// Starts what was spawned on the runtime so far.
    pub(super) fn start(runtime: Runtime, name: &str, span: Option<Span>) -> Result<Self> {
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = start_thread(name, span, move || {
            // The other end says so, or is gone.
            let _ = runtime.block_on(ended);
        })?;
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
            tracing::error!("a thread of this node panicked");
        }
    }
}

/// Starts the services on a thread of their own: what they carry must not keep the network side waiting. It ends when the
/// data loop has gone and everything of theirs is undone.
pub(super) fn run_services(parts: services::Parts) -> Result<JoinHandle<()>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the services of this node")?;
    start_thread("services", Some(Span::current()), move || {
        let books = runtime.block_on(services::run(parts));
        // With it ends every request that was under way, and is counted.
        drop(runtime);
        books.save_here();
    })
}

fn start_thread(
    name: &str,
    span: Option<Span>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>> {
    let work = move || {
        priority::be_ordinary();
        let _inside = span.map(Span::entered);
        work();
    };
    std::thread::Builder::new()
        .name(format!("hivevpn-{name}"))
        .spawn(work)
        .with_context(|| format!("cannot start the thread of the {name}"))
}
