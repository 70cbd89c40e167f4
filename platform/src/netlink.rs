//! Talking to the Linux kernel about interfaces, addresses and routes.
//!
//! A [`Conversation`] is one netlink socket, used like a function call: a request goes out, its answer comes back.
//! Setting something up takes a handful of requests once per start, so nothing here is asynchronous.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressMessage,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkHeader, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Room for one answer. The kernel never sends more than 32 KiB at once.
const ANSWER_SIZE: usize = 64 * 1024;

/// A netlink socket of the network namespace of the thread that opened it.
pub(crate) struct Conversation {
    socket: Socket,
    sequence: u32,
    answer: Vec<u8>,
}

impl Conversation {
    pub(crate) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            answer: Vec::with_capacity(ANSWER_SIZE),
        })
    }

    /// Asks for a change of the interface with this index.
    pub(crate) fn change_link(
        &mut self,
        index: u32,
        attributes: Vec<LinkAttribute>,
    ) -> io::Result<()> {
        self.set_link(
            LinkHeader {
                index,
                ..LinkHeader::default()
            },
            attributes,
        )
    }

    /// Brings the interface up.
    pub(crate) fn set_link_up(&mut self, index: u32) -> io::Result<()> {
        let header = LinkHeader {
            index,
            flags: LinkFlags::Up,
            change_mask: LinkFlags::Up,
            ..LinkHeader::default()
        };
        self.set_link(header, Vec::new())
    }

    fn set_link(&mut self, header: LinkHeader, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header = header;
        message.attributes = attributes;
        self.command(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Gives the interface an address, usable at once, and the route to the network around it.
    pub(crate) fn add_address(&mut self, index: u32, network: IpNet) -> io::Result<()> {
        let mut message = address(index, network);
        if network.addr().is_ipv6() {
            // Nobody else can have the address: skip the second that duplicate detection (RFC 4862) would take.
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.command(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes an address from the interface, and the route to the network around it.
    pub(crate) fn remove_address(&mut self, index: u32, network: IpNet) -> io::Result<()> {
        self.command(RouteNetlinkMessage::DelAddress(address(index, network)), 0)
    }

    /// Adds a route; [`io::ErrorKind::AlreadyExists`] when there is one to the same network.
    pub(crate) fn add_route(&mut self, index: u32, network: IpNet) -> io::Result<()> {
        let message = route(index, network);
        self.command(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Removes the route to `network` through this interface and no other.
    pub(crate) fn remove_route(&mut self, index: u32, network: IpNet) -> io::Result<()> {
        self.command(RouteNetlinkMessage::DelRoute(route(index, network)), 0)
    }

    /// Shows every IPv4 route of every table to `visit`.
    pub(crate) fn visit_ipv4_routes(
        &mut self,
        mut visit: impl FnMut(RouteMessage),
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        self.send(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        self.receive(|message| {
            if let RouteNetlinkMessage::NewRoute(route) = message {
                visit(route);
            }
        })
    }

    /// Shows every interface and then every address of every interface to `visit`, as if each had just been made.
    pub(crate) fn visit_links_and_addresses(
        &mut self,
        mut visit: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.send(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            NLM_F_DUMP,
        )?;
        self.receive(&mut visit)?;
        self.send(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_DUMP,
        )?;
        self.receive(&mut visit)
    }

    /// Removes an interface.
    #[cfg(test)]
    pub(crate) fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.command(RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Adds a default route over a router.
    #[cfg(test)]
    pub(crate) fn add_default_gateway(
        &mut self,
        gateway: std::net::Ipv4Addr,
        metric: u32,
    ) -> io::Result<()> {
        let mut message = route(0, IpNet::from(IpAddr::from([0; 4])));
        message.header.destination_prefix_length = 0;
        message.header.scope = RouteScope::Universe;
        message.attributes = vec![
            RouteAttribute::Gateway(gateway.into()),
            RouteAttribute::Priority(metric),
        ];
        self.command(
            RouteNetlinkMessage::NewRoute(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Takes an interface down.
    #[cfg(test)]
    pub(crate) fn set_link_down(&mut self, index: u32) -> io::Result<()> {
        self.set_link(
            LinkHeader {
                index,
                change_mask: LinkFlags::Up,
                ..LinkHeader::default()
            },
            Vec::new(),
        )
    }

    /// Sends a request for a change and waits until the kernel has carried it out or refused it.
    fn command(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(message, NLM_F_ACK | flags)?;
        self.receive(|_| ())
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads the answer to the last request to its end, which is an acknowledgement, a refusal, or the mark behind the
    /// last of many messages.
    fn receive(&mut self, mut visit: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            self.answer.clear();
            self.socket.recv(&mut self.answer, 0)?;
            let mut rest = self.answer.as_slice();
            while let Some((message, after)) = split_message(rest) {
                rest = after;
                // A message of a newer kernel that this library cannot read is none that we need.
                let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message)
                else {
                    continue;
                };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                if let NetlinkPayload::InnerMessage(message) = message.payload {
                    visit(message);
                } else if let NetlinkPayload::Error(error) = message.payload {
                    return if error.code.is_some() {
                        Err(error.to_io())
                    } else {
                        Ok(())
                    };
                } else if let NetlinkPayload::Done(_) = message.payload {
                    return Ok(());
                }
            }
        }
    }
}

/// The interfaces a route leads to: one, or several when it balances load.
pub(crate) fn outputs(route: &RouteMessage) -> Vec<u32> {
    let mut outputs = Vec::new();
    for attribute in &route.attributes {
        if let RouteAttribute::Oif(index) = attribute {
            outputs.push(*index);
        } else if let RouteAttribute::MultiPath(hops) = attribute {
            outputs.extend(hops.iter().map(|hop| hop.interface_index));
        }
    }
    outputs
}

/// The first message of a datagram of the kernel's and what follows it. Each starts with its length and is padded to 4
/// bytes.
pub(crate) fn split_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let message = bytes.get(..length).filter(|message| !message.is_empty())?;
    Some((
        message,
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

fn address(index: u32, network: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header = AddressHeader {
        family: family(network.addr()),
        prefix_len: network.prefix_len(),
        index,
        ..AddressHeader::default()
    };
    message.attributes = vec![
        AddressAttribute::Local(network.addr()),
        AddressAttribute::Address(network.addr()),
    ];
    message
}

fn route(index: u32, network: IpNet) -> RouteMessage {
    let network = network.trunc();
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(network.addr()),
        destination_prefix_length: network.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Link,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![
        RouteAttribute::Destination(network.addr().into()),
        RouteAttribute::Oif(index),
    ];
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
