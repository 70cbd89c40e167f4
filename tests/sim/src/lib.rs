//! Whole networks with virtual time against the core that ships.
//!
//! A [`World`](world::World) is a clock, hosts, and what lies between them. Every host runs the real
//! [`Node`](hivevpn_core::node::Node); its WireGuard datagrams go one by one through the [NATs](nat) and
//! [links](underlay) of the simulated internet, and so do the datagrams of QUIC, so that a hole in a NAT is open for one
//! when it is open for the other. [`swarm`] stands in for libp2p: connections, circuits, hole punching, questions and answers.
//! Nothing else is modelled, nothing reads a real clock, and all chance comes from one seed: the same seed is the
//! same story, datagram by datagram, which [`trace`] proves.
//!
//! What must hold whatever happens is in [`invariants`], one function each; what the two NATs of a pair allow is in
//! [`theory`]. [`scenario`] draws a network and its misfortunes from a seed and demands all of it. Worlds that are told to
//! carry the registry's messages too hold what every host shows against a [`chronicle`] of what was written.
//!
//! Only [`host`] knows the core.

pub mod chronicle;
pub mod clock;
pub mod complaints;
pub mod echo;
pub mod founding;
pub mod host;
pub mod hostile;
pub mod invariants;
pub mod nat;
pub mod scenario;
pub mod swarm;
pub mod theory;
pub mod trace;
pub mod underlay;
pub mod world;
