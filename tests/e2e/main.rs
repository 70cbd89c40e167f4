//! End-to-end proofs: the real binary in a laboratory of network namespaces.
//!
//! Every test tells one story in three parts. [`lab`] builds the underlay: hosts, switches and NAT
//! routers, each a network namespace of its own. [`node`] starts `hivevpn` on a host and talks to it
//! the way a script would: arguments, exit codes, JSON. The story then uses the overlay with programs
//! that know nothing of it: ping, ssh, psql, plain sockets ([`traffic`]).
//!
//! Tests run in parallel, wait for events with deadlines ([`deadline`]), and leave nothing behind.
//! They need root, or a kernel that lets users make user namespaces, which the test binary then
//! enters by itself.
#![allow(clippy::unwrap_used)] // a test says what it expects; where it does not, the backtrace does

mod deadline;
mod lab;
mod node;
mod traffic;

mod admin;
mod admission;
mod bench;
mod cleanup;
mod cli;
mod conflict;
mod delegates;
mod discovery;
mod doctor;
mod expose;
mod fairness;
mod first_run;
mod hostile_storer;
mod http_identity;
mod identity;
mod join;
mod laboratory;
mod models;
mod movement;
mod mtu;
mod names;
mod nat_matrix;
mod netcheck;
mod networks;
mod openai;
mod password;
mod paths;
mod policy;
mod port_mapping;
mod privileges;
mod reach;
mod registry;
mod relays;
mod reservations;
mod revocation;
mod service_unit;
mod services;
mod soak;
mod strangers;
mod sums;
mod top;
mod why;
