//! Cutting a frame from the kernel into packets, in place.
//!
//! ```text
//! frame:      │ headers │ payload 0 │ payload 1 │ payload 2 │
//! packet 0:   │ headers │ payload 0 │
//! packet 1:             │..│ headers │ payload 1 │            headers written over the end of what was packet 0
//! packet 2:                         │..│ headers │ payload 2 │
//! ```
//!
//! Each packet is handed over before the next is made, and so may be overwritten: whoever takes it seals it at once. No
//! byte of payload is moved.

use super::MAX_PACKET;
use super::checksum::Sum;
use super::headers::{
    CWR, FIN, Headers, HeadersError, MAX_HEADERS, PSH, TCP_FLAGS, TCP_SEQUENCE, Transport, Version,
    long_number, number, set_long_number, set_number,
};
use super::vnet_header::{Burst, BurstKind, ChecksumPlace, VnetHeader, VnetHeaderError};

/// Why a frame is dropped. It says more about the kernel than about the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    VnetHeader(#[from] VnetHeaderError),
    #[error("the packets of a burst cannot be told: {0}")]
    Headers(#[from] HeadersError),
    #[error("the place of the checksum is outside the packet")]
    ChecksumOutside,
    #[error("the frame's header and the packet's disagree on what the packet is")]
    Contradiction,
    #[error("a burst without payload, or with more of it than a packet can have")]
    PayloadSize,
}

/// Hands each packet of `frame`, with all its checksums, to `each`. Returns their number.
///
/// Nothing is handed over when it fails. What is left in `frame` is of no use.
pub(crate) fn segment(frame: &mut [u8], mut each: impl FnMut(&[u8])) -> Result<usize, FrameError> {
    let (header, packet) = VnetHeader::split(frame)?;
    match header {
        VnetHeader::Whole => {}
        VnetHeader::Unsummed(place) => add_checksum(packet, place)?,
        VnetHeader::Burst(burst) => return cut(packet, burst, each),
    }
    each(packet);
    Ok(1)
}

/// Turns the sum of the pseudo header into the checksum of everything, whatever the protocol.
fn add_checksum(packet: &mut [u8], place: ChecksumPlace) -> Result<(), FrameError> {
    let start = usize::from(place.start);
    let field = start + usize::from(place.offset);
    if packet.len() < field + 2 {
        return Err(FrameError::ChecksumOutside);
    }
    let checksum = match Sum::default().add(&packet[start..]).checksum() {
        // For UDP zero would mean that there is no checksum; to all others both zeros are the same.
        [0, 0] => [0xff; 2],
        checksum => checksum,
    };
    packet[field..field + 2].copy_from_slice(&checksum);
    Ok(())
}

fn cut(frame: &mut [u8], burst: Burst, mut each: impl FnMut(&[u8])) -> Result<usize, FrameError> {
    let headers = Headers::locate(frame)?;
    check(&headers, burst)?;
    let total = frame.len() - headers.all;
    let size = usize::from(burst.payload);
    if total == 0 || headers.all + size.min(total) > MAX_PACKET {
        return Err(FrameError::PayloadSize);
    }
    let mut original = [0; MAX_HEADERS];
    let original = &mut original[..headers.all];
    original.copy_from_slice(&frame[..headers.all]);

    let count = total.div_ceil(size);
    for index in 0..count {
        let start = index * size;
        let end = frame.len().min(start + headers.all + size);
        let packet = &mut frame[start..end];
        packet[..headers.all].copy_from_slice(original);
        number_packet(packet, &headers, index, size, index + 1 == count);
        headers.set_lengths(packet, packet.len());
        headers.set_ip_checksum(packet);
        headers.set_transport_checksum(packet);
        each(packet);
    }
    Ok(count)
}

/// Makes the headers of the burst those of its packet at `index`, but for lengths and checksums.
fn number_packet(packet: &mut [u8], headers: &Headers, index: usize, size: usize, last: bool) {
    if headers.version == Version::V4 {
        let id = number(packet, 4).wrapping_add(index as u16);
        set_number(packet, 4, id);
    }
    if headers.transport == Transport::Tcp {
        let tcp = &mut packet[headers.ip..headers.all];
        let sequence = long_number(tcp, TCP_SEQUENCE).wrapping_add((index * size) as u32);
        set_long_number(tcp, TCP_SEQUENCE, sequence);
        if !last {
            tcp[TCP_FLAGS] &= !(PSH | FIN);
        }
        if index > 0 {
            tcp[TCP_FLAGS] &= !CWR;
        }
    }
}

/// The frame's header and the packet's must tell the same story.
fn check(headers: &Headers, burst: Burst) -> Result<(), FrameError> {
    let kind = match (headers.transport, headers.version) {
        (Transport::Tcp, Version::V4) => BurstKind::Tcp4,
        (Transport::Tcp, Version::V6) => BurstKind::Tcp6,
        (Transport::Udp, Version::V4 | Version::V6) => BurstKind::Udp,
    };
    let same_place = burst.checksum.is_none_or(|place| {
        usize::from(place.start) == headers.ip
            && usize::from(place.offset) == headers.checksum_offset()
    });
    if kind == burst.kind && same_place {
        Ok(())
    } else {
        Err(FrameError::Contradiction)
    }
}

#[cfg(test)]
mod tests;
