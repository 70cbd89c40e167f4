//! The TUN device on Linux: tun-rs opens it and cuts and merges bursts, netlink configures the interface.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_route::link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use tun_rs::{DeviceBuilder, ExpandBuffer, GROTable, Layer, SyncDevice};

use super::{PacketBatch, TunConfig, TunError};
use crate::netlink::Conversation;
use crate::packet_batch::{HEADROOM, MAX_PACKET};
use crate::privileges::may_configure_interfaces;

/// Packets the kernel keeps for us while we are busy. Fewer would drop from a burst of small packets; more would only
/// add delay.
const QUEUE_LENGTH: u32 = 1000;

/// Free places in a batch below which no further frame is read: one frame of 64 KB becomes 54 packets at the smallest
/// MTU of IPv6.
const FRAME_ROOM: usize = 64;

/// Packets merged at a time. The kernel refuses a UDP burst of more than 128 packets with everything in it.
const MERGE_AT_MOST: usize = 64;

const _: () =
    assert!(HEADROOM >= tun_rs::VIRTIO_NET_HDR_LEN && FRAME_ROOM <= PacketBatch::CAPACITY);

pub(super) struct Device {
    device: SyncDevice,
    /// One frame as it comes from the kernel: header and up to 64 KB.
    frame: Vec<u8>,
    merging: GROTable,
}

impl Device {
    pub(super) fn open(config: &TunConfig) -> Result<Self, TunError> {
        if if_nametoindex(config.name.as_str()).is_ok() {
            // The kernel would let us take over a persistent interface, with addresses and routes of its past.
            return Err(TunError::NameTaken(config.name.clone()));
        }
        let device = create(&config.name).map_err(|source| creation_error(&config.name, source))?;
        device
            .set_nonblocking(true)
            .map_err(|source| io_error("open", &config.name, source))?;
        configure(config)?;
        Ok(Self {
            device,
            frame: vec![0; HEADROOM + MAX_PACKET],
            merging: GROTable::new(),
        })
    }

    /// Brings the interface's addresses from what `before` says to what `after` says.
    pub(super) fn change_addresses(
        &self,
        before: &TunConfig,
        after: &TunConfig,
    ) -> Result<(), TunError> {
        let name = &after.name;
        let index =
            if_nametoindex(name.as_str()).map_err(|errno| io_error("find", name, errno.into()))?;
        let mut kernel =
            Conversation::open().map_err(|source| io_error("configure", name, source))?;
        let mut remove = |address: IpAddr, prefix_len| {
            kernel
                .remove_address(index, IpNet::new_assert(address, prefix_len))
                .map_err(|source| io_error("take an address from", name, source))
        };
        if let Some((address, prefix_len)) = before.ipv4.filter(|_| before.ipv4 != after.ipv4) {
            remove(address.into(), prefix_len)?;
        }
        if let Some((address, prefix_len)) = before.ipv6.filter(|_| before.ipv6 != after.ipv6) {
            remove(address.into(), prefix_len)?;
        }
        let added = TunConfig {
            ipv4: after.ipv4.filter(|_| before.ipv4 != after.ipv4),
            ipv6: after.ipv6.filter(|_| before.ipv6 != after.ipv6),
            ..after.clone()
        };
        add_addresses(&mut kernel, index, &added)
    }

    /// Reads frames until there are no more or the next might not fit.
    pub(super) fn recv(&mut self, batch: &mut PacketBatch) -> io::Result<usize> {
        while batch.room() >= FRAME_ROOM {
            let (mut places, lengths) = batch.vacant();
            match self
                .device
                .recv_multiple(&mut self.frame, &mut places, lengths, 0)
            {
                Ok(count) => batch.appended(count),
                Err(error) if error.raw_os_error().is_none() => {
                    tracing::trace!(%error, "frame from the kernel dropped");
                }
                // The packets read so far come first; the error will be there again.
                Err(_) if !batch.is_empty() => break,
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(batch.len())
    }

    /// Merges what belongs together and writes it.
    pub(super) fn send(&mut self, batch: &mut PacketBatch) -> io::Result<usize> {
        let mut packets: Vec<_> = batch
            .slots()
            .map(|(bytes, length)| Slot {
                bytes,
                end: HEADROOM + length,
            })
            .collect();
        let mut taken = 0;
        for packets in packets.chunks_mut(MERGE_AT_MOST) {
            match self
                .device
                .send_multiple(&mut self.merging, packets, HEADROOM)
                .map_err(classify)
            {
                Ok(_) => taken += packets.len(),
                Err(error) if is_fatal(&error) => return Err(error),
                Err(error) => tracing::trace!(%error, "packet refused by the kernel"),
            }
        }
        Ok(taken)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// With segmentation offload when the kernel has it (any since 2.6 has it for TCP, since 6.2 for UDP).
fn create(name: &str) -> io::Result<SyncDevice> {
    let open = |offload| {
        let builder = DeviceBuilder::new()
            .name(name)
            .layer(Layer::L3)
            .inherit_enable_state();
        builder
            .with(|linux| _ = linux.offload(offload))
            .build_sync()
    };
    match open(true) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {}
        result => return result,
    }
    let device = open(false)?;
    tracing::info!(
        interface = name,
        "this kernel hands over every packet on its own: a packet costs about twice as much"
    );
    Ok(device)
}

fn creation_error(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TunError::NoDriver,
        Some(Errno::EPERM | Errno::EACCES) if may_configure_interfaces() => {
            TunError::DriverForbidden
        }
        Some(Errno::EPERM | Errno::EACCES) => TunError::NotPermitted,
        Some(Errno::EBUSY | Errno::EEXIST) => TunError::NameTaken(name.to_owned()),
        Some(_) | None => io_error("create", name, source),
    }
}

fn configure(config: &TunConfig) -> Result<(), TunError> {
    let name = &config.name;
    let fail = |action| move |source| io_error(action, name, source);
    let index =
        if_nametoindex(name.as_str()).map_err(|errno| io_error("find", name, errno.into()))?;
    let mut kernel = Conversation::open().map_err(fail("configure"))?;

    // No link-local address, which would bring solicitations and reports that no peer wants. Refused where IPv6 is
    // turned off, and then there is none anyway.
    let no_link_local = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let _ = kernel.change_link(
        index,
        vec![LinkAttribute::AfSpecUnspec(vec![no_link_local])],
    );

    let size = vec![
        LinkAttribute::Mtu(config.mtu.into()),
        LinkAttribute::TxQueueLen(QUEUE_LENGTH),
    ];
    kernel
        .change_link(index, size)
        .map_err(fail("set the MTU of"))?;
    kernel.set_link_up(index).map_err(fail("bring up"))?;

    add_addresses(&mut kernel, index, config)
}

fn add_addresses(
    kernel: &mut Conversation,
    index: u32,
    config: &TunConfig,
) -> Result<(), TunError> {
    let name = &config.name;
    let fail = |action| move |source| io_error(action, name, source);
    if let Some((address, prefix_len)) = config.ipv4 {
        let network = IpNet::new_assert(address.into(), prefix_len);
        kernel
            .add_address(index, network)
            .map_err(fail("give an IPv4 address to"))?;
    }
    if let Some((address, prefix_len)) = config.ipv6 {
        let network = IpNet::new_assert(address.into(), prefix_len);
        kernel.add_address(index, network).map_err(|source| {
            match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EACCES | Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP) => {
                    TunError::NoIpv6(name.clone())
                }
                Some(_) | None => io_error("give an IPv6 address to", name, source),
            }
        })?;
    }
    Ok(())
}

fn io_error(action: &'static str, name: &str, source: io::Error) -> TunError {
    TunError::Io {
        action,
        name: name.to_owned(),
        source,
    }
}

/// Gives the two ways an interface can go away a kind of their own.
fn classify(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBADFD | Errno::ENODEV) => io::ErrorKind::NotConnected.into(),
        Some(Errno::EIO | Errno::ENETDOWN) => io::ErrorKind::NetworkDown.into(),
        Some(_) | None => error,
    }
}

fn is_fatal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotConnected | io::ErrorKind::NetworkDown
    )
}

/// One packet of a batch with room to grow, as tun-rs wants it: the next segments of its flow are appended.
struct Slot<'a> {
    bytes: &'a mut [u8],
    end: usize,
}

impl AsRef<[u8]> for Slot<'_> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.end]
    }
}

impl AsMut<[u8]> for Slot<'_> {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.end]
    }
}

impl ExpandBuffer for Slot<'_> {
    /// tun-rs grows a packet up to this size less twice the headroom: there it must stop, since the length field of
    /// the merged packet has 16 bits.
    fn buf_capacity(&self) -> usize {
        2 * HEADROOM + MAX_PACKET
    }

    fn buf_resize(&mut self, new_len: usize, value: u8) {
        let old_end = std::mem::replace(&mut self.end, new_len);
        if let Some(grown) = self.bytes.get_mut(old_end..new_len) {
            grown.fill(value);
        }
    }

    fn buf_extend_from_slice(&mut self, src: &[u8]) {
        let new_end = self.end + src.len();
        self.bytes[self.end..new_end].copy_from_slice(src);
        self.end = new_end;
    }
}
