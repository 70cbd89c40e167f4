//! A small internet out of network namespaces.
//!
//! ```text
//!    203.0.113.11       203.0.113.12                      public hosts, directly on the internet
//!         |                  |
//!    =====+==================+=====+============+=====    a bridge in a namespace, 203.0.113.1 routes
//!                                  |            |
//!                            203.0.113.101  203.0.113.102   NAT routers, one nftables ruleset each
//!                                  |            |
//!                             10.0.1.10     10.0.2.10       the hosts behind them
//! ```
//!
//! A topology reads like a sentence:
//! `Lab::new().public("r").behind(Nat::PortRestricted, "a").behind(Nat::Symmetric, "b").build()`.
//!
//! Unsolicited packets to a router are dropped in silence. That matters: a RST or an ICMP error from
//! the router, or a conntrack entry left by an early packet it accepted, breaks hole punching in ways
//! that home routers do not.

mod cable;
mod capture;
mod host;
mod link;
mod namespace;
mod nat;
mod process;
mod rootless;
mod user;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

pub use capture::Capture;
pub use host::Host;
pub use link::Link;
pub use nat::{Nat, Router};
pub use process::{Outcome, Process};
pub use user::{TESTER, program};

use cable::{Cable, End};
use link::Running;
use namespace::Namespace;

/// Distinguishes the laboratories of one process, which libtest runs in parallel.
static NEXT_LAB: AtomicU32 = AtomicU32::new(0);

/// A running laboratory. Dropping it ends every process in it and removes namespaces and files.
pub struct Lab {
    hosts: BTreeMap<&'static str, Host>,
    routers: BTreeMap<&'static str, Router>,
    lans: BTreeMap<&'static str, Lan>,
    links: Vec<Running>,
    namespaces: Vec<Namespace>,
    directory: PathBuf,
}

impl Lab {
    /// Begins the sentence.
    #[allow(clippy::new_ret_no_self)] // reads as a sentence; there is no empty laboratory to return
    pub fn new() -> Builder {
        Builder {
            places: Vec::new(),
            underlay: Underlay::V4,
        }
    }

    /// The host of this name.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts
            .get(name)
            .unwrap_or_else(|| panic!("there is no host {name} in this laboratory"))
    }

    /// The router in front of the host of this name.
    pub fn router(&self, host: &str) -> &Router {
        self.routers
            .get(host)
            .unwrap_or_else(|| panic!("host {host} has no router"))
    }

    /// Pulls a host's cable and plugs it in on the LAN of `neighbour`, where the host gets another address. Its router
    /// is then the neighbour's, whatever [`Lab::router`] says.
    pub fn move_beside(&self, neighbour: &str, host: &str) {
        let lan = self
            .lans
            .get(neighbour)
            .unwrap_or_else(|| panic!("host {neighbour} has no LAN of its own"));
        let (address, port) = lan.lease();
        let host = self.host(host);
        host.cable().move_to((&lan.switch, "lan"), &port);
        host.set_address(&address, Some(&lan.gateway));
    }

    /// A directory for this laboratory's files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.links.clear(); // they would keep their namespaces
        self.namespaces.clear(); // ends the processes, which may still write files
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("lab: {} stays behind: {error}", self.directory.display());
        }
    }
}

/// The protocol that routers and public hosts speak.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Underlay {
    V4,
    V6,
}

/// Where a host stands.
enum Place {
    Public,
    Behind(Nat),
    /// On the LAN of an earlier host.
    Beside(&'static str),
    /// On the one switch of the laboratory that leads nowhere.
    Isolated,
}

/// The sentence so far.
pub struct Builder {
    places: Vec<(&'static str, Place, Option<Link>)>,
    underlay: Underlay,
}

impl Builder {
    /// A host directly on the internet.
    pub fn public(self, host: &'static str) -> Self {
        self.place(host, Place::Public)
    }

    /// A host behind a router of its own.
    pub fn behind(self, nat: Nat, host: &'static str) -> Self {
        self.place(host, Place::Behind(nat))
    }

    /// A host on the same LAN as `neighbour`.
    pub fn beside(self, neighbour: &'static str, host: &'static str) -> Self {
        self.place(host, Place::Beside(neighbour))
    }

    /// A host on a LAN without router and default route; all isolated hosts share it.
    pub fn isolated(self, host: &'static str) -> Self {
        self.place(host, Place::Isolated)
    }

    /// The cable of the host named last is such a link.
    pub fn over(mut self, link: Link) -> Self {
        let (_, _, cable) = self.places.last_mut().expect("a host comes first");
        *cable = Some(link);
        self
    }

    /// The whole underlay speaks IPv6 only (routers: [`Nat::Firewall`] or [`Nat::Open`]).
    pub fn ipv6_only(self) -> Self {
        Self {
            underlay: Underlay::V6,
            ..self
        }
    }

    fn place(mut self, host: &'static str, place: Place) -> Self {
        self.places.push((host, place, None));
        self
    }

    /// Makes it so.
    pub fn build(self) -> Lab {
        rootless::require_privilege();
        namespace::remove_leftovers_once();
        let lab = format!(
            "{}{}-{}",
            namespace::PREFIX,
            std::process::id(),
            NEXT_LAB.fetch_add(1, Ordering::Relaxed)
        );
        let directory = std::env::temp_dir().join(&lab);
        std::fs::create_dir_all(&directory).expect("temporary directories can be made");

        let mut site = Site {
            lab,
            directory,
            underlay: self.underlay,
            namespaces: Vec::new(),
            lans: BTreeMap::new(),
            publics: 0,
            links: Vec::new(),
        };
        site.lay_internet();
        let mut hosts = BTreeMap::new();
        let mut routers = BTreeMap::new();
        for (name, place, link) in self.places {
            let host = match place {
                Place::Public => site.public(name, link),
                Place::Behind(nat) => {
                    let router = site.router(nat, name);
                    routers.insert(name, router);
                    site.on_lan(name, name, link)
                }
                Place::Beside(neighbour) => {
                    if let Some(router) = routers.get(neighbour) {
                        routers.insert(name, router.clone());
                    }
                    site.on_lan(neighbour, name, link)
                }
                Place::Isolated => site.isolated(name, link),
            };
            hosts.insert(name, host);
        }
        Lab {
            hosts,
            routers,
            lans: site.lans,
            links: site.links,
            namespaces: site.namespaces,
            directory: site.directory,
        }
    }
}

/// The building site: what is needed while hosts are placed.
struct Site {
    lab: String,
    directory: PathBuf,
    underlay: Underlay,
    namespaces: Vec<Namespace>,
    /// First host on a LAN → the LAN.
    lans: BTreeMap<&'static str, Lan>,
    /// Public hosts so far.
    publics: usize,
    links: Vec<Running>,
}

/// A LAN behind a router: a bridge in the router's namespace.
struct Lan {
    number: usize,
    switch: String,
    /// Its addresses without their last group, and their prefix length.
    net: String,
    prefix: u8,
    gateway: String,
    /// Hosts that it has had.
    hosts: AtomicUsize,
}

impl Lan {
    /// The address of another host, and the port of the switch for its cable.
    fn lease(&self) -> (String, String) {
        let hosts = self.hosts.fetch_add(1, Ordering::Relaxed);
        let address = format!("{}{}/{}", self.net, 10 + hosts, self.prefix);
        (address, format!("h{}-{}", self.number, hosts + 1))
    }
}

/// The bridge that is the internet, in the namespace of the same name.
const INTERNET: &str = "net";
/// The bridge that leads nowhere.
const ISLAND: &str = "island";

impl Site {
    fn namespace(&mut self, name: &str) -> String {
        let namespace = Namespace::create(format!("{}-{name}", self.lab));
        let full = namespace.name().to_owned();
        self.namespaces.push(namespace);
        full
    }

    fn lay_internet(&mut self) {
        let net = self.namespace(INTERNET);
        namespace::route(&net);
        namespace::ip(
            &net,
            "link add internet type bridge forward_delay 0\nlink set internet up\n",
        );
        let address = match self.underlay {
            Underlay::V4 => "203.0.113.1/24",
            Underlay::V6 => "2001:db8::1/64",
        };
        namespace::ip(&net, &format!("addr add {address} dev internet\n"));
    }

    /// A cable from a new interface in `namespace` to a port of a bridge in `switch`.
    fn plug(
        &mut self,
        namespace: &str,
        interface: &str,
        (switch, bridge): (&str, &str),
        port: &str,
        link: Option<Link>,
    ) -> Cable {
        let end = |namespace: &str, interface: &str| End {
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
        };
        let ends = [end(switch, port), end(namespace, interface)];
        let cable = match link {
            None => Cable::ordinary(ends),
            Some(link) => {
                let (cable, running) = Cable::over(link, ends);
                self.links.push(running);
                cable
            }
        };
        namespace::ip(switch, &format!("link set dev {port} master {bridge} up\n"));
        namespace::ip(namespace, &format!("link set {interface} up\n"));
        cable
    }

    fn host(
        &self,
        name: &'static str,
        namespace: String,
        cable: Cable,
        address: &str,
        gateway: Option<&str>,
    ) -> Host {
        let host = Host::new(name, namespace, self.directory.join(name), cable);
        host.set_address(address, gateway);
        host
    }

    fn public(&mut self, name: &'static str, link: Option<Link>) -> Host {
        let net = format!("{}-{INTERNET}", self.lab);
        self.publics += 1;
        let number = 10 + self.publics;
        let namespace = self.namespace(name);
        let cable = self.plug(&namespace, "eth0", (&net, "internet"), name, link);
        let (address, gateway) = match self.underlay {
            Underlay::V4 => (format!("203.0.113.{number}/24"), "203.0.113.1"),
            Underlay::V6 => (format!("2001:db8::{number}/64"), "2001:db8::1"),
        };
        self.host(name, namespace, cable, &address, Some(gateway))
    }

    fn router(&mut self, nat: Nat, host: &'static str) -> Router {
        let net = format!("{}-{INTERNET}", self.lab);
        let number = self.lans.len() + 1;
        let port = format!("router{number}");
        let namespace = self.namespace(&port);
        let cable = self.plug(&namespace, "wan", (&net, "internet"), &port, None);
        namespace::route(&namespace);
        let (wan, hub, lan, prefix) = match self.underlay {
            Underlay::V4 if nat.translates() => (
                format!("203.0.113.{}", 100 + number),
                "203.0.113.1",
                format!("10.0.{number}."),
                24,
            ),
            Underlay::V4 => (
                format!("203.0.113.{}", 100 + number),
                "203.0.113.1",
                format!("198.51.{number}."),
                24,
            ),
            Underlay::V6 => (
                format!("2001:db8::{}", 100 + number),
                "2001:db8::1",
                format!("2001:db8:{number}::"),
                64,
            ),
        };
        let gateway = format!("{lan}1");
        let wan_prefix = if self.underlay == Underlay::V4 {
            24
        } else {
            64
        };
        namespace::ip(
            &namespace,
            &format!(
                "link add lan type bridge forward_delay 0\nlink set lan up\n\
                 addr add {wan}/{wan_prefix} dev wan\naddr add {gateway}/{prefix} dev lan\nroute add default via {hub}\n"
            ),
        );
        let subnet = (!nat.translates()).then(|| match prefix {
            24 => format!("{lan}0/24"),
            _ => format!("{lan}/64"),
        });
        if let Some(subnet) = &subnet {
            namespace::ip(&net, &format!("route add {subnet} via {wan}\n"));
        }
        let first_host = format!("{lan}10");
        namespace::nft(&namespace, &nat.rules(&wan, &first_host));
        self.lans.insert(
            host,
            Lan {
                number,
                switch: namespace.clone(),
                net: lan,
                prefix,
                gateway,
                hosts: AtomicUsize::new(0),
            },
        );
        Router::new(namespace, wan, subnet, cable)
    }

    fn on_lan(&mut self, first: &'static str, name: &'static str, link: Option<Link>) -> Host {
        let namespace = self.namespace(name);
        let lan = self
            .lans
            .get(first)
            .unwrap_or_else(|| panic!("host {first} is behind no router"));
        let (address, port) = lan.lease();
        let (switch, gateway) = (lan.switch.clone(), lan.gateway.clone());
        let cable = self.plug(&namespace, "eth0", (&switch, "lan"), &port, link);
        self.host(name, namespace, cable, &address, Some(&gateway))
    }

    fn isolated(&mut self, name: &'static str, link: Option<Link>) -> Host {
        let switch = format!("{}-{ISLAND}", self.lab);
        if !self
            .namespaces
            .iter()
            .any(|namespace| namespace.name() == switch)
        {
            self.namespace(ISLAND);
            namespace::ip(
                &switch,
                "link add lan type bridge forward_delay 0\nlink set lan up\n",
            );
        }
        let number = 10 + self.namespaces.len();
        let namespace = self.namespace(name);
        let cable = self.plug(&namespace, "eth0", (&switch, "lan"), name, link);
        let address = format!("192.168.7.{number}/24");
        self.host(name, namespace, cable, &address, None)
    }
}
