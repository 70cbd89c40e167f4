//! Private keys in files for other programs, and from them: ed25519 in libp2p's encoding or as PKCS#8.
//!
//! | begins with | what it is |
//! |---|---|
//! | the bytes 08 01 | libp2p's protobuf message |
//! | `CAES` | the same in base64, as IPFS keeps it in its configuration |
//! | `-----BEGIN PRIVATE KEY-----` | PEM with PKCS#8 (RFC 8410) |
//! | `-----BEGIN ENCRYPTED PRIVATE KEY-----` | the same under a passphrase (PBES2, RFC 8018) |

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, Result as AnyResult, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use ed25519::pkcs8::{ALGORITHM_OID, EncodePrivateKey, KeypairBytes};
use hivevpn_platform::secret_file;
use libp2p::identity::Keypair;
use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument,
};
use zeroize::Zeroizing;

/// RFC 8017, appendix A.1.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// RFC 5480, section 2.1.1.
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// More than any key has.
const MAX_FILE: u64 = 64 << 10;
/// More than anybody types.
const MAX_PASSPHRASE: u64 = 4 << 10;

/// A key in a file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A key of another type.
    #[error(
        "it is a key of type {0}: members have ed25519 keys only, because certificates, addresses and signatures go by \
         the key that an ed25519 peer id contains. Make one with 'hivevpn keygen'"
    )]
    NotEd25519(&'static str),
    /// It is encrypted, and no passphrase was given.
    #[error("it is encrypted: name a file with the passphrase, with --passphrase-file")]
    PassphraseMissing,
    /// The passphrase does not open it.
    #[error("the passphrase is wrong")]
    PassphraseWrong,
    /// An OpenSSH key.
    #[error("it is an OpenSSH key: only libp2p's encoding and PEM with PKCS#8 are read")]
    OpenSsh,
    /// Anything else.
    #[error("it holds no private key in libp2p's encoding or as PEM with PKCS#8")]
    Unknown,
    /// The right beginning, but not the rest.
    #[error("it is damaged")]
    Damaged,
}

/// Reads a key from a file that another program or another machine wrote. That others could have read it too is worth a
/// warning; on a medium without permissions it cannot be otherwise.
pub fn read(path: &Path, passphrase_file: Option<&Path>) -> AnyResult<Keypair> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    if let Err(loose) = secret_file::check(path) {
        tracing::warn!("{loose}");
    }
    // Room for everything from the start: growing would leave copies behind that nobody wipes.
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize));
    file.take(MAX_FILE)
        .read_to_end(&mut content)
        .with_context(|| path.display().to_string())?;
    let passphrase = passphrase_file.map(passphrase).transpose()?;
    let passphrase = passphrase.as_ref().map(|text| text.as_str());
    parse(&content, passphrase).with_context(|| path.display().to_string())
}

/// The first line of a file, or of standard input if that is called `-`.
pub fn passphrase(path: &Path) -> AnyResult<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(MAX_PASSPHRASE as usize));
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_PASSPHRASE)
            .read_line(&mut line)
    } else {
        File::open(path)
            .and_then(|file| BufReader::new(file.take(MAX_PASSPHRASE)).read_line(&mut line))
    };
    read.with_context(|| path.display().to_string())?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    ensure!(
        !line.is_empty(),
        "{}: its first line is empty, but it should be a passphrase",
        path.display()
    );
    Ok(line)
}

/// Reads a key from a file's content.
pub fn parse(content: &[u8], passphrase: Option<&str>) -> Result<Keypair, KeyFileError> {
    if let [0x08, ..] = content {
        return libp2p(content);
    }
    let text = std::str::from_utf8(content).map_err(|_| KeyFileError::Unknown)?;
    let text = text.trim();
    if text.starts_with("-----BEGIN ") {
        return pem(text, passphrase);
    }
    let decoded = BASE64.decode(text).map_err(|_| KeyFileError::Unknown)?;
    libp2p(&Zeroizing::new(decoded))
}

/// <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#keys>: field 1 is the type.
fn libp2p(message: &[u8]) -> Result<Keypair, KeyFileError> {
    match message {
        [0x08, 1, ..] => {
            Keypair::from_protobuf_encoding(message).map_err(|_| KeyFileError::Damaged)
        }
        [0x08, 0, ..] => Err(KeyFileError::NotEd25519("RSA")),
        [0x08, 2, ..] => Err(KeyFileError::NotEd25519("secp256k1")),
        [0x08, 3, ..] => Err(KeyFileError::NotEd25519("ECDSA")),
        _ => Err(KeyFileError::Unknown),
    }
}

fn pem(text: &str, passphrase: Option<&str>) -> Result<Keypair, KeyFileError> {
    let label = text.lines().next().unwrap_or_default();
    match label.trim_matches(|c| c == '-') {
        "BEGIN PRIVATE KEY" => {
            let (_, der) = SecretDocument::from_pem(text).map_err(|_| KeyFileError::Damaged)?;
            pkcs8(der.as_bytes())
        }
        "BEGIN ENCRYPTED PRIVATE KEY" => {
            let passphrase = passphrase.ok_or(KeyFileError::PassphraseMissing)?;
            let (_, der) = SecretDocument::from_pem(text).map_err(|_| KeyFileError::Damaged)?;
            let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_bytes())
                .map_err(|_| KeyFileError::Damaged)?;
            let opened = encrypted
                .decrypt(passphrase)
                .map_err(|_| KeyFileError::PassphraseWrong)?;
            pkcs8(opened.as_bytes())
        }
        "BEGIN RSA PRIVATE KEY" => Err(KeyFileError::NotEd25519("RSA")),
        "BEGIN EC PRIVATE KEY" => Err(KeyFileError::NotEd25519("ECDSA")),
        "BEGIN OPENSSH PRIVATE KEY" => Err(KeyFileError::OpenSsh),
        _ => Err(KeyFileError::Unknown),
    }
}

fn pkcs8(der: &[u8]) -> Result<Keypair, KeyFileError> {
    let key = PrivateKeyInfoRef::try_from(der).map_err(|_| KeyFileError::Damaged)?;
    match key.algorithm.oid {
        ALGORITHM_OID => {}
        RSA => return Err(KeyFileError::NotEd25519("RSA")),
        ELLIPTIC => return Err(KeyFileError::NotEd25519("ECDSA")),
        _ => return Err(KeyFileError::NotEd25519("another kind")),
    }
    let bytes = KeypairBytes::try_from(key).map_err(|_| KeyFileError::Damaged)?;
    let mut seed = Zeroizing::new(bytes.secret_key);
    let keypair = Keypair::ed25519_from_bytes(&mut *seed).map_err(|_| KeyFileError::Damaged)?;
    // A file with both halves must hold two that belong together.
    match (bytes.public_key, keypair.public().try_into_ed25519()) {
        (Some(theirs), Ok(ours)) if theirs.to_bytes() != ours.to_bytes() => {
            Err(KeyFileError::Damaged)
        }
        (Some(_) | None, _) => Ok(keypair),
    }
}

/// A key in libp2p's encoding.
pub fn to_libp2p(keypair: &Keypair) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let encoded = keypair.to_protobuf_encoding();
    encoded
        .map(Zeroizing::new)
        .map_err(|_| KeyFileError::NotEd25519("another kind"))
}

/// A key as PEM with PKCS#8, encrypted if there is a passphrase.
pub fn to_pem(
    keypair: &Keypair,
    passphrase: Option<&str>,
) -> Result<Zeroizing<String>, KeyFileError> {
    let keypair = keypair.clone().try_into_ed25519();
    let keypair = keypair.map_err(|_| KeyFileError::NotEd25519("another kind"))?;
    let mut secret_key = [0; 32];
    secret_key.copy_from_slice(keypair.secret().as_ref());
    // Without the public half: older programs refuse a file that has both.
    let bytes = KeypairBytes {
        secret_key,
        public_key: None,
    };
    let pem = match passphrase {
        Some(passphrase) => bytes.to_pkcs8_encrypted_pem(passphrase, LineEnding::LF),
        None => bytes.to_pkcs8_pem(LineEnding::LF),
    };
    pem.map_err(|_| KeyFileError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// <https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md#test-vectors>
    const SPEC_PRIVATE: &str = "080112407e0830617c4a7de83925dfb2694556b12936c477a0e1feb2e148ec9da60fee7d\
                                1ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";
    const SPEC_PUBLIC: &str =
        "080112201ed1e8fae2c4a144b8be8fd4b47bf3d3b34b871c3cacf6010f0e42d474fce27e";

    /// What OpenSSL 3 made of the same seed: `openssl pkey -inform DER -outform PEM`.
    const SPEC_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
                            MC4CAQAwBQYDK2VwBCIEIH4IMGF8Sn3oOSXfsmlFVrEpNsR3oOH+suFI7J2mD+59\n\
                            -----END PRIVATE KEY-----\n";

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(|c| c.is_ascii_hexdigit()).collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_key_of_libp2ps_specification_has_the_peer_id_of_the_specification() {
        let keypair = parse(&hex(SPEC_PRIVATE), None).unwrap();
        assert_eq!(keypair.public().encode_protobuf(), hex(SPEC_PUBLIC));
        // The spec: a key of up to 42 bytes is its peer id, behind the multihash's name and length.
        let mut identity_multihash = vec![0x00, 0x24];
        identity_multihash.extend(hex(SPEC_PUBLIC));
        let peer = keypair.public().to_peer_id();
        assert_eq!(peer.to_bytes(), identity_multihash);
        assert_eq!(*to_libp2p(&keypair).unwrap(), hex(SPEC_PRIVATE));
        // The core derives peer ids from keys by itself; it must be the same one.
        let signer = hivevpn_core::membership::Signer::new(keypair).unwrap();
        assert_eq!(signer.peer_id(), peer);
    }

    #[test]
    fn one_key_in_all_encodings_is_one_key() {
        let message = hex(SPEC_PRIVATE);
        let base64 = BASE64.encode(&message) + "\n";
        assert!(base64.starts_with("CAES"));
        let expected = parse(&message, None).unwrap().public();
        for content in [base64.as_bytes(), SPEC_PEM.as_bytes()] {
            assert_eq!(parse(content, None).unwrap().public(), expected);
        }
        assert_eq!(
            *to_pem(&parse(&message, None).unwrap(), None).unwrap(),
            SPEC_PEM
        );
    }

    #[test]
    fn an_encrypted_key_opens_with_its_passphrase_and_no_other() {
        let keypair = Keypair::generate_ed25519();
        let pem = to_pem(&keypair, Some("correct horse")).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
        let opened = parse(pem.as_bytes(), Some("correct horse")).unwrap();
        assert_eq!(opened.public(), keypair.public());
        let error = |passphrase| parse(pem.as_bytes(), passphrase).unwrap_err();
        assert_eq!(error(None), KeyFileError::PassphraseMissing);
        assert_eq!(error(Some("battery staple")), KeyFileError::PassphraseWrong);
    }

    #[test]
    fn keys_of_other_types_are_refused_by_their_name() {
        let error = |content: &[u8]| parse(content, None).unwrap_err();
        for (content, kind) in [
            (&[0x08, 0x00, 0x12, 0x01, 0x00][..], "RSA"),
            (&[0x08, 0x02, 0x12, 0x01, 0x00], "secp256k1"),
            (b"-----BEGIN RSA PRIVATE KEY-----\n", "RSA"),
            (b"-----BEGIN EC PRIVATE KEY-----\n", "ECDSA"),
            // The smallest PKCS#8 that names RSA.
            (
                b"-----BEGIN PRIVATE KEY-----\nMBUCAQAwDQYJKoZIhvcNAQEBBQAEATA=\n-----END PRIVATE KEY-----\n",
                "RSA",
            ),
        ] {
            assert_eq!(error(content), KeyFileError::NotEd25519(kind));
        }
        assert_eq!(
            error(b"-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            KeyFileError::OpenSsh
        );
        for content in [
            &b""[..],
            b"letmein",
            b"-----BEGIN CERTIFICATE-----\n",
            &[0xff; 40],
        ] {
            assert_eq!(error(content), KeyFileError::Unknown);
        }
        assert_eq!(error(&hex(SPEC_PRIVATE)[..40]), KeyFileError::Damaged);
    }
}
