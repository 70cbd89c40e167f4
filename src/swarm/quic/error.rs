//! Why a connection, a listener or a stream failed.

use std::{io, net::SocketAddr};

/// A failure of the QUIC transport or of one of its connections.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket or the operating system's list of addresses failed.
    #[error("QUIC socket: {0}")]
    Io(#[from] io::Error),

    /// Two sockets of one address family were given: which of them to dial from?
    #[error("two sockets of one address family ({0} and {1}): give one for IPv4 and one for IPv6")]
    FamilyTwice(SocketAddr, SocketAddr),

    /// There is no socket of the family of this address.
    #[error("no socket of the address family of {0}: this node runs without it")]
    NoSocket(SocketAddr),

    /// Listening was asked for on an address that the bound socket does not have.
    #[error(
        "cannot listen on {asked}: the socket is bound to {bound}; ask for that, or for port 0"
    )]
    NotBoundThere {
        /// What `listen_on` was given.
        asked: SocketAddr,
        /// Where the socket of that family is bound.
        bound: SocketAddr,
    },

    /// The socket has a listener already.
    #[error("already listening on {0}")]
    AlreadyListening(SocketAddr),

    /// A hole is punched from a listening socket, and this one is not.
    #[error("cannot punch a hole to {0} before listening: start the listener of its family first")]
    NotListening(SocketAddr),

    /// A hole is punched for somebody, and the address does not say for whom.
    #[error("cannot punch a hole to {0}: the address lacks /p2p/<peer id>")]
    PunchForNobody(SocketAddr),

    /// There is an attempt to that address under way.
    #[error("a hole to {0} is being punched already")]
    PunchUnderWay(SocketAddr),

    /// Nobody answered, or not to the end.
    #[error("no QUIC connection with {0} within the handshake timeout")]
    HandshakeTimedOut(SocketAddr),

    /// The connection could not be started.
    #[error("cannot connect to {remote}: {source}")]
    Connect {
        /// Whom.
        remote: SocketAddr,
        /// Why.
        source: quinn::ConnectError,
    },

    /// The connection was lost, refused or closed.
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),

    /// Our own certificate could not be made.
    #[error("cannot make the TLS certificate of this node: {0}")]
    Certificate(#[from] libp2p_tls::certificate::GenError),

    /// TLS does not take our settings.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] quinn::rustls::Error),

    /// TLS cannot do what QUIC needs.
    #[error("TLS without QUIC's initial cipher suite: {0}")]
    CipherSuite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),

    /// The handshake ended without a certificate that names a peer.
    #[error("{0} has shown no libp2p certificate")]
    Anonymous(SocketAddr),

    /// The endpoint has stopped: nothing will come any more.
    #[error("the QUIC endpoint has stopped, with it the wait on {0}")]
    EndpointStopped(SocketAddr),
}
