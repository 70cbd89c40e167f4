//! Merging packets for the kernel into bursts.
//!
//! A *flow* is one direction of a TCP connection or of a UDP conversation. Packets of a flow that continue each other
//! form a *group*, which the kernel gets as one frame: a header that speaks for all, then the payloads. The rules are
//! those of Linux' own receive offload. A packet joins the group of its flow when
//!
//! - it differs from the one before only where cutting a burst would make it differ: sequence number, IPv4 id, lengths,
//!   checksums, PSH;
//! - its payload is as long as those before it; a shorter one is the last, and so is a packet with PSH;
//! - the group has room: [`MAX_PACKETS`], and 65 535 bytes;
//! - its checksums are correct, for the kernel will not look at them again.
//!
//! Any other packet closes the group of its flow, so that packets of a flow never change order; one that belongs to no
//! flow we can name (fragments, ICMP) closes all groups. Groups leave in the order of their first packets. Packets are
//! changed in nothing: cutting a group gives back the packets it was made of, byte for byte, except that ids of atomic
//! IPv4 packets (RFC 6864), if they were all equal, come back counted up.

use std::io::IoSlice;

use super::MAX_PACKET;
use super::headers::{
    ACK, DONT_FRAGMENT, Headers, MAX_HEADERS, PSH, TCP_FLAGS, TCP_SEQUENCE, Transport, Version,
    long_number, number,
};
use super::vnet_header::{Burst, BurstKind, ChecksumPlace, VnetHeader};

/// Most packets in a group: more than a full one at the usual MTU has. The kernel refuses UDP bursts of more than 128.
const MAX_PACKETS: usize = 64;

/// Most groups that wait for their next packet. Looking for a packet's group takes longer the more there are; the
/// packets of a flow mostly come in runs anyway.
const MAX_OPEN: usize = 16;

/// Forms groups. Keeps nothing but memory from one batch to the next.
pub(crate) struct Coalescer {
    /// Whether the kernel takes UDP bursts.
    udp: bool,
    groups: Vec<Group>,
    /// The groups that may grow, by index.
    open: Vec<usize>,
    /// Behind each packet: the next one in its group. Means nothing for the last of a group.
    next: Vec<usize>,
}

/// Packets that continue each other, or a single packet.
struct Group {
    /// Index of the first packet.
    first: usize,
    /// Index of the last packet.
    last: usize,
    count: usize,
    /// What it takes to grow, for a packet of a kind that can.
    growth: Option<Growth>,
}

struct Growth {
    headers: Headers,
    /// Length of the group as one packet.
    length: usize,
    /// Bytes of payload in each packet but the last.
    payload: usize,
    /// What the IPv4 id grows by from packet to packet: 0 or 1. Known with the second packet.
    id_step: u16,
}

impl Coalescer {
    /// Merges TCP, and UDP as well if the kernel takes it.
    pub(crate) fn new(udp: bool) -> Self {
        Self {
            udp,
            groups: Vec::new(),
            open: Vec::with_capacity(MAX_OPEN),
            next: Vec::new(),
        }
    }

    /// Merges `packets` and gives each frame to `write`: the parts that make it up, and how many packets it has.
    /// Ends at the first error of `write`.
    pub(crate) fn coalesce<E>(
        &mut self,
        packets: &[&[u8]],
        mut write: impl FnMut(&[IoSlice<'_>], usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.groups.clear();
        self.open.clear();
        self.next.clear();
        self.next.resize(packets.len(), 0);
        for index in 0..packets.len() {
            self.place(packets, index);
        }
        for group in &self.groups {
            match &group.growth {
                Some(growth) if group.count > 1 => {
                    self.write_burst(packets, group, growth, &mut write)?
                }
                Some(_) | None => {
                    let header = VnetHeader::Whole.to_bytes();
                    write(
                        &[IoSlice::new(&header), IoSlice::new(packets[group.first])],
                        1,
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Puts the packet at `index` into the group of its flow or into one of its own.
    fn place(&mut self, packets: &[&[u8]], index: usize) {
        let packet = packets[index];
        let Ok(headers) = Headers::locate(packet) else {
            self.open.clear();
            self.groups.push(Group::single(index, None));
            return;
        };
        let growing = self.may_merge(packet, &headers);
        let of_its_flow = |group: &usize| self.groups[*group].is_of_flow(packets, packet, &headers);
        if let Some(place) = self.open.iter().rposition(of_its_flow) {
            let group = &mut self.groups[self.open[place]];
            if growing && group.take(packets, index, &headers) {
                self.next[group.last] = index;
                group.last = index;
                group.count += 1;
                if group.is_full(packet) {
                    self.open.remove(place);
                }
                return;
            }
            self.open.remove(place);
        }
        let group = Group::single(index, growing.then(|| Growth::begin(packet, headers)));
        if growing && !group.is_full(packet) {
            if self.open.len() == MAX_OPEN {
                self.open.remove(0);
            }
            self.open.push(self.groups.len());
        }
        self.groups.push(group);
    }

    /// Whether a packet is of a kind that can be part of a burst, so that cutting would give it back as it is.
    fn may_merge(&self, packet: &[u8], headers: &Headers) -> bool {
        let ip = match headers.version {
            // No options; of the flags only "don't fragment"; a header checksum as we would write it.
            Version::V4 => {
                headers.ip == 20 && packet[6] & !DONT_FRAGMENT == 0 && packet[10..12] != [0xff; 2]
            }
            Version::V6 => headers.ip == 40,
        };
        let transport = match headers.transport {
            Transport::Tcp => {
                let flags = &packet[headers.ip + TCP_FLAGS - 1..][..2];
                flags[0] & 0x0f == 0
                    && flags[1] & !PSH == ACK
                    && headers.checksum(packet) != [0xff; 2]
            }
            Transport::Udp => self.udp && headers.checksum(packet) != [0; 2],
        };
        ip && transport && packet.len() > headers.all && headers.lengths_agree(packet)
    }

    fn write_burst<E>(
        &self,
        packets: &[&[u8]],
        group: &Group,
        growth: &Growth,
        write: &mut impl FnMut(&[IoSlice<'_>], usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let vnet_header = growth.vnet_header().to_bytes();
        let mut headers = [0; MAX_HEADERS];
        let headers = &mut headers[..growth.headers.all];
        growth.write_headers(packets[group.first], packets[group.last], headers);

        let mut parts = [IoSlice::new(&[]); 2 + MAX_PACKETS];
        parts[0] = IoSlice::new(&vnet_header);
        parts[1] = IoSlice::new(headers);
        let mut packet = group.first;
        for part in &mut parts[2..2 + group.count] {
            *part = IoSlice::new(&packets[packet][growth.headers.all..]);
            packet = self.next[packet];
        }
        write(&parts[..2 + group.count], group.count)
    }
}

impl Group {
    fn single(index: usize, growth: Option<Growth>) -> Self {
        Self {
            first: index,
            last: index,
            count: 1,
            growth,
        }
    }

    fn is_of_flow(&self, packets: &[&[u8]], packet: &[u8], headers: &Headers) -> bool {
        let Some(growth) = &self.growth else {
            return false;
        };
        let (ours, first) = (&growth.headers, packets[self.first]);
        // Addresses of another version have another length.
        ours.transport == headers.transport
            && ours.ports(first) == headers.ports(packet)
            && ours.addresses(first) == headers.addresses(packet)
    }

    /// Whether nothing may follow `last`, the group's last packet.
    fn is_full(&self, last: &[u8]) -> bool {
        self.growth.as_ref().is_none_or(|growth| {
            let headers = &growth.headers;
            let pushed =
                headers.transport == Transport::Tcp && last[headers.ip + TCP_FLAGS] & PSH != 0;
            pushed || last.len() < headers.all + growth.payload || self.count == MAX_PACKETS
        })
    }

    /// Grows by the packet at `index`, if it continues the group. Both are of one flow and of a kind that merges.
    fn take(&mut self, packets: &[&[u8]], index: usize, headers: &Headers) -> bool {
        let (first, packet) = (packets[self.first], packets[index]);
        let Some(growth) = self
            .growth
            .as_mut()
            .filter(|growth| growth.headers == *headers)
        else {
            return false;
        };
        let Some(id_step) = growth.id_step_to(first, packet, self.count) else {
            return false;
        };
        let length = growth.length + packet.len() - headers.all;
        let continues = packet.len() <= first.len()
            && length <= MAX_PACKET
            && growth.says_the_same(first, packet)
            && (self.count > 1 || headers.checksums_hold(first))
            && headers.checksums_hold(packet);
        if continues {
            (growth.length, growth.id_step) = (length, id_step);
        }
        continues
    }
}

impl Growth {
    fn begin(packet: &[u8], headers: Headers) -> Self {
        Self {
            headers,
            length: packet.len(),
            payload: packet.len() - headers.all,
            id_step: 0,
        }
    }

    /// Step of the IPv4 id if `packet` has the right one to be the next. With "don't fragment" set the id means nothing,
    /// and some systems never count it up.
    fn id_step_to(&self, first: &[u8], packet: &[u8], count: usize) -> Option<u16> {
        if self.headers.version == Version::V6 {
            return Some(0);
        }
        let distance = number(packet, 4).wrapping_sub(number(first, 4));
        if count > 1 {
            return (distance == self.id_step * count as u16).then_some(self.id_step);
        }
        let atomic = first[6] & DONT_FRAGMENT != 0;
        (distance == 1 || distance == 0 && atomic).then_some(distance)
    }

    /// Whether `packet`, whose headers lie as the first packet's do, says what cutting would make it say: all fields that
    /// cutting leaves alone, and the sequence number. Addresses and ports have been compared.
    fn says_the_same(&self, first: &[u8], packet: &[u8]) -> bool {
        let Headers {
            version,
            transport,
            ip,
            all,
        } = self.headers;
        let ip_alike = match version {
            // Traffic class with ECN; flags, time to live, protocol.
            Version::V4 => first[1] == packet[1] && first[6..10] == packet[6..10],
            // Traffic class with ECN and flow label; next header, hop limit.
            Version::V6 => first[..4] == packet[..4] && first[6..8] == packet[6..8],
        };
        let transport_alike = match transport {
            Transport::Tcp => {
                let expected =
                    long_number(first, ip + TCP_SEQUENCE).wrapping_add((self.length - all) as u32);
                let alike = |from: usize, to: usize| {
                    first[ip + from..ip + to] == packet[ip + from..ip + to]
                };
                // Acknowledgement and header length; window; urgent pointer and options. Flags were looked at.
                long_number(packet, ip + TCP_SEQUENCE) == expected
                    && alike(8, 13)
                    && alike(14, 16)
                    && alike(18, all - ip)
            }
            Transport::Udp => true,
        };
        ip_alike && transport_alike
    }

    fn vnet_header(&self) -> VnetHeader {
        let headers = &self.headers;
        let kind = match (headers.transport, headers.version) {
            (Transport::Tcp, Version::V4) => BurstKind::Tcp4,
            (Transport::Tcp, Version::V6) => BurstKind::Tcp6,
            (Transport::Udp, Version::V4 | Version::V6) => BurstKind::Udp,
        };
        VnetHeader::Burst(Burst {
            kind,
            headers: headers.all as u16,
            payload: self.payload as u16,
            checksum: Some(ChecksumPlace {
                start: headers.ip as u16,
                offset: headers.checksum_offset() as u16,
            }),
        })
    }

    /// The headers of the burst: the first packet's, with PSH if the last has it.
    fn write_headers(&self, first: &[u8], last: &[u8], to: &mut [u8]) {
        let headers = &self.headers;
        to.copy_from_slice(&first[..headers.all]);
        if headers.transport == Transport::Tcp {
            let flags = headers.ip + TCP_FLAGS;
            to[flags] |= last[flags] & PSH;
        }
        headers.set_lengths(to, self.length);
        headers.set_ip_checksum(to);
        headers.set_unsummed(to, self.length);
    }
}

#[cfg(test)]
mod tests;
