//! Notices of the Linux kernel, over netlink.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::libc::{
    RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK,
};

use crate::netlink::{Conversation, outputs, split_message};

const GROUPS: i32 =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;

/// The routing table of this machine's own addresses.
const RT_TABLE_LOCAL: u8 = 255;

/// Room for what the kernel sends at once.
const NOTICE_SIZE: usize = 32 * 1024;

/// Datagrams read in one go. More leave the socket readable, so that a storm of notices delays nobody.
const NOTICES: usize = 256;

pub(super) struct Notices {
    socket: Socket,
    picture: Picture,
    buffer: Vec<u8>,
}

impl Notices {
    pub(super) fn open(overlay: &str) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, GROUPS.unsigned_abs()))?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        let mut notices = Self {
            socket,
            picture: Picture::new(overlay),
            buffer: Vec::with_capacity(NOTICE_SIZE),
        };
        // After the socket, so that nothing falls between the two.
        notices.look_around()?;
        Ok(notices)
    }

    pub(super) fn drain(&mut self) -> bool {
        let mut changed = false;
        for _ in 0..NOTICES {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => changed |= self.read(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // There was more than the socket could hold; anything may be among it.
                    changed = true;
                    if error.raw_os_error() != Some(Errno::ENOBUFS as i32) {
                        tracing::debug!(%error, "a notice of a change to the network is lost");
                    }
                    if let Err(error) = self.look_around() {
                        tracing::debug!(%error, "cannot look at the machine's interfaces");
                    }
                }
            }
        }
        changed
    }

    /// Draws the picture anew.
    fn look_around(&mut self) -> io::Result<()> {
        let picture = &mut self.picture;
        picture.links.clear();
        picture.addresses.clear();
        Conversation::open()?.visit_links_and_addresses(|message| {
            picture.change(&message);
        })
    }

    /// Takes the notices of one datagram in. Returns whether one of them counts.
    fn read(&mut self) -> bool {
        let mut changed = false;
        let mut rest = self.buffer.as_slice();
        while let Some((message, after)) = split_message(rest) {
            rest = after;
            // What this library cannot read is of a newer kernel, and none of the attributes that are of use here.
            let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) else {
                continue;
            };
            if let NetlinkPayload::InnerMessage(message) = message.payload {
                changed |= self.picture.change(&message);
            }
        }
        changed
    }
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What is known of the machine's network, interfaces by their index.
struct Picture {
    overlay_name: String,
    overlay: Option<u32>,
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<(u32, IpAddr)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Link {
    running: bool,
    /// Grows when the cable is pulled and plugged in again faster than the kernel tells of it.
    carrier_changes: Option<u32>,
}

impl Picture {
    fn new(overlay: &str) -> Self {
        Self {
            overlay_name: overlay.to_owned(),
            overlay: None,
            links: BTreeMap::new(),
            addresses: BTreeSet::new(),
        }
    }

    /// Takes a notice in. Returns whether it counts.
    fn change(&mut self, message: &RouteNetlinkMessage) -> bool {
        if let RouteNetlinkMessage::NewLink(link) = message {
            self.link(link, true)
        } else if let RouteNetlinkMessage::DelLink(link) = message {
            self.link(link, false)
        } else if let RouteNetlinkMessage::NewAddress(address) = message {
            self.address(address, true)
        } else if let RouteNetlinkMessage::DelAddress(address) = message {
            self.address(address, false)
        } else if let RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) =
            message
        {
            self.leads_elsewhere(route)
        } else {
            false
        }
    }

    fn link(&mut self, link: &LinkMessage, exists: bool) -> bool {
        // A bridge tells of its ports in the same words.
        if link.header.interface_family != AddressFamily::Unspec {
            return false;
        }
        let index = link.header.index;
        if exists {
            self.find_overlay(link);
        }
        let new = exists.then(|| Link {
            running: link.header.flags.contains(LinkFlags::Running),
            carrier_changes: link.attributes.iter().find_map(|attribute| {
                let LinkAttribute::CarrierChanges(count) = attribute else {
                    return None;
                };
                Some(*count)
            }),
        });
        let old = match new {
            Some(link) => self.links.insert(index, link),
            None => self.links.remove(&index),
        };
        let of_use = |link: Option<Link>| link.is_some_and(|link| link.running);
        let counts = new != old && (of_use(new) || of_use(old)) && self.has_address(index);
        if !exists {
            self.addresses.retain(|(owner, _)| *owner != index);
        }
        counts
    }

    fn find_overlay(&mut self, link: &LinkMessage) {
        let is_overlay = link.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::IfName(name) if *name == self.overlay_name)
        });
        // One that has gone keeps its number, because the notices of its routes may come later.
        if is_overlay {
            self.overlay = Some(link.header.index);
        } else if self.overlay == Some(link.header.index) {
            self.overlay = None;
        }
    }

    fn has_address(&self, index: u32) -> bool {
        let first = (index, IpAddr::from([0; 4]));
        self.addresses
            .range(first..)
            .next()
            .is_some_and(|(owner, _)| *owner == index)
    }

    fn address(&mut self, address: &AddressMessage, exists: bool) -> bool {
        let index = address.header.index;
        let Some(ip) = own(address) else { return false };
        if self.overlay == Some(index) || is_local(ip) {
            return false;
        }
        // While it is checked whether another machine has it, an address cannot be used.
        let unusable = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
        let changed = if exists && !address.header.flags.intersects(unusable) {
            self.addresses.insert((index, ip))
        } else {
            self.addresses.remove(&(index, ip))
        };
        changed && self.links.get(&index).is_none_or(|link| link.running)
    }

    /// Whether a route that came or went may concern the underlay.
    fn leads_elsewhere(&self, route: &RouteMessage) -> bool {
        let header = &route.header;
        // Those of one's own addresses come and go with them.
        let own = header.table == RT_TABLE_LOCAL;
        let cached = header.flags.contains(RouteFlags::Cloned);
        if own
            || cached
            || header.kind == RouteType::Multicast
            || destination(route).is_some_and(is_local)
        {
            return false;
        }
        let outputs = outputs(route);
        outputs.is_empty() || outputs.iter().any(|index| self.overlay != Some(*index))
    }
}

/// The address of the interface. On point-to-point interfaces `Address` is that of the other end.
fn own(address: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &address.attributes {
        if let AddressAttribute::Local(ip) = attribute {
            return Some(*ip);
        } else if let AddressAttribute::Address(ip) = attribute {
            found = Some(*ip);
        }
    }
    found
}

/// `None` for a default route, which has no destination.
fn destination(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(destination) = attribute else {
            return None;
        };
        match destination {
            RouteAddress::Inet(ip) => Some((*ip).into()),
            RouteAddress::Inet6(ip) => Some((*ip).into()),
            _ => None,
        }
    })
}

/// Whether `ip` is good for this machine or this wire alone. No path leads from there.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_multicast(),
    }
}
