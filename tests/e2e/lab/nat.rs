//! Routers: what each kind of NAT does, in nftables.

use std::net::IpAddr;

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
    /// As port-restricted, and all UDP is dropped.
    NoUdp,
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
            | Self::NoUdp => true,
            Self::Firewall | Self::Open => false,
        }
    }

    /// The ruleset of a router with the legs `wan` and `lan`.
    pub(super) fn rules(self, wan: &str, first_host: &str) -> String {
        let source = match self {
            Self::PortRestricted | Self::FullCone | Self::NoUdp => {
                "oifname wan masquerade".to_owned()
            }
            Self::Symmetric => "oifname wan masquerade fully-random".to_owned(),
            Self::Remapping => format!(
                "oifname wan meta l4proto {{ tcp, udp }} th sport 7777 snat ip to {wan}:17777\n    oifname wan masquerade"
            ),
            Self::Firewall | Self::Open => String::new(),
        };
        let destination = match self {
            Self::FullCone => format!(
                "iifname wan meta l4proto {{ tcp, udp }} th dport >= 1024 dnat ip to {first_host}"
            ),
            Self::PortRestricted
            | Self::Symmetric
            | Self::Remapping
            | Self::NoUdp
            | Self::Firewall
            | Self::Open => String::new(),
        };
        let outbound = match self {
            Self::NoUdp => "iifname lan meta l4proto != udp accept",
            Self::PortRestricted
            | Self::Symmetric
            | Self::Remapping
            | Self::FullCone
            | Self::Firewall
            | Self::Open => "iifname lan accept",
        };
        let inbound = if self == Self::Open {
            "iifname wan accept"
        } else {
            ""
        };
        format!(
            "table inet lab {{
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
}

/// A running router.
#[derive(Clone)]
pub struct Router {
    namespace: String,
    wan: IpAddr,
}

impl Router {
    pub(super) fn new(namespace: String, wan: String) -> Self {
        Self {
            namespace,
            wan: wan.parse().expect("the builder writes addresses"),
        }
    }

    /// Its address on the internet.
    pub fn wan(&self) -> IpAddr {
        self.wan
    }

    /// From now on drops all UDP it should forward, or lets it pass again.
    pub fn block_udp(&self, block: bool) {
        self.hole(if block { "meta l4proto udp drop" } else { "" });
    }

    /// From now on drops everything to and from one address, or lets all pass again.
    pub fn block_address(&self, address: Option<IpAddr>) {
        self.hole(&address.map_or_else(String::new, |address| {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            format!("{family} daddr {address} drop\n    {family} saddr {address} drop")
        }));
    }

    /// Forgets all mappings, as a router that was restarted.
    pub fn flush_conntrack(&self) {
        let status = namespace::command(&self.namespace, "conntrack")
            .args(["-F"])
            .output();
        assert!(
            status.is_ok_and(|output| output.status.success()),
            "conntrack -F failed; is conntrack installed?"
        );
    }

    /// Replaces the rule in front of all others.
    fn hole(&self, rule: &str) {
        namespace::nft(
            &self.namespace,
            &format!(
                "flush chain inet lab hole\ntable inet lab {{\n  chain hole {{\n    {rule}\n  }}\n}}\n"
            ),
        );
    }
}
