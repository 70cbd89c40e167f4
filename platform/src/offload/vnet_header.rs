//! The ten bytes before each frame: `virtio_net_hdr` (virtio 1.3, section 5.1.6), as a TUN device uses it, which is
//! without the later fields and in the machine's own byte order.

/// The packet behind it lacks its checksum.
const NEEDS_CHECKSUM: u8 = 1;

/// Kinds of bursts.
const KIND_NONE: u8 = 0;
const KIND_TCP4: u8 = 1;
const KIND_TCP6: u8 = 4;
const KIND_UDP: u8 = 5;
/// Set beside a kind when the first segment has CWR. The TCP header says so too.
const KIND_ECN: u8 = 0x80;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VnetHeader {
    /// One packet as it is.
    Whole,
    /// One packet whose checksum field holds the sum of the pseudo header only.
    Unsummed(ChecksumPlace),
    /// Several packets of one flow behind one header.
    Burst(Burst),
}

/// Where a checksum belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChecksumPlace {
    /// First byte that counts; everything behind it does too.
    pub(super) start: u16,
    /// Distance of the field from `start`.
    pub(super) offset: u16,
}

/// How to take a burst apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    /// What kind of packets.
    pub(super) kind: BurstKind,
    /// Length of the headers. Only a hint when it comes from the kernel.
    pub(super) headers: u16,
    /// Bytes of payload in each packet but the last, which may have fewer. Not zero.
    pub(super) payload: u16,
    /// Where each packet's checksum belongs. The kernel leaves it out when it thinks nobody needs it.
    pub(super) checksum: Option<ChecksumPlace>,
}

/// What a burst is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BurstKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

/// Why the ten bytes say nothing we can act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VnetHeaderError {
    #[error("a frame of {0} bytes has no room for its header")]
    Short(usize),
    #[error("bursts of kind {0} are not known")]
    UnknownKind(u8),
    #[error("a burst of packets without payload")]
    NoPayload,
}

impl VnetHeader {
    /// Length of the header.
    pub(crate) const LEN: usize = 10;

    /// Separates a frame into what its header says and the packet or burst behind it.
    pub(super) fn split(frame: &mut [u8]) -> Result<(Self, &mut [u8]), VnetHeaderError> {
        let length = frame.len();
        let Some((header, packet)) = frame.split_first_chunk_mut::<{ Self::LEN }>() else {
            return Err(VnetHeaderError::Short(length));
        };
        Ok((Self::parse(*header)?, packet))
    }

    fn parse(bytes: [u8; Self::LEN]) -> Result<Self, VnetHeaderError> {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let checksum = (bytes[0] & NEEDS_CHECKSUM != 0).then(|| ChecksumPlace {
            start: number(6),
            offset: number(8),
        });
        let kind = match bytes[1] & !KIND_ECN {
            KIND_NONE => return Ok(checksum.map_or(Self::Whole, Self::Unsummed)),
            KIND_TCP4 => BurstKind::Tcp4,
            KIND_TCP6 => BurstKind::Tcp6,
            KIND_UDP => BurstKind::Udp,
            unknown => return Err(VnetHeaderError::UnknownKind(unknown)),
        };
        if number(4) == 0 {
            return Err(VnetHeaderError::NoPayload);
        }
        Ok(Self::Burst(Burst {
            kind,
            headers: number(2),
            payload: number(4),
            checksum,
        }))
    }

    /// The header as the kernel reads it.
    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let (kind, headers, payload, checksum) = match self {
            Self::Whole => (KIND_NONE, 0, 0, None),
            Self::Unsummed(place) => (KIND_NONE, 0, 0, Some(place)),
            Self::Burst(burst) => (
                burst.kind.number(),
                burst.headers,
                burst.payload,
                burst.checksum,
            ),
        };
        let flags = if checksum.is_some() {
            NEEDS_CHECKSUM
        } else {
            0
        };
        let (start, offset) = checksum.map_or((0, 0), |place| (place.start, place.offset));
        let mut bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        for (field, number) in bytes[2..]
            .chunks_exact_mut(2)
            .zip([headers, payload, start, offset])
        {
            field.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}

impl BurstKind {
    fn number(self) -> u8 {
        match self {
            Self::Tcp4 => KIND_TCP4,
            Self::Tcp6 => KIND_TCP6,
            Self::Udp => KIND_UDP,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_of_zeros_means_a_packet_as_it_is() {
        assert_eq!(VnetHeader::parse([0; 10]), Ok(VnetHeader::Whole));
        assert_eq!(VnetHeader::Whole.to_bytes(), [0; 10]);
    }

    #[test]
    fn a_burst_with_congestion_marks_is_a_burst() {
        let place = ChecksumPlace {
            start: 20,
            offset: 16,
        };
        let burst = Burst {
            kind: BurstKind::Tcp4,
            headers: 40,
            payload: 1380,
            checksum: Some(place),
        };
        let mut bytes = VnetHeader::Burst(burst).to_bytes();
        bytes[1] |= KIND_ECN;
        assert_eq!(VnetHeader::parse(bytes), Ok(VnetHeader::Burst(burst)));
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let split = |frame: &[u8]| VnetHeader::split(&mut frame.to_vec()).map(drop);
        assert_eq!(split(&[0; 9]), Err(VnetHeaderError::Short(9)));
        assert_eq!(
            split(&[0, 3, 0, 0, 9, 9, 0, 0, 0, 0]),
            Err(VnetHeaderError::UnknownKind(3))
        );
        assert_eq!(
            split(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            Err(VnetHeaderError::NoPayload)
        );
    }

    proptest! {
        #[test]
        fn what_is_understood_is_written_the_same(bytes: [u8; 10]) {
            if let Ok(header) = VnetHeader::parse(bytes) {
                prop_assert_eq!(VnetHeader::parse(header.to_bytes()), Ok(header));
            }
        }
    }
}
