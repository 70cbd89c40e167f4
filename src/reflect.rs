//! What a node cannot see by itself and another member can: how far its clock is off, and whether a datagram from a port
//! that it never spoke to reaches it.
//!
//! 1. A command asks its daemon, the daemon asks a member's over an authenticated connection ([`asking`]).
//! 2. The member's daemon answers with its clock, or sends a token from a new port to the endpoint in question and says
//!    that it did ([`reflector`]).
//! 3. The token arrives on the shared socket, where the data loop recognises it ([`wire::Token::in_datagram`]), or it does
//!    not.
//!
//! The token comes from an *address* that we have exchanged datagrams with, because that is what members are. So this
//! tells a NAT or firewall that filters by address and port from one that does not; whether the latter would also let
//! strangers' addresses through cannot be told (RFC 4787 §5: endpoint-independent or address-dependent).

pub mod asking;
pub mod reflector;
pub mod wire;
