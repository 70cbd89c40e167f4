//! Routes on Linux, over netlink.

use std::io;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};
use nix::errno::Errno;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::Clash;
use crate::netlink::{Conversation, outputs};

pub(super) fn add(interface: &str, network: IpNet) -> io::Result<()> {
    Conversation::open()?.add_route(if_nametoindex(interface)?, network)
}

pub(super) fn remove(interface: &str, network: IpNet) -> io::Result<()> {
    let index = match if_nametoindex(interface) {
        Err(Errno::ENODEV) => return Ok(()),
        result => result?,
    };
    match Conversation::open()?.remove_route(index, network) {
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
        result => result,
    }
}

/// Shows all IPv4 routes that lead somewhere.
pub(super) fn visit_routes(mut visit: impl FnMut(Clash)) -> io::Result<()> {
    Conversation::open()?.visit_ipv4_routes(|route| {
        if route.header.kind != RouteType::Unicast {
            return;
        }
        let Some(network) = destination(&route) else {
            return;
        };
        for index in outputs(&route) {
            // Fails for an interface that has gone in between.
            let Ok(name) = if_indextoname(index) else {
                continue;
            };
            visit(Clash {
                interface: name.to_string_lossy().into_owned(),
                network,
            });
        }
    })
}

/// `None` for a default route, which has no destination.
fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(RouteAddress::Inet(address)) = attribute else {
            return None;
        };
        Some(*address)
    });
    Ipv4Net::new(address?, route.header.destination_prefix_length).ok()
}

/// The next hop of the default route with the best metric.
pub(super) fn default_gateway() -> io::Result<Option<Ipv4Addr>> {
    let mut best: Option<(u32, Ipv4Addr)> = None;
    Conversation::open()?.visit_ipv4_routes(|route| {
        let header = &route.header;
        if header.kind != RouteType::Unicast
            || header.table != RouteHeader::RT_TABLE_MAIN
            || header.destination_prefix_length != 0
        {
            return;
        }
        let (mut metric, mut gateway) = (0, None);
        for attribute in &route.attributes {
            if let RouteAttribute::Priority(priority) = attribute {
                metric = *priority;
            } else if let RouteAttribute::Gateway(RouteAddress::Inet(address)) = attribute {
                gateway = Some(*address);
            }
        }
        if let Some(gateway) = gateway
            && best.is_none_or(|(least, _)| metric < least)
        {
            best = Some((metric, gateway));
        }
    })?;
    Ok(best.map(|(_, gateway)| gateway))
}
