//! For tests: a network of one's own.

use std::panic::resume_unwind;
use std::thread;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

use crate::netlink::Conversation;
use crate::privileges;

/// Runs `test` in a new network namespace with only a loopback interface, up. The namespace belongs to one thread and
/// goes away with it and the descriptors opened there.
pub(crate) fn run<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    run_isolated(|| {
        let loopback = if_nametoindex("lo").expect("every namespace has a loopback interface");
        Conversation::open()
            .and_then(|mut kernel| kernel.set_link_up(loopback))
            .expect("we may configure interfaces");
        test()
    })
}

/// Like [`run`], but loopback stays down.
pub(crate) fn run_isolated<T: Send>(test: impl FnOnce() -> T + Send) -> Option<T> {
    if !privileges::may_configure_interfaces() {
        println!("skipped: needs CAP_NET_ADMIN");
        return None;
    }
    let in_namespace = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace needs CAP_SYS_ADMIN");
        test()
    };
    thread::scope(|scope| {
        Some(
            scope
                .spawn(in_namespace)
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic)),
        )
    })
}
