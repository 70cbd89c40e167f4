//! An invite: one printable string that lets one node join.
//!
//! It holds the [`Terms`], signed by the node that made it, addresses of that node, and a secret
//! key that signs the join request. The secret never travels to the issuer, so watching a join is
//! not enough to repeat it. The string is `hive1` and the base58check of a CBOR map; the digit is
//! the version of the format.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr};

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use super::{
    envelope::{self, Domain},
    genesis::NetworkId,
    name::Name,
    rejection::Rejection,
    signer::{Signer, SignerKey},
    time::UnixTime,
    wire,
};

const PREFIX: &str = "hive";
const VERSION: char = '1';

/// A string longer than this is no invite; decoding base58 takes quadratic time.
const MAX_PRINTED: usize = 8 * 1024;

/// Enough for both families of a few interfaces; each makes the string about 30 characters longer.
pub const MAX_INVITE_ADDRESSES: usize = 8;

/// What the issuer offers to whoever holds the invite's secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Terms {
    /// The network to join.
    #[n(0)]
    pub network: NetworkId,
    /// What people call that network.
    #[n(1)]
    pub network_name: Name,
    /// The invite's public key, and thereby its id.
    #[n(2)]
    pub id: SignerKey,
    /// The last second at which it admits anyone.
    #[n(3)]
    pub expires: UnixTime,
    /// What the new member will be called; its own choice, if none.
    #[n(4)]
    pub name: Option<Name>,
    /// The groups it will be in.
    #[n(5)]
    pub groups: BTreeSet<Name>,
    /// Its address; its own choice, if none.
    #[n(6)]
    pub ipv4: Option<Ipv4Addr>,
}

/// An invite, secret included.
#[derive(Clone)]
pub struct Invite {
    terms: Terms,
    issuer: SignerKey,
    envelope: Vec<u8>,
    addresses: Vec<Multiaddr>,
    secret: Zeroizing<[u8; 32]>,
}

/// A string is not an invite that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// It does not start like an invite.
    #[error("this is not an invite: an invite starts with `hive1`")]
    NotAnInvite,
    /// A character is wrong or missing.
    #[error("the invite is damaged or cut short: copy it again, all of it")]
    Damaged,
    /// The format has a higher version.
    #[error("the invite was made by a newer hivevpn: update this one")]
    NewerVersion,
    /// Its characters are right, what they say is not.
    #[error("the invite is not genuine ({0}): ask for a new one")]
    NotGenuine(Rejection),
    /// Its time is over.
    #[error("the invite has expired: ask for a new one")]
    Expired,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Printed {
    #[cbor(n(0), with = "minicbor::bytes")]
    envelope: Vec<u8>,
    #[cbor(n(1), with = "wire::addresses")]
    addresses: Vec<Multiaddr>,
    #[cbor(n(2), with = "wire::secret")]
    secret: Zeroizing<[u8; 32]>,
}

impl Terms {
    /// Reads signed terms; answers who signed them as well.
    pub(super) fn open(bytes: &[u8]) -> Result<(Terms, SignerKey), Rejection> {
        let opened = envelope::open::<Terms>(Domain::Invite, bytes)?;
        Ok((opened.payload, opened.signer))
    }
}

impl Invite {
    /// Signs terms whose id is the public key of `secret`.
    pub(super) fn seal(
        terms: Terms,
        issuer: &Signer,
        mut addresses: Vec<Multiaddr>,
        secret: Zeroizing<[u8; 32]>,
    ) -> Invite {
        addresses.retain(|a| a.as_ref().len() <= super::descriptor::MAX_ADDRESS_LEN);
        addresses.truncate(MAX_INVITE_ADDRESSES);
        Invite {
            envelope: envelope::seal(issuer, Domain::Invite, &terms),
            issuer: issuer.key(),
            terms,
            addresses,
            secret,
        }
    }

    /// Reads what [`to_printable`](Invite::to_printable) wrote. White space anywhere in it is
    /// forgiven: chat programs and terminals break lines.
    pub fn parse(text: &str) -> Result<Invite, InviteError> {
        let text: Zeroizing<String> =
            Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).collect());
        let versioned = text.strip_prefix(PREFIX).ok_or(InviteError::NotAnInvite)?;
        let mut rest = versioned.chars();
        match rest.next() {
            Some(VERSION) => {}
            Some('2'..='9') => return Err(InviteError::NewerVersion),
            Some(_) | None => return Err(InviteError::NotAnInvite),
        }
        if text.len() > MAX_PRINTED {
            return Err(InviteError::Damaged);
        }
        let decoded = bs58::decode(rest.as_str()).with_check(None).into_vec();
        let decoded = Zeroizing::new(decoded.map_err(|_| InviteError::Damaged)?);
        Invite::decode(&decoded).map_err(InviteError::NotGenuine)
    }

    fn decode(bytes: &[u8]) -> Result<Invite, Rejection> {
        let printed: Printed = wire::decode(bytes)?;
        let (terms, issuer) = Terms::open(&printed.envelope)?;
        if Signer::from_seed(&printed.secret).key() != terms.id {
            return Err(Rejection::BadSignature);
        }
        Ok(Invite {
            terms,
            issuer,
            envelope: printed.envelope,
            addresses: printed.addresses,
            secret: printed.secret,
        })
    }

    /// The string to hand to whoever is to join. Contains the secret.
    pub fn to_printable(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(wire::encode(&Printed {
            envelope: self.envelope.clone(),
            addresses: self.addresses.clone(),
            secret: self.secret.clone(),
        }));
        let encoded = Zeroizing::new(bs58::encode(&*bytes).with_check().into_string());
        Zeroizing::new(format!("{PREFIX}{VERSION}{}", *encoded))
    }

    /// Whether it is still good, as far as one can tell without asking.
    pub fn check_time(&self, now: UnixTime) -> Result<(), InviteError> {
        if now > self.terms.expires {
            Err(InviteError::Expired)
        } else {
            Ok(())
        }
    }

    /// Its id: the public half of its secret.
    pub fn id(&self) -> SignerKey {
        self.terms.id
    }

    /// What it offers.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The node that made it, the only one that admits by it.
    pub fn issuer(&self) -> PeerId {
        self.issuer.peer_id()
    }

    pub(super) fn issuer_key(&self) -> SignerKey {
        self.issuer
    }

    /// Where that node was when it made it.
    pub fn addresses(&self) -> &[Multiaddr] {
        &self.addresses
    }

    /// The terms as signed.
    pub(super) fn envelope(&self) -> &[u8] {
        &self.envelope
    }

    /// Signs as the holder of the invite.
    pub(super) fn signer(&self) -> Signer {
        Signer::from_seed(&self.secret)
    }
}

impl fmt::Debug for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invite")
            .field("terms", &self.terms)
            .field("issuer", &self.issuer)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::membership::testing::{Hive, NOW, offer};

    fn invite() -> Invite {
        Hive::founded()
            .issuer
            .invite(offer(), secret(), NOW)
            .unwrap()
    }

    fn secret() -> Zeroizing<[u8; 32]> {
        Zeroizing::new([0xcd; 32])
    }

    fn error(text: &str) -> InviteError {
        Invite::parse(text).unwrap_err()
    }

    #[test]
    fn an_invite_survives_being_printed() {
        let invite = invite();
        let printed = invite.to_printable();
        assert!(printed.starts_with("hive1"));
        let parsed = Invite::parse(&printed).unwrap();
        assert_eq!(parsed.terms(), invite.terms());
        assert_eq!(parsed.issuer(), invite.issuer());
        assert_eq!(parsed.addresses(), invite.addresses());
        assert_eq!(parsed.secret, invite.secret);
    }

    #[test]
    fn an_invite_fits_a_terminal_and_a_qr_code() {
        let printed = invite().to_printable();
        assert!(printed.len() < 600, "{} characters", printed.len());
    }

    #[test]
    fn line_breaks_and_spaces_are_forgiven() {
        let printed = invite().to_printable();
        let (head, tail) = printed.split_at(80);
        let mailed = format!("\n  {head}\r\n\t{tail} \n");
        assert_eq!(Invite::parse(&mailed).unwrap().id(), invite().id());
    }

    #[test]
    fn something_else_is_not_called_damaged() {
        for text in ["", "hive", "hiv", "https://example.com", "hivemind"] {
            assert_eq!(error(text), InviteError::NotAnInvite, "{text}");
        }
        assert_eq!(error("hive2whatever"), InviteError::NewerVersion);
    }

    #[test]
    fn a_truncated_or_mistyped_invite_is_called_damaged() {
        let printed = invite().to_printable();
        for len in 5..printed.len() {
            assert_eq!(error(&printed[..len]), InviteError::Damaged, "{len}");
        }
        for at in (5..printed.len()).step_by(7) {
            let typo = if &printed[at..=at] == "x" { "y" } else { "x" };
            let mut mistyped = printed.to_string();
            mistyped.replace_range(at..=at, typo);
            assert_eq!(error(&mistyped), InviteError::Damaged, "{at}");
        }
    }

    /// The attack: change the terms (more groups, no expiry) and repair the checksum.
    #[test]
    fn tampered_terms_are_not_genuine() {
        let invite = invite();
        for at in 0..invite.envelope.len() {
            let mut tampered = invite.clone();
            tampered.envelope[at] ^= 1;
            assert!(
                matches!(error(&tampered.to_printable()), InviteError::NotGenuine(_)),
                "byte {at}"
            );
        }
    }

    #[test]
    fn terms_with_another_invites_secret_are_not_genuine() {
        let mut tampered = invite();
        *tampered.secret = [1; 32];
        assert_eq!(
            error(&tampered.to_printable()),
            InviteError::NotGenuine(Rejection::BadSignature)
        );
    }

    #[test]
    fn an_invite_is_good_until_it_expires() {
        let invite = invite();
        let last = invite.terms().expires;
        assert_eq!(invite.check_time(last), Ok(()));
        assert_eq!(
            invite.check_time(UnixTime(last.0 + 1)),
            Err(InviteError::Expired)
        );
    }

    #[test]
    fn the_secret_does_not_show_in_debug_output() {
        let shown = format!("{:?}", invite()).to_lowercase();
        assert!(
            !shown.contains("cdcd") && !shown.contains("205, 205"),
            "{shown}"
        );
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in any::<String>()) {
            let _ = Invite::parse(&format!("hive1{text}"));
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let printed = bs58::encode(bytes).with_check().into_string();
            let is_refused = matches!(
                Invite::parse(&format!("hive1{printed}")),
                Err(InviteError::NotGenuine(_))
            );
            prop_assert!(is_refused);
        }
    }
}
