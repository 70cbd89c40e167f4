//! Cutting and merging: between what the kernel calls a frame and what we call a packet.
//!
//! A TUN device with offloads moves *frames*: ten bytes that say what follows ([`vnet_header`]), then one packet or a
//! *burst*, which is up to 64 KB of one TCP connection or UDP flow behind a single header. Outside this module a packet
//! is a packet, so a frame from the kernel is cut ([`mod@segment`]) and packets for the kernel are merged again
//! ([`coalesce`]). A burst costs the kernel about as much as a packet does: nothing on the data path is worth more.
//!
//! Nothing here does I/O or knows a descriptor. Both directions work on bytes that someone else made up: cutting trusts
//! no field of a frame, and merging only joins packets whose checksums it has verified, since the kernel verifies none
//! inside a burst.

mod checksum;
mod coalesce;
mod headers;
mod segment;
mod vnet_header;

#[cfg(test)]
mod sample;

pub(crate) use coalesce::Coalescer;
pub(crate) use segment::segment;
pub(crate) use vnet_header::VnetHeader;

/// Longest packet we put together: the length fields of IPv4 and UDP have 16 bits.
const MAX_PACKET: usize = 65_535;
