//! The shell of hivevpn: everything around the core that touches the outside.
//!
//! - [`cli`], [`config`], [`commands`]: what people type and write, and what they see
//! - [`daemon`], [`membership`], [`joining`], [`footprint`]: starting, becoming a member, undoing
//! - [`event_loop`]: the one loop, between interface, sockets, swarm and core
//! - [`swarm`], [`reach`]: libp2p, and which of our addresses we tell whom
//! - [`port_mapping`]: a port on the home router that leads to us
//! - [`control`], [`control_socket`]: how commands and daemon talk
//! - [`mod@administration`]: acting on other nodes, and being acted on
//! - [`roles`], [`audit`]: who may ask what, and what was asked
//! - [`mod@bench`]: measuring the tunnel to a peer, both ends
//! - [`doctor`], [`netcheck`], [`reflect`]: what keeps this node from working, and what its network lets it do
//! - [`policy`]: who may reach what, as people write it
//! - [`identity`], [`key_file`], [`store`]: secret keys, here and for other programs, and what survives a restart
//! - [`services`]: what stands on the overlay: services offered and used, names, models
//! - [`names`]: a resolver for this machine, and how its programs come to ask it
//! - [`http`]: the reverse proxy in front of services that speak plain HTTP
//! - [`models`]: every model of the network at one address
//! - [`mod@top`]: this node, live, on a screen
//! - [`password`]: the network's password, and how it gets here
//! - [`mailbox`]: into the loop from anywhere
//!
//! What decides lives in `hivevpn-core`, what differs per operating system in `hivevpn-platform`.

pub mod administration;
pub mod audit;
pub mod bench;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod control_socket;
pub mod daemon;
pub mod doctor;
pub mod event_loop;
pub mod footprint;
pub mod http;
pub mod identity;
pub mod joining;
pub mod key_file;
pub mod mailbox;
pub mod membership;
pub mod models;
pub mod names;
pub mod netcheck;
pub mod password;
pub mod policy;
pub mod port_mapping;
pub mod reach;
pub mod reflect;
pub mod roles;
pub mod services;
pub mod store;
pub mod swarm;
pub mod top;
