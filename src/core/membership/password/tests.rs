//! Who gets in, and all the ways not to.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::membership::testing::{name, signer};

fn seed(number: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([number; 32])
}

fn record(password: &str) -> PasswordRecord {
    PasswordRecord::of(password.as_bytes(), &seed(1)).unwrap()
}

fn parties(network: &str, client: u8, server: u8) -> Parties {
    Parties {
        purpose: "hivevpn/v1/test",
        name: name(network),
        client: signer(client).peer_id(),
        server: signer(server).peer_id(),
    }
}

fn begin(password: &str, parties: &Parties) -> (Login, Vec<u8>) {
    Login::begin(password.as_bytes(), parties, [seed(2), seed(3)]).unwrap()
}

/// A whole login, each side with its own idea of the parties.
fn login(
    record: &PasswordRecord,
    password: &str,
    at_client: &Parties,
    at_server: &Parties,
) -> Option<(SessionKey, SessionKey)> {
    let (login, begun) = begin(password, at_client);
    let random = &mut Random::new(&seed(4));
    let (challenge, message) = record.challenge(&begun, at_server, random).unwrap();
    let (ours, proof) = login.answer(&message).ok()?;
    let theirs = challenge
        .check(&proof)
        .expect("a client that found the server genuine convinces it");
    Some((ours, theirs))
}

#[test]
fn the_right_password_gives_both_sides_one_key() {
    let parties = parties("home", 1, 2);
    let (ours, theirs) = login(
        &record("correct horse"),
        "correct horse",
        &parties,
        &parties,
    )
    .unwrap();
    let tag = ours.tag("admission", b"bytes");
    assert!(theirs.verify(&tag, "admission", b"bytes"));
    assert!(!theirs.verify(&tag, "admission", b"other"));
    assert!(!theirs.verify(&tag, "another", b"bytes"));
}

#[test]
fn a_wrong_password_fails_at_the_client_which_then_sends_nothing() {
    let parties = parties("home", 1, 2);
    for wrong in ["correct horsf", "Correct horse", "correct horse ", "x"] {
        assert!(
            login(&record("correct horse"), wrong, &parties, &parties).is_none(),
            "{wrong}"
        );
    }
}

#[test]
fn a_wrong_name_another_purpose_or_another_peer_fails_like_a_wrong_password() {
    let record = record("pw");
    let right = parties("home", 1, 2);
    let purpose = Parties {
        purpose: "hivevpn/v1/other",
        ..right.clone()
    };
    for wrong in [
        parties("homf", 1, 2),
        parties("home", 3, 2),
        parties("home", 1, 3),
        parties("home", 2, 1),
        purpose,
    ] {
        assert!(login(&record, "pw", &wrong, &right).is_none(), "{wrong:?}");
    }
    assert!(login(&record, "pw", &right, &right).is_some());
}

#[test]
fn a_decoy_answers_like_a_record_and_no_password_fits() {
    let parties = parties("home", 1, 2);
    let decoy = PasswordRecord::decoy(&seed(9));
    let (_, begun) = begin("pw", &parties);
    let length = |record: &PasswordRecord| {
        let answer = record.challenge(&begun, &parties, &mut Random::new(&seed(4)));
        answer.unwrap().1.len()
    };
    assert_eq!(length(&decoy), length(&record("pw")));
    assert!(login(&decoy, "pw", &parties, &parties).is_none());
}

/// The first element of the answer is the blinded password under the server's key: of the same password it must be
/// the same after a restart, with and without a record.
#[test]
fn a_decoy_of_the_same_seed_is_the_same() {
    let parties = parties("home", 1, 2);
    let (_, begun) = begin("pw", &parties);
    let evaluated = |seed_of: u8| {
        let decoy = PasswordRecord::decoy(&seed(seed_of));
        let random = &mut Random::new(&seed(4));
        decoy.challenge(&begun, &parties, random).unwrap().1[..32].to_vec()
    };
    assert_eq!(evaluated(9), evaluated(9));
    assert_ne!(evaluated(9), evaluated(8));
}

#[test]
fn a_proof_serves_one_challenge() {
    let parties = parties("home", 1, 2);
    let record = record("pw");
    let random = &mut Random::new(&seed(4));
    let (login, begun) = begin("pw", &parties);
    let (_, message) = record.challenge(&begun, &parties, random).unwrap();
    let (_, proof) = login.answer(&message).unwrap();
    let (second, _) = record.challenge(&begun, &parties, random).unwrap();
    assert!(second.check(&proof).is_none(), "replayed");
}

#[test]
fn a_record_survives_its_encoding_and_does_not_contain_the_password() {
    let parties = parties("home", 1, 2);
    let encoded = record("a-password-to-find").encode();
    assert!(!encoded.windows(10).any(|part| part == b"a-password"));
    let decoded = PasswordRecord::decode(&encoded).unwrap();
    assert!(login(&decoded, "a-password-to-find", &parties, &parties).is_some());
    assert_eq!(format!("{decoded:?}"), "PasswordRecord { .. }");
}

#[test]
fn an_empty_or_endless_password_is_none() {
    for wrong in [&b""[..], &[b'x'; MAX_PASSWORD + 1]] {
        assert_eq!(
            PasswordRecord::of(wrong, &seed(1)).unwrap_err(),
            UnusablePassword
        );
        let begun = Login::begin(wrong, &parties("home", 1, 2), [seed(2), seed(3)]);
        assert_eq!(begun.err(), Some(UnusablePassword));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let (record, parties) = (record("pw"), parties("home", 1, 2));
        let random = &mut Random::new(&seed(4));
        let (login, begun) = begin("pw", &parties);
        let (challenge, _) = record.challenge(&begun, &parties, random).unwrap();
        let _ = PasswordRecord::decode(&bytes);
        let _ = record.challenge(&bytes, &parties, random);
        prop_assert!(login.answer(&bytes).is_err());
        prop_assert!(challenge.check(&bytes).is_none());
    }

    /// Of each message every bit matters.
    #[test]
    fn a_bent_message_convinces_nobody(
        which in 0..3_usize,
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let (record, parties) = (record("pw"), parties("home", 1, 2));
        let random = &mut Random::new(&seed(4));
        let bend = |number: usize, mut message: Vec<u8>| {
            if number == which {
                *at.get_mut(&mut message) ^= 1 << bit;
            }
            message
        };
        let (login, begun) = begin("pw", &parties);
        let Ok((challenge, message)) = record.challenge(&bend(0, begun), &parties, random) else {
            return Ok(());
        };
        let Ok((_, proof)) = login.answer(&bend(1, message)) else {
            return Ok(());
        };
        prop_assert!(challenge.check(&bend(2, proof)).is_none());
    }
}
