//! The deciding half of hivevpn: no I/O, no clock, no async, no locks.

pub mod allowed_ips;
pub mod batch;
pub mod connection;
pub mod connections;
pub mod datagram;
pub mod drop_reason;
pub mod ip_packet;
pub mod membership;
pub mod node;
pub mod output;
pub mod path;
pub mod peer;
pub mod peers;
pub mod session;
pub mod tunnels;
