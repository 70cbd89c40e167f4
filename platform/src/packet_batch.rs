//! [`PacketBatch`]: packets on their way between the TUN device and the core.

use std::fmt;

/// Room in front of each packet for the header the kernel puts before it (`virtio_net_hdr`, 10 bytes).
pub(crate) const HEADROOM: usize = 10;

/// Longest packet: the IPv4 length field has 16 bits.
pub(crate) const MAX_PACKET: usize = 65_535;

/// Room for one packet. A whole number of cache lines, and not a power of two, so that the packets of a batch do not
/// fight for the same lines of the cache.
pub(crate) const SLOT: usize = (HEADROOM + MAX_PACKET).next_multiple_of(64);

/// Up to [`CAPACITY`](Self::CAPACITY) packets of any size, allocated once and reused.
///
/// The memory (8 MB) is reserved, not used: what stays resident is what the largest packets seen at each position
/// needed, half a megabyte with packets of 1420 bytes.
pub struct PacketBatch {
    arena: Vec<u8>,
    lengths: [usize; Self::CAPACITY],
    len: usize,
}

/// Why a packet does not go into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The batch holds [`PacketBatch::CAPACITY`] packets: send it first.
    #[error("the batch is full")]
    Full,
    /// No packet is empty or longer than 65 535 bytes.
    #[error("{0} bytes are no packet")]
    Length(usize),
}

impl PacketBatch {
    /// Packets in a full batch: more than two of the largest segmented frames at the usual MTU.
    pub const CAPACITY: usize = 128;

    /// An empty batch.
    #[expect(
        clippy::new_without_default,
        reason = "8 MB of address space are not something to make in passing"
    )]
    pub fn new() -> Self {
        Self {
            arena: vec![0; Self::CAPACITY * SLOT],
            lengths: [0; Self::CAPACITY],
            len: 0,
        }
    }

    /// Forgets the packets.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Number of packets.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no packet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the next [`push`](Self::push) fails.
    pub fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    /// Appends a copy of `packet`.
    pub fn push(&mut self, packet: &[u8]) -> Result<(), PushError> {
        if self.is_full() {
            return Err(PushError::Full);
        }
        if packet.is_empty() || packet.len() > MAX_PACKET {
            return Err(PushError::Length(packet.len()));
        }
        let start = self.len * SLOT + HEADROOM;
        self.arena[start..start + packet.len()].copy_from_slice(packet);
        self.lengths[self.len] = packet.len();
        self.len += 1;
        Ok(())
    }

    /// The packets in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let slots = self.arena.chunks_exact(SLOT).zip(self.lengths);
        slots
            .take(self.len)
            .map(|(slot, length)| &slot[HEADROOM..HEADROOM + length])
    }

    /// Number of packets that still fit.
    pub(crate) fn room(&self) -> usize {
        Self::CAPACITY - self.len
    }

    /// The places of the packets to come, and where to note their lengths. [`appended`](Self::appended) makes them
    /// part of the batch.
    pub(crate) fn vacant(&mut self) -> (Vec<&mut [u8]>, &mut [usize]) {
        let slots = self.arena.chunks_exact_mut(SLOT).skip(self.len);
        let places = slots
            .map(|slot| &mut slot[HEADROOM..HEADROOM + MAX_PACKET])
            .collect();
        (places, &mut self.lengths[self.len..])
    }

    /// The next `count` vacant places have been filled.
    pub(crate) fn appended(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        self.len = (self.len + count).min(Self::CAPACITY);
    }

    /// The packets with all the memory around them: the headroom before, the rest of the slot behind.
    pub(crate) fn slots(&mut self) -> impl ExactSizeIterator<Item = (&mut [u8], usize)> {
        self.arena
            .chunks_exact_mut(SLOT)
            .zip(self.lengths)
            .take(self.len)
    }
}

/// Packets are other people's: only their number is shown.
impl fmt::Debug for PacketBatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PacketBatch")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in() {
        let mut batch = PacketBatch::new();
        batch.push(b"first").unwrap();
        let longest = vec![7; MAX_PACKET];
        batch.push(&longest).unwrap();
        assert_eq!(batch.iter().collect::<Vec<_>>(), [&b"first"[..], &longest]);
        batch.clear();
        assert!(batch.is_empty());
        batch.push(b"again").unwrap();
        assert_eq!(batch.iter().collect::<Vec<_>>(), [b"again"]);
    }

    #[test]
    fn what_is_no_packet_or_finds_no_room_is_refused() {
        let mut batch = PacketBatch::new();
        assert_eq!(batch.push(b""), Err(PushError::Length(0)));
        assert_eq!(
            batch.push(&vec![0; MAX_PACKET + 1]),
            Err(PushError::Length(MAX_PACKET + 1))
        );
        (0..PacketBatch::CAPACITY).for_each(|_| batch.push(b"x").unwrap());
        assert!(batch.is_full());
        assert_eq!(batch.push(b"x"), Err(PushError::Full));
        assert_eq!(batch.len(), PacketBatch::CAPACITY);
    }
}
