//! Routers: what each kind of NAT does, in nftables.

use std::net::IpAddr;
use std::process::Command;

use super::cable::Cable;
use super::namespace;

/// What a router does to the traffic of the hosts behind it (RFC 4787 terms).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nat {
    /// Linux's plain `masquerade`, as most home routers: keeps the port, mapping independent of the
    /// destination, filtering by address and port.
    PortRestricted,
    /// A fresh random port for each destination: two such hosts can never reach each other directly.
    Symmetric,
    /// As port-restricted, but source port 7777 becomes 17777, as behind many carrier NATs.
    Remapping,
    /// Whoever sends to a mapped port gets through.
    FullCone,
    /// As full cone, but only for hosts that something was sent to.
    AddressRestricted,
    /// As port-restricted, and all UDP is dropped.
    NoUdp,
    /// As port-restricted, and only TCP to the ports of the web gets out: as in many offices.
    WebOnly,
    /// No translation; inbound only what belongs to an established flow.
    Firewall,
    /// No translation and no filter.
    Open,
}

impl Nat {
    /// Whether hosts behind it have private addresses.
    pub fn translates(self) -> bool {
        match self {
            Self::PortRestricted
            | Self::Symmetric
            | Self::Remapping
            | Self::FullCone
            | Self::AddressRestricted
            | Self::NoUdp
            | Self::WebOnly => true,
            Self::Firewall | Self::Open => false,
        }
    }

    /// The ruleset of a router with the legs `wan` and `lan`.
    pub(super) fn rules(self, wan: &str, first_host: &str) -> String {
        let Behaviour {
            outbound,
            inbound,
            source,
            destination,
        } = self.behaviour(wan, first_host);
        format!(
            "table inet lab {{
  set sent_to {{
    type ipv4_addr; flags dynamic,timeout; timeout 120s; size 65535;
  }}
  chain hole {{ }}
  chain forwarding {{
    type filter hook forward priority filter; policy drop;
    jump hole
    {outbound}
    ct state established,related accept
    ct status dnat accept
    {inbound}
  }}
  chain local {{
    type filter hook input priority filter; policy drop;
    iifname {{ lan, lo }} accept
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    icmp type echo-request accept
  }}
  chain mouth {{ }}
  chain sending {{
    type filter hook output priority filter;
    jump mouth
  }}
  chain translate_source {{
    type nat hook postrouting priority srcnat;
    {source}
  }}
  chain translate_destination {{
    type nat hook prerouting priority dstnat;
    {destination}
  }}
}}
"
        )
    }

    fn behaviour(self, wan: &str, first_host: &str) -> Behaviour {
        let home = Behaviour {
            outbound: "iifname lan accept".to_owned(),
            inbound: String::new(),
            source: "oifname wan masquerade".to_owned(),
            destination: String::new(),
        };
        let mapped_port = "meta l4proto { tcp, udp } th dport >= 1024";
        match self {
            Self::PortRestricted => home,
            Self::Symmetric => Behaviour {
                source: "oifname wan masquerade fully-random".to_owned(),
                ..home
            },
            Self::Remapping => Behaviour {
                source: format!(
                    "oifname wan meta l4proto {{ tcp, udp }} th sport 7777 snat ip to {wan}:17777\n    {}",
                    home.source
                ),
                ..home
            },
            Self::FullCone => Behaviour {
                destination: format!("iifname wan {mapped_port} dnat ip to {first_host}"),
                ..home
            },
            Self::AddressRestricted => Behaviour {
                outbound: format!(
                    "iifname lan update @sent_to {{ ip daddr }}\n    {}",
                    home.outbound
                ),
                destination: format!(
                    "iifname wan ip saddr @sent_to {mapped_port} dnat ip to {first_host}"
                ),
                ..home
            },
            Self::NoUdp => Behaviour {
                outbound: "iifname lan meta l4proto != udp accept".to_owned(),
                ..home
            },
            Self::WebOnly => Behaviour {
                outbound: "iifname lan tcp dport { 80, 443 } accept".to_owned(),
                ..home
            },
            Self::Firewall => Behaviour {
                source: String::new(),
                ..home
            },
            Self::Open => Behaviour {
                source: String::new(),
                inbound: "iifname wan accept".to_owned(),
                ..home
            },
        }
    }
}

/// What tells one kind of router from another, in nftables.
struct Behaviour {
    /// What hosts may send.
    outbound: String,
    /// What reaches them beside answers.
    inbound: String,
    /// Where what they send seems to come from.
    source: String,
    /// Where what is sent to the router goes.
    destination: String,
}

/// A running router.
#[derive(Clone)]
pub struct Router {
    namespace: String,
    wan: IpAddr,
    /// The network behind it, where others route to it.
    subnet: Option<String>,
    cable: Cable,
}

impl Router {
    pub(super) fn new(
        namespace: String,
        wan: String,
        subnet: Option<String>,
        cable: Cable,
    ) -> Self {
        Self {
            namespace,
            wan: wan.parse().expect("the builder writes addresses"),
            subnet,
            cable,
        }
    }

    /// Its address on the internet.
    pub fn wan(&self) -> IpAddr {
        self.wan
    }

    /// Its cable to the internet.
    pub fn cable(&self) -> &Cable {
        &self.cable
    }

    /// From now on drops all UDP it should forward, or lets it pass again.
    pub fn block_udp(&self, block: bool) {
        self.rule("hole", if block { "meta l4proto udp drop" } else { "" });
    }

    /// From now on drops all UDP to and from another router's hosts, or lets it pass again.
    pub fn block_udp_with(&self, peer: Option<&Self>) {
        let rule = peer.map_or_else(String::new, |peer| {
            let family = if peer.wan.is_ipv4() { "ip" } else { "ip6" };
            let hosts = peer.subnet.clone().unwrap_or(peer.wan.to_string());
            ["daddr", "saddr"]
                .map(|end| format!("{family} {end} {hosts} meta l4proto udp drop"))
                .join("\n    ")
        });
        self.rule("hole", &rule);
    }

    /// From now on drops everything to and from one address, or lets all pass again.
    pub fn block_address(&self, address: Option<IpAddr>) {
        let rule = address.map_or_else(String::new, |address| {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            format!("{family} daddr {address} drop\n    {family} saddr {address} drop")
        });
        self.rule("hole", &rule);
    }

    /// From now on does not tell the sender of a packet that it dropped it: a black hole. (IPv4 only.)
    pub fn mute(&self) {
        self.rule("mouth", "icmp type destination-unreachable drop");
    }

    /// From now on the way between two routers carries packets of at most `mtu` bytes: both cut what is longer, or
    /// tell its sender that it may not be cut.
    pub fn narrow(&self, peer: &Self, mtu: u32) {
        self.narrow_one_way(peer, mtu);
        peer.narrow_one_way(self, mtu);
    }

    fn narrow_one_way(&self, peer: &Self, mtu: u32) {
        let wan = peer.wan;
        let mut routes = format!("route replace {wan} dev wan mtu {mtu}\n");
        if let Some(subnet) = &peer.subnet {
            routes += &format!("route replace {subnet} via {wan} mtu {mtu}\n");
        }
        namespace::ip(&self.namespace, &routes);
    }

    /// A command that will run on the router.
    pub fn command(&self, program: &str) -> Command {
        namespace::command(&self.namespace, program)
    }

    /// Forgets all mappings, as a router that was restarted.
    pub fn flush_conntrack(&self) {
        let status = self.command("conntrack").args(["-F"]).output();
        assert!(
            status.is_ok_and(|output| output.status.success()),
            "conntrack -F failed; is conntrack installed?"
        );
    }

    /// Replaces the rules of one of the chains that come before all others.
    fn rule(&self, chain: &str, rule: &str) {
        namespace::nft(
            &self.namespace,
            &format!(
                "flush chain inet lab {chain}\ntable inet lab {{\n  chain {chain} {{\n    {rule}\n  }}\n}}\n"
            ),
        );
    }
}
