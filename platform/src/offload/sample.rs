//! For tests: packets, spelled out field by field, with checksums by definition.

use super::headers::DONT_FRAGMENT;

/// A TCP or UDP packet. The fields of the version or protocol it does not have are left out.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) v6: bool,
    pub(super) udp: bool,
    pub(super) source: u8,
    pub(super) port: u16,
    /// TOS or traffic class.
    pub(super) class: u8,
    pub(super) flow_label: u8,
    pub(super) id: u16,
    /// The upper byte of IPv4's flags and fragment offset.
    pub(super) ip_flags: u8,
    pub(super) hops: u8,
    /// IPv4 options or IPv6 extension headers, the latter as the type of the first and their bytes.
    pub(super) ip_options: Option<(u8, Vec<u8>)>,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) reserved: u8,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// A TCP timestamp option with two bytes of padding before it.
pub(super) fn timestamp(value: u8) -> Vec<u8> {
    vec![1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 1]
}

impl Sample {
    pub(super) fn new(v6: bool, udp: bool) -> Self {
        Self {
            v6,
            udp,
            source: 9,
            port: 5000,
            class: 0,
            flow_label: 7,
            id: 0xfffe,
            ip_flags: DONT_FRAGMENT,
            hops: 64,
            ip_options: None,
            sequence: u32::MAX - 1000,
            acknowledged: 77,
            reserved: 0,
            flags: 0x10,
            window: 512,
            urgent: 0,
            options: if udp { vec![] } else { timestamp(1) },
            payload: vec![],
        }
    }

    /// All four kinds.
    pub(super) fn kinds() -> [Self; 4] {
        [(false, false), (false, true), (true, false), (true, true)]
            .map(|(v6, udp)| Self::new(v6, udp))
    }

    pub(super) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    /// The packet that continues this one.
    pub(super) fn next(&self, payload: Vec<u8>) -> Self {
        self.with(|next| {
            next.id = self.id.wrapping_add(1);
            next.sequence = self.sequence.wrapping_add(self.payload.len() as u32);
            next.payload = payload;
        })
    }

    /// `count` packets that continue each other, each with a payload of `size` bytes.
    pub(super) fn run(&self, count: usize, size: usize) -> Vec<Self> {
        let mut run: Vec<Self> = Vec::with_capacity(count);
        for index in 0..count {
            let payload = vec![index as u8; size];
            let next = match run.last() {
                Some(last) => last.next(payload),
                None => self.with(|first| first.payload = payload),
            };
            run.push(next);
        }
        run
    }

    /// The packet as it is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut transport = self.transport();
        let field = if self.udp { 6 } else { 16 };
        let mut sum = checksum(&[self.pseudo_header(transport.len()), transport.clone()].concat());
        if self.udp && sum == 0 {
            sum = 0xffff;
        }
        transport[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        [self.ip(transport.len()), transport].concat()
    }

    /// The packet with only the pseudo header in its transport checksum.
    pub(super) fn unsummed(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut bytes = self.bytes();
        let field = bytes.len() - transport.len() + if self.udp { 6 } else { 16 };
        let sum = !checksum(&self.pseudo_header(transport.len()));
        bytes[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    /// Length of the IP header with options or extensions.
    pub(super) fn ip_length(&self) -> usize {
        self.bytes().len() - self.transport().len()
    }

    fn protocol(&self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    /// Source and destination.
    fn addresses(&self) -> Vec<u8> {
        if self.v6 {
            let mut addresses = [0xfd; 32];
            addresses[15] = self.source;
            addresses.to_vec()
        } else {
            vec![10, 77, 0, self.source, 10, 77, 0, 4]
        }
    }

    fn pseudo_header(&self, length: usize) -> Vec<u8> {
        let tail = [&[0, self.protocol()][..], &(length as u16).to_be_bytes()].concat();
        [self.addresses(), tail].concat()
    }

    fn ip(&self, behind: usize) -> Vec<u8> {
        let (kind, options) = self.ip_options.clone().unwrap_or((self.protocol(), vec![]));
        if self.v6 {
            let length = ((options.len() + behind) as u16).to_be_bytes();
            let class = [0x60 | self.class >> 4, self.class << 4, 0, self.flow_label];
            return [
                &class[..],
                &length,
                &[kind, self.hops],
                &self.addresses(),
                &options,
            ]
            .concat();
        }
        let words = 5 + options.len() / 4;
        let length = ((words * 4 + behind) as u16).to_be_bytes();
        let mut header = [
            &[0x40 | words as u8, self.class][..],
            &length,
            &self.id.to_be_bytes(),
            &[self.ip_flags, 0, self.hops, self.protocol(), 0, 0],
            &self.addresses(),
            &options,
        ]
        .concat();
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// The transport header without checksum, and the payload.
    fn transport(&self) -> Vec<u8> {
        let ports = [self.port.to_be_bytes(), 4433_u16.to_be_bytes()].concat();
        let header = if self.udp {
            let length = (8 + self.payload.len()) as u16;
            [&length.to_be_bytes()[..], &[0, 0]].concat()
        } else {
            let words = (5 + self.options.len() / 4) as u8;
            [
                &self.sequence.to_be_bytes()[..],
                &self.acknowledged.to_be_bytes(),
                &[words << 4 | self.reserved, self.flags],
                &self.window.to_be_bytes(),
                &[0, 0],
                &self.urgent.to_be_bytes(),
                &self.options,
            ]
            .concat()
        };
        [ports, header, self.payload.clone()].concat()
    }
}

/// RFC 1071, word by word.
pub(super) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum = words.fold(0, |sum, word| {
        let sum = sum + word;
        (sum & 0xffff) + (sum >> 16)
    });
    !(sum as u16)
}
