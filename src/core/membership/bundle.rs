//! An admission that is carried by hand: one printable string for a node that was admitted without being there.
//!
//! A delegate that knows a node's key certifies it, and hands over what the node would have been answered had it asked
//! by an invite: `admit1` and the base58check of that [`Admission`]; the digit is the version of the format. Only the
//! node with the certified key can use it, and any number of times. It contains the discovery secret, so it is to be
//! kept from others all the same. Which network it is for, nothing else vouches: it is as good as the way it came.

use std::fmt;

use zeroize::Zeroizing;

use super::{
    certificate::Certificate,
    genesis::Genesis,
    join::{Admission, JoinAnswer, Joined},
    rejection::Rejection,
    signer::SignerKey,
    time::UnixTime,
    wire,
};

const PREFIX: &str = "admit";
const VERSION: char = '1';

/// A string longer than this is no bundle; decoding base58 takes quadratic time.
const MAX_PRINTED: usize = 8 * 1024;

/// Member records in a bundle take no more than these many bytes beside the first one, so that the string stays below
/// the 4096 characters that a terminal takes in a line.
const MAX_RECORDS: usize = 1200;

/// What a node that was admitted by hand is given. Contains the discovery secret.
#[derive(Clone)]
pub struct Bundle {
    admission: Admission,
    genesis: Genesis,
    certificate: Certificate,
}

/// A string is not a bundle that this node can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It does not start like one.
    #[error("this is not an admission: an admission starts with `admit1`")]
    NotABundle,
    /// A character is wrong or missing.
    #[error("the admission is damaged or cut short: copy it again, all of it")]
    Damaged,
    /// The format has a higher version.
    #[error("the admission was made by a newer hivevpn: update this one")]
    NewerVersion,
    /// Its characters are right, what they say is not.
    #[error("the admission is not genuine ({0}): have this node admitted again")]
    NotGenuine(Rejection),
    /// It names another key.
    #[error(
        "the admission is for the node {admitted}, but this one is {own}: have this one admitted, by what 'hivevpn id' \
         prints here"
    )]
    ForAnotherNode {
        /// Who was admitted.
        admitted: SignerKey,
        /// Who we are.
        own: SignerKey,
    },
    /// The certificate's time is over.
    #[error("the admission has expired: have this node admitted again with 'hivevpn admit'")]
    Expired,
}

impl Bundle {
    /// Whether `text` wants to be a bundle, rather than an invite.
    pub fn is_meant_by(text: &str) -> bool {
        text.trim_start().starts_with(PREFIX)
    }

    /// A bundle of an encoded answer that admits.
    pub fn of_answer(answer: &[u8]) -> Result<Bundle, Rejection> {
        match wire::decode_message(answer)? {
            JoinAnswer::Admitted(admission) => Bundle::open(admission),
            JoinAnswer::Refused(_) | JoinAnswer::Renewed(_) => {
                Err(Rejection::Malformed("an answer that admits nobody"))
            }
        }
    }

    fn open(admission: Admission) -> Result<Bundle, Rejection> {
        let genesis = admission.open_genesis()?;
        let certificate = admission.open_certificate(&genesis)?;
        Ok(Bundle {
            admission,
            genesis,
            certificate,
        })
    }

    /// Reads what [`to_printable`](Bundle::to_printable) wrote. White space anywhere in it is forgiven.
    pub fn parse(text: &str) -> Result<Bundle, BundleError> {
        let text: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).collect());
        let versioned = text.strip_prefix(PREFIX).ok_or(BundleError::NotABundle)?;
        let mut rest = versioned.chars();
        match rest.next() {
            Some(VERSION) => {}
            Some('2'..='9') => return Err(BundleError::NewerVersion),
            Some(_) | None => return Err(BundleError::NotABundle),
        }
        if text.len() > MAX_PRINTED {
            return Err(BundleError::Damaged);
        }
        let decoded = bs58::decode(rest.as_str()).with_check(None).into_vec();
        let decoded = Zeroizing::new(decoded.map_err(|_| BundleError::Damaged)?);
        wire::decode(&decoded)
            .and_then(Bundle::open)
            .map_err(BundleError::NotGenuine)
    }

    /// The string to hand to whoever runs the node. Contains the discovery secret.
    pub fn to_printable(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(wire::encode(
            &self.admission.with_records_up_to(MAX_RECORDS),
        ));
        let encoded = Zeroizing::new(bs58::encode(&*bytes).with_check().into_string());
        Zeroizing::new(format!("{PREFIX}{VERSION}{}", *encoded))
    }

    /// The founding document of the network it is for.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// What it certifies.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Takes part, as the node with the key `own`.
    pub fn accept(&self, own: &SignerKey, now: UnixTime) -> Result<Joined, BundleError> {
        let admitted = self.certificate.subject;
        if admitted != *own {
            return Err(BundleError::ForAnotherNode {
                admitted,
                own: *own,
            });
        }
        match self.admission.clone().join(self.genesis.clone(), own, now) {
            Ok(joined) => Ok(joined),
            Err(Rejection::Expired) => Err(BundleError::Expired),
            Err(rejection) => Err(BundleError::NotGenuine(rejection)),
        }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle")
            .field("network", self.genesis.name())
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::{
        JoinRefusal,
        testing::{DAY, Hive, NOW, applicant, later, signer},
    };

    /// What node 1 is given, admitted by its key alone.
    fn bundle() -> Bundle {
        let mut hive = Hive::founded();
        for other in 2..8 {
            hive.admit(&signer(other), "other", None);
        }
        let applicant = applicant(&signer(1), "laptop", None);
        let credential = hive
            .issuer
            .admit(applicant, NOW, &mut hive.directory)
            .unwrap();
        let us = crate::membership::testing::founder().peer_id();
        let answer = JoinAnswer::admitted(&hive.network, credential, &us, &hive.directory);
        Bundle::of_answer(&answer.encode()).unwrap()
    }

    #[test]
    fn a_bundle_survives_being_printed_and_mailed() {
        let printed = bundle().to_printable();
        assert!(printed.starts_with("admit1") && Bundle::is_meant_by(&printed));
        let (head, tail) = printed.split_at(80);
        let parsed = Bundle::parse(&format!("\n {head}\r\n\t{tail} \n")).unwrap();
        let joined = parsed.accept(&signer(1).key(), NOW).unwrap();
        assert_eq!(joined.certificate.name.as_str(), "laptop");
        assert_eq!(joined.network.id(), Hive::founded().network.id());
        assert!(!joined.records.is_empty(), "it knows whom to turn to");
    }

    #[test]
    fn a_bundle_fits_a_line_of_a_terminal_in_a_network_of_any_size() {
        let printed = bundle().to_printable();
        assert!(printed.len() < 4096, "{} characters", printed.len());
    }

    #[test]
    fn a_bundle_is_of_no_use_to_another_node() {
        let error = bundle().accept(&signer(2).key(), NOW).unwrap_err();
        assert!(
            matches!(error, BundleError::ForAnotherNode { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_bundle_is_good_for_as_long_as_its_certificate() {
        let bundle = bundle();
        let own = signer(1).key();
        assert!(bundle.accept(&own, later(29)).is_ok());
        let error = bundle.accept(&own, later(31)).unwrap_err();
        assert_eq!(error, BundleError::Expired);
        // A machine whose clock starts in 1970 takes the certificate's word for the time.
        let early = bundle.accept(&own, UnixTime(0)).unwrap();
        assert!(early.time.0 > NOW.0 - DAY);
    }

    #[test]
    fn what_is_wrong_with_a_string_is_told_apart() {
        let error = |text: &str| Bundle::parse(text).unwrap_err();
        for text in ["", "admit", "hive1abc", "https://example.com"] {
            assert_eq!(error(text), BundleError::NotABundle, "{text}");
        }
        assert_eq!(error("admit2whatever"), BundleError::NewerVersion);
        let printed = bundle().to_printable();
        for cut in (6..printed.len()).step_by(97) {
            assert_eq!(error(&printed[..cut]), BundleError::Damaged, "{cut}");
        }
    }

    /// The attack: other groups or another address, with the checksum repaired.
    #[test]
    fn a_tampered_bundle_is_not_genuine() {
        let mut bundle = bundle();
        let certificate = &mut bundle.admission.credential_mut().certificate;
        let middle = certificate.len() / 2;
        certificate[middle] ^= 1;
        assert!(matches!(
            Bundle::parse(&bundle.to_printable()),
            Err(BundleError::NotGenuine(_))
        ));
    }

    #[test]
    fn an_answer_that_refuses_is_no_bundle() {
        let answer = JoinAnswer::Refused(JoinRefusal::NetworkFull);
        assert!(Bundle::of_answer(&answer.encode()).is_err());
    }

    proptest! {
        #[test]
        fn random_text_and_random_bytes_never_panic(
            text in any::<String>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = Bundle::parse(&format!("admit1{text}"));
            let printed = format!("admit1{}", bs58::encode(bytes).with_check().into_string());
            prop_assert!(Bundle::parse(&printed).is_err());
        }
    }
}
