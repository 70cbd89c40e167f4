//! What connects two interfaces: an ordinary cable, or a [`Link`] that takes its time.

use super::link::{Link, Running};
use super::namespace;

/// One end of a cable: an interface in a namespace.
#[derive(Clone)]
pub struct End {
    pub namespace: String,
    pub interface: String,
}

/// A cable that is plugged in at both ends.
#[derive(Clone)]
pub struct Cable([End; 2]);

impl Cable {
    /// An ordinary one: as long as nothing, as fast as the machine.
    pub fn ordinary(ends: [End; 2]) -> Self {
        let [a, b] = &ends;
        namespace::ip(
            &a.namespace,
            &format!(
                "link add name {} type veth peer name {} netns {}\n",
                a.interface, b.interface, b.namespace
            ),
        );
        Self(ends)
    }

    /// One that behaves as `link` says, for as long as the second value lives.
    pub fn over(link: Link, ends: [End; 2]) -> (Self, Running) {
        let running = Running::start(link, &ends);
        (Self(ends), running)
    }

    /// From now on carries packets of at most `bytes`. What is longer vanishes at a switch, as it does in reality; only
    /// hosts and routers know an answer.
    pub fn set_mtu(&self, bytes: u32) {
        for End {
            namespace,
            interface,
        } in &self.0
        {
            namespace::ip(
                namespace,
                &format!("link set dev {interface} mtu {bytes}\n"),
            );
        }
    }
}
