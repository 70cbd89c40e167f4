//! libp2p's TLS (its specification "TLS Handshake"), with the ciphers in our order.
//!
//! libp2p-tls makes and checks the certificates: self-signed, with an extension in which the node's identity signs the
//! certificate's key. Its ready-made configurations prefer ChaCha20, always; where the processor has instructions for
//! AES, that is several times faster, and a relay does little else than sealing and opening.

use std::sync::Arc;

use libp2p::{PeerId, identity::Keypair};
use libp2p_tls::certificate;
use quinn::rustls::{
    self, CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName,
    ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};

use super::error::Error;

/// What libp2p calls itself in TLS.
const ALPN: &[u8] = b"libp2p";

/// For a dial: refuses anybody but `expected`, if given.
pub(super) fn client(keypair: &Keypair, expected: Option<PeerId>) -> Result<ClientConfig, Error> {
    let own = own_certificate(keypair)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerCertificate { expected }))
        .with_client_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// For a listener: whoever dials must prove an identity as well.
pub(super) fn server(keypair: &Keypair) -> Result<ServerConfig, Error> {
    let own = own_certificate(keypair)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(PeerCertificate { expected: None }))
        .with_cert_resolver(own);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn own_certificate(keypair: &Keypair) -> Result<Arc<SingleCertAndKey>, Error> {
    let (certificate, key) = certificate::generate(keypair)?;
    let key = aws_lc_rs::sign::any_ecdsa_type(&key)?;
    let certified = CertifiedKey::new(vec![certificate], key);
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let aes_is_fast = has_aes_instructions();
    // The dialer's order counts, and the sort keeps the order of the rest.
    provider.cipher_suites.sort_by_key(|suite| {
        let is_chacha = suite.suite() == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        is_chacha == aes_is_fast
    });
    provider
}

fn has_aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Checks what the peer presents: exactly one certificate, signed by itself and by the identity that it names.
#[derive(Debug)]
struct PeerCertificate {
    /// The identity it must name.
    expected: Option<PeerId>,
}

impl PeerCertificate {
    fn check(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        // Checks both signatures.
        let peer = certificate::parse(presented)?.peer_id();
        match self.expected {
            Some(expected) if expected != peer => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// That the peer holds the key of the certificate it presented.
fn check_handshake(
    message: &[u8],
    presented: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let presented = certificate::parse(presented)?;
    presented.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// Only TLS 1.3 is offered.
fn refuse_tls12() -> Result<HandshakeSignatureValid, rustls::Error> {
    Err(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
}

/// Those of elliptic curves; the certificates that libp2p-tls makes are of the first.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ]
}

impl ServerCertVerifier for PeerCertificate {
    fn verify_server_cert(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(presented, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake(message, presented, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for PeerCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        presented: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(presented, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        presented: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake(message, presented, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use quinn::rustls::{ClientConnection, ServerConnection};

    use super::*;

    /// Lets two ends talk until both are done or one refuses.
    fn shake_hands(
        client: ClientConfig,
        server: ServerConfig,
    ) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
        let name = ServerName::try_from("peer.invalid").unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name)?;
        let mut server = ServerConnection::new(Arc::new(server))?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok((client, server))
    }

    fn node() -> (Keypair, PeerId) {
        let keypair = Keypair::generate_ed25519();
        let peer = keypair.public().to_peer_id();
        (keypair, peer)
    }

    #[test]
    fn each_end_learns_who_the_other_is() {
        let ((ours, us), (theirs, they)) = (node(), node());
        let (mut client, mut server) =
            shake_hands(client(&ours, Some(they)).unwrap(), server(&theirs).unwrap()).unwrap();
        let who = |presented: Option<&[CertificateDer<'_>]>| {
            certificate::parse(&presented.unwrap()[0])
                .unwrap()
                .peer_id()
        };
        assert_eq!(who(client.peer_certificates()), they);
        assert_eq!(who(server.peer_certificates()), us);
        client.writer().write_all(b"hello").unwrap();
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut heard = [0; 5];
        server.reader().read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[test]
    fn nobody_but_the_expected_peer_is_talked_to() {
        let ((ours, us), (theirs, _)) = (node(), node());
        let refused = shake_hands(client(&ours, Some(us)).unwrap(), server(&theirs).unwrap());
        assert!(matches!(
            refused,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure
            ))
        ));
    }

    #[test]
    fn a_dialer_without_an_identity_is_refused() {
        let (theirs, they) = node();
        let nobody = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerCertificate {
                expected: Some(they),
            }))
            .with_no_client_auth();
        let mut server = server(&theirs).unwrap();
        server.alpn_protocols.clear();
        assert!(shake_hands(nobody, server).is_err());
    }

    #[test]
    fn another_nodes_certificate_without_its_key_is_worth_nothing() {
        let ((ours, us), (theirs, _)) = (node(), node());
        let (stolen, _) = certificate::generate(&ours).unwrap();
        let (_, own_key) = certificate::generate(&theirs).unwrap();
        let key = aws_lc_rs::sign::any_ecdsa_type(&own_key).unwrap();
        let mut impostor = server(&theirs).unwrap();
        let pretended = SingleCertAndKey::from(CertifiedKey::new(vec![stolen], key));
        impostor.cert_resolver = Arc::new(pretended);
        let (dialer, _) = node();
        let refused = shake_hands(client(&dialer, Some(us)).unwrap(), impostor);
        assert!(matches!(
            refused,
            Err(rustls::Error::InvalidCertificate(
                CertificateError::BadSignature
            ))
        ));
    }

    #[test]
    fn aes_is_chosen_exactly_where_the_processor_is_fast_at_it() {
        let ((ours, _), (theirs, they)) = (node(), node());
        let (client, _) =
            shake_hands(client(&ours, Some(they)).unwrap(), server(&theirs).unwrap()).unwrap();
        let chosen = client.negotiated_cipher_suite().unwrap().suite();
        let is_chacha = chosen == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        assert_eq!(is_chacha, !has_aes_instructions(), "{chosen:?}");
    }
}
