//! What connects two interfaces: an ordinary cable, or a [`Link`] that takes its time.

use std::sync::{Arc, Mutex, MutexGuard};

use super::link::{Link, Running};
use super::namespace;

/// One end of a cable: an interface in a namespace.
#[derive(Clone)]
pub struct End {
    pub namespace: String,
    pub interface: String,
}

/// A cable that is plugged in at both ends: first at a switch, then at a host or router.
#[derive(Clone)]
pub struct Cable(Arc<Mutex<[End; 2]>>);

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
        Self::between(ends)
    }

    /// One that behaves as `link` says, for as long as the second value lives.
    pub fn over(link: Link, ends: [End; 2]) -> (Self, Running) {
        let running = Running::start(link, &ends);
        (Self::between(ends), running)
    }

    fn between(ends: [End; 2]) -> Self {
        Self(Arc::new(Mutex::new(ends)))
    }

    fn ends(&self) -> MutexGuard<'_, [End; 2]> {
        self.0.lock().expect("nobody panics with a cable in hand")
    }

    /// From now on carries packets of at most `bytes`. What is longer vanishes at a switch, as it does in reality; only
    /// hosts and routers know an answer.
    pub fn set_mtu(&self, bytes: u32) {
        for End {
            namespace,
            interface,
        } in self.ends().iter()
        {
            namespace::ip(
                namespace,
                &format!("link set dev {interface} mtu {bytes}\n"),
            );
        }
    }

    /// Switches the switch's port off or on again. The other end sees that it has no carrier, and keeps its addresses
    /// and routes.
    pub fn set_carrier(&self, on: bool) {
        let [port, _] = &*self.ends();
        let state = if on { "up" } else { "down" };
        namespace::ip(
            &port.namespace,
            &format!("link set dev {} {state}\n", port.interface),
        );
    }

    /// Pulls the cable out of its switch and plugs it into the bridge of another, into a new port. (Ordinary cables only.)
    pub fn move_to(&self, (switch, bridge): (&str, &str), new_port: &str) {
        let [port, _] = &mut *self.ends();
        let End {
            namespace,
            interface,
        } = std::mem::replace(
            port,
            End {
                namespace: switch.to_owned(),
                interface: new_port.to_owned(),
            },
        );
        namespace::ip(
            &namespace,
            &format!(
                "link set dev {interface} down nomaster\nlink set dev {interface} netns {switch} name {new_port}\n"
            ),
        );
        namespace::ip(
            switch,
            &format!("link set dev {new_port} master {bridge} up\n"),
        );
    }
}
