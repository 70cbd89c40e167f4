//! From a connection attempt to a peer with a name.

use std::time::Duration;

use libp2p::PeerId;
use quinn::rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::{error::Error, muxer::Muxer};

/// Completes a handshake, whoever began it, and reads the peer's identity off its certificate.
///
/// TLS has verified the certificate, and that the peer owns its key. Dropping the future abandons the attempt.
pub(super) async fn complete(
    connecting: quinn::Connecting,
    limit: Duration,
) -> Result<(PeerId, Muxer), Error> {
    let remote = connecting.remote_address();
    let connection = timeout(limit, connecting)
        .await
        .map_err(|_| Error::HandshakeTimedOut(remote))??;
    // From here on, an early return closes the connection.
    let muxer = Muxer::new(connection.clone());
    let peer = identity(&connection).ok_or(Error::Anonymous(remote))?;
    Ok((peer, muxer))
}

fn identity(connection: &quinn::Connection) -> Option<PeerId> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    let certificate = libp2p_tls::certificate::parse(chain.first()?).ok()?;
    Some(certificate.peer_id())
}
