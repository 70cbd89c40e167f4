//! Everything hivevpn needs from the operating system.
//!
//! This crate is the only place that knows which system it runs on. It moves bytes and changes settings; it decides
//! nothing and knows nothing of peers or WireGuard. Nothing here is asynchronous: descriptors are non-blocking, and one
//! loop waits for them.
//!
//! The data path, in the order of a packet's way out:
//!
//! - [`tun`]: the overlay's network interface; packets, in bursts that `offload` cuts and merges.
//! - [`udp`]: the underlay socket; datagrams, in batches.
//! - [`poll`]: sleeping until one of them is ready, a timer is due or another thread calls.
//! - [`priority`]: not waiting behind what else this machine does.
//! - [`network_change`], [`boot_time`]: noticing that the machine moved or slept.
//!
//! Before the data path can start, and after:
//!
//! - [`addresses`], [`routes`]: what the machine's network looks like, whether the overlay fits in, and further routes.
//! - [`privileges`]: whether we may, giving up the rest, who asks over a local socket, no core dumps.
//! - [`secret_file`], [`lock`], [`mod@hand_over`]: keys that only we can read, a state directory that only one process uses,
//!   and giving it to another user.
//! - [`command_line`], [`terminal`]: secrets that were typed, shown to nobody.
//! - [`host_name`]: a name for this node.
//! - [`disk_space`]: whether there is room for what we keep.
//! - [`process`]: whether another one still runs.
//! - [`listeners`], [`open_files`]: what listens on this machine, and how many sockets we may have.
//!
//! # Systems
//!
//! A topic that differs has a file per system beneath it (`tun/linux.rs`); everything else is common to unix.
//!
//! | | Linux | other unix | Windows |
//! |---|---|---|---|
//! | [`udp`], [`addresses`], [`secret_file`], [`terminal`], [`host_name`], [`disk_space`], [`lock`], [`open_files`], [`poll::wait`] | yes | common code, never run there | no |
//! | [`tun`], [`routes`], [`poll::Waker`], [`privileges::peer_credentials`], giving up [`privileges`], [`network_change`], [`listeners`] | yes | an error that says so | no |
//! | [`command_line`] | yes | an error that says so | no |
//! | [`process`] | yes | as if nobody ran | no |
//! | [`boot_time`] | yes | does not count sleep everywhere | no |

pub mod addresses;
pub mod boot_time;
pub mod command_line;
pub mod disk_space;
pub mod hand_over;
pub mod host_name;
pub mod listeners;
pub mod lock;
pub mod network_change;
pub mod open_files;
pub mod poll;
pub mod priority;
pub mod privileges;
pub mod process;
pub mod routes;
pub mod secret_file;
pub mod terminal;
pub mod tun;
pub mod udp;

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(any(target_os = "linux", test))]
mod offload;

#[cfg(test)]
#[cfg(target_os = "linux")]
mod namespace;
