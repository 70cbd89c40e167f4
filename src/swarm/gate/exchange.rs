//! `/hivevpn/auth/1`: one side shows the other that it is a member.
//!
//! Both sides of a connection open one stream each, because after a hole punch both may believe to be the
//! listener. On the stream of the node that shows:
//!
//! ```text
//! shower                                judge
//!   nonce[32]                     ──▶
//!                                 ◀──   tag[32]: the judge knows the network's discovery secret
//!   length (u16, big endian),
//!   credential                    ──▶            only now, and only to a holder of the secret
//!                                 ◀──   verdict: 0 admitted, 1 refused
//! ```
//!
//! The tag names prover and verifier, so that it proves nothing to anybody else.

use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use hivevpn_core::membership::Network;
use libp2p::PeerId;

/// The longest credential: a member's certificate with the delegations above it takes some hundred bytes each.
pub const MAX_CREDENTIAL: usize = 16 << 10;

const ADMITTED: u8 = 0;
const REFUSED: u8 = 1;

/// What this node needs to show that it belongs to the network, and to recognise others.
pub struct Membership {
    local: PeerId,
    network: Network,
    credential: Vec<u8>,
}

impl Membership {
    /// Of node `local`, in `network`, by `credential`.
    pub fn new(local: PeerId, network: Network, credential: Vec<u8>) -> Self {
        Self {
            local,
            network,
            credential,
        }
    }

    /// The network we are a member of.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

/// How the judge decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The other side is a member for the judge.
    Admitted,
    /// It is not.
    Refused,
}

/// Why an exchange ended without a verdict.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// They do not know the discovery secret. Our credential was not sent.
    #[error("the peer is not of our network")]
    OtherNetwork,
    /// The stream broke, ended early, or carried what it should not.
    #[error("the exchange broke off: {0}")]
    Broken(#[from] io::Error),
}

/// Shows our credential to `judge`, if it proves to be of our network.
pub async fn show<S>(
    mut stream: S,
    membership: &Membership,
    judge: PeerId,
) -> Result<Verdict, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nonce: [u8; 32] = rand::random();
    stream.write_all(&nonce).await?;
    stream.flush().await?;

    let mut tag = [0; 32];
    stream.read_exact(&mut tag).await?;
    let network = &membership.network;
    if !network.verify_auth_tag(&tag, &judge, &membership.local, &nonce) {
        return Err(Failure::OtherNetwork);
    }

    let length = u16::try_from(membership.credential.len())
        .ok()
        .filter(|length| usize::from(*length) <= MAX_CREDENTIAL)
        .ok_or_else(|| invalid("our credential is longer than peers accept"))?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&membership.credential).await?;
    stream.flush().await?;

    let mut verdict = [REFUSED];
    stream.read_exact(&mut verdict).await?;
    stream.close().await.ok(); // The verdict stands however the stream ends.
    match verdict {
        [ADMITTED] => Ok(Verdict::Admitted),
        [_] => Ok(Verdict::Refused),
    }
}

/// Proves to `shower` that we are of the network, and receives its credential. The stream is kept for the verdict.
pub async fn examine<S>(
    mut stream: S,
    membership: &Membership,
    shower: PeerId,
) -> io::Result<(Vec<u8>, S)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut nonce = [0; 32];
    stream.read_exact(&mut nonce).await?;
    let tag = membership
        .network
        .auth_tag(&membership.local, &shower, &nonce);
    stream.write_all(&tag).await?;
    stream.flush().await?;

    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > MAX_CREDENTIAL {
        return Err(invalid("the credential is too long"));
    }
    let mut credential = vec![0; length];
    stream.read_exact(&mut credential).await?;
    Ok((credential, stream))
}

/// Tells the shower our verdict, and waits until it has read it: so the connection may be closed then.
pub async fn answer<S>(mut stream: S, verdict: Verdict) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let byte = match verdict {
        Verdict::Admitted => ADMITTED,
        Verdict::Refused => REFUSED,
    };
    stream.write_all(&[byte]).await?;
    stream.close().await?;
    stream.read(&mut [0]).await.map(|_| ())
}

fn invalid(error: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use futures::{executor::block_on, io::Cursor};

    use super::*;
    use crate::swarm::tests::network;

    const CREDENTIAL: &[u8] = b"the credential";

    /// The other side, which says what it has to say whatever it hears.
    struct Script {
        says: Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.says).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.heard.extend_from_slice(buffer);
            Poll::Ready(Ok(buffer.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Script {
        fn new(says: impl Into<Vec<u8>>) -> Self {
            Self {
                says: Cursor::new(says.into()),
                heard: Vec::new(),
            }
        }
    }

    fn membership(network_number: u8) -> Membership {
        Membership::new(PeerId::random(), network(network_number), CREDENTIAL.into())
    }

    #[test]
    fn who_cannot_make_the_tag_hears_nothing_but_the_nonce() {
        let mut impostor = Script::new([[0; 32].as_slice(), &[ADMITTED]].concat());
        let outcome = block_on(show(&mut impostor, &membership(1), PeerId::random()));
        assert!(matches!(outcome, Err(Failure::OtherNetwork)));
        assert_eq!(impostor.heard.len(), 32);
    }

    #[test]
    fn a_member_of_another_network_proves_nothing_to_us() {
        let (ours, theirs) = (membership(1), membership(2));
        let nonce = [7; 32];
        let tag = theirs.network.auth_tag(&theirs.local, &ours.local, &nonce);
        let mut shower = Script::new(nonce);
        let broken = block_on(examine(&mut shower, &ours, theirs.local));
        assert!(broken.is_err(), "it shows no credential");
        assert_eq!(shower.heard.len(), 32);
        assert_ne!(shower.heard, tag);
        assert!(!theirs.network.verify_auth_tag(
            &shower.heard.try_into().unwrap(),
            &ours.local,
            &theirs.local,
            &nonce,
        ));
    }

    #[test]
    fn a_credential_has_a_greatest_length() {
        let examine_length = |length: u16| {
            let nonce = [7; 32];
            let body = vec![1; length.into()];
            let mut shower = Script::new([&nonce, length.to_be_bytes().as_slice(), &body].concat());
            let examined = block_on(examine(&mut shower, &membership(1), PeerId::random()));
            examined.map(|(credential, _)| credential.len())
        };
        assert_eq!(
            examine_length(MAX_CREDENTIAL as u16).unwrap(),
            MAX_CREDENTIAL
        );
        assert_eq!(
            examine_length(MAX_CREDENTIAL as u16 + 1)
                .unwrap_err()
                .kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(examine_length(0).unwrap(), 0);
    }

    #[test]
    fn an_exchange_that_breaks_off_ends() {
        let mut silent = Script::new([]);
        assert!(block_on(examine(&mut silent, &membership(1), PeerId::random())).is_err());
        let outcome = block_on(show(&mut silent, &membership(1), PeerId::random()));
        assert!(matches!(outcome, Err(Failure::Broken(_))));
    }
}
