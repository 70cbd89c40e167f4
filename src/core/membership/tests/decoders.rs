//! No bytes make a decoder panic, and everything survives its encoding.

use proptest::{collection::vec, prelude::*};

use crate::membership::{
    certificate::Credential,
    delegation::{Delegation, Powers},
    genesis::Genesis,
    issuer::Redemption,
    join::{
        JoinAnswer, JoinMessage, JoinRequest, Renewal,
        by_password::{PasswordJoin, PasswordStep, parties},
    },
    network::Network,
    notice::{DelegationEnd, Notice, PolicyUpdate, Revocation, Signing},
    password::{PasswordRecord, Random},
    record::MemberRecord,
    sync::SyncMessage,
    testing::{Hive, NOW, authority, founder, offer, signer},
    wire,
};

/// Gives the bytes to everything that reads bytes from the network or the store.
fn decode_as_everything(hive: &Hive, bytes: &[u8]) {
    let genesis = hive.network.genesis();
    let _ = Genesis::open(bytes);
    let _ = Delegation::open(bytes, genesis);
    let _ = Network::decode(bytes);
    let _ = Redemption::decode(bytes);
    let _ = SyncMessage::decode(bytes);
    let _ = wire::decode_message::<JoinAnswer>(bytes);
    let _ = JoinAnswer::renewed(bytes);
    let _ = hive.directory.clone().take_notice(bytes);
    let _ = hive.directory.clone().remember(bytes, NOW);
    let _ = PasswordRecord::decode(bytes);
    let _ = PasswordStep::decode(bytes);
    if let Ok(JoinMessage::Password(step)) = JoinMessage::decode(bytes) {
        let _ = PasswordStep::decode(&step);
    }
    let _ = JoinRequest::open(bytes, &signer(1).peer_id());
    let _ = hive.directory.clone().admit(bytes, NOW);
    if let Ok(credential) = Credential::decode(bytes) {
        let _ = credential.verify(genesis, NOW, &signer(1).peer_id());
    }
}

/// One notice of each kind.
fn notices(hive: &Hive) -> Vec<Vec<u8>> {
    let network = hive.network.id();
    let end = DelegationEnd {
        network,
        delegate: signer(3).key(),
        until: NOW,
    };
    let revocation = Revocation {
        network,
        subject: signer(4).key(),
        generation: 2,
        revoked_at: NOW,
        reason: "lost".to_owned(),
    };
    let update = PolicyUpdate {
        network,
        version: 1,
        previous: [0; 32],
        body: b"allow".to_vec(),
        set_at: NOW,
    };
    let founder = hive.issuer.signing(Powers::ALL, NOW).unwrap();
    let signing = Signing::Authority(&authority());
    [
        Notice::Delegation(hive.delegation.clone()),
        Notice::end(&end, &authority()),
        Notice::revocation(revocation, founder),
        Notice::policy(&update, signing),
    ]
    .map(|notice| notice.encode())
    .into()
}

/// What a message that begins a login brings for OPAQUE.
fn begun_of(message: &[u8]) -> Vec<u8> {
    let Ok(JoinMessage::Password(step)) = JoinMessage::decode(message) else {
        panic!("it is a step of joining by password")
    };
    match PasswordStep::decode(&step) {
        Ok(PasswordStep::Begin(begun)) => begun,
        other => panic!("{other:?} does not begin"),
    }
}

/// One encoding of each kind.
fn specimens(hive: &mut Hive) -> Vec<Vec<u8>> {
    let invite = hive.invite(offer(), 9);
    let request = JoinRequest::seal(&invite, &signer(1), "gpu", None);
    let redemption = hive.join(&request, &signer(1), NOW, None).unwrap();
    let credential = redemption.credential.clone();
    let record = hive.record(&signer(1), credential.clone(), "gpu", 1);
    hive.directory.admit(&record, NOW).unwrap();
    let issuer = founder().peer_id();
    let empty = crate::membership::Directory::new(hive.network.genesis().clone());
    let notices = notices(hive);
    let seed = |number| zeroize::Zeroizing::new([number; 32]);
    let password = PasswordRecord::of(b"password", &seed(1)).unwrap();
    let (us, name) = (signer(1).peer_id(), hive.network.genesis().name());
    let (join, begun) =
        PasswordJoin::begin(name, b"password", &us, &issuer, [seed(2), seed(3)]).unwrap();
    let (_, challenge) = password
        .challenge(
            &begun_of(&begun),
            &parties(name, &us, &issuer),
            &mut Random::new(&seed(4)),
        )
        .unwrap();
    let challenge = JoinAnswer::challenge(challenge).encode();
    let (_, proof) = join.prove(&challenge, "gpu", None).unwrap();
    vec![
        password.encode().to_vec(),
        begun,
        challenge.to_vec(),
        proof,
        hive.network.genesis().envelope().to_vec(),
        hive.delegation.clone(),
        hive.network.encode().to_vec(),
        redemption.encode(),
        request,
        credential.encode(),
        record.clone(),
        JoinAnswer::admitted(&hive.network, credential, &issuer, &hive.directory)
            .encode()
            .to_vec(),
        SyncMessage::Summary(hive.directory.summary()).encode(),
        SyncMessage::Digest(hive.directory.digest()).encode(),
        SyncMessage::Answer(hive.directory.answer(&empty.digest())).encode(),
        SyncMessage::announcement(record).encode(),
        SyncMessage::notices(&notices).encode(),
        JoinMessage::Renewal.encode(),
        JoinAnswer::Renewed(Renewal::new(Some(redemption.credential), notices.clone()))
            .encode()
            .to_vec(),
    ]
    .into_iter()
    .chain(notices)
    .collect()
}

#[test]
fn what_is_encoded_decodes_to_the_same() {
    let mut hive = Hive::founded();
    for bytes in specimens(&mut hive) {
        if let Ok(message) = SyncMessage::decode(&bytes) {
            assert_eq!(message.encode(), bytes);
        }
        if let Ok(record) = MemberRecord::decode(&bytes) {
            assert_eq!(record.encode(), bytes);
        }
        if let Ok(redemption) = Redemption::decode(&bytes) {
            assert_eq!(redemption.encode(), bytes);
        }
        if let Ok(notice) = Notice::decode(&bytes) {
            assert_eq!(notice.encode(), bytes);
        }
        if let Ok(password) = PasswordRecord::decode(&bytes) {
            assert_eq!(*password.encode(), bytes);
        }
        if let Ok(message @ JoinMessage::Password(_)) = JoinMessage::decode(&bytes) {
            assert_eq!(message.encode(), bytes);
        }
        if let Ok(answer) = wire::decode_message::<JoinAnswer>(&bytes) {
            assert_eq!(*answer.encode(), bytes);
        }
    }
}

#[test]
fn a_truncated_object_is_refused_at_every_length() {
    let mut hive = Hive::founded();
    for specimen in specimens(&mut hive) {
        for len in 0..specimen.len() {
            decode_as_everything(&hive, &specimen[..len]);
            assert!(hive.directory.admit(&specimen[..len], NOW).is_err());
            assert!(hive.directory.take_notice(&specimen[..len]).is_err());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        decode_as_everything(&Hive::founded(), &bytes);
    }

    /// Bytes that are nearly right get further than random ones.
    #[test]
    fn bent_objects_never_panic_and_bent_records_are_never_believed(
        which in any::<prop::sample::Index>(),
        bends in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut hive = Hive::founded();
        let specimens = specimens(&mut hive);
        let specimen = which.get(&specimens);
        let mut bent = specimen.clone();
        for (at, value) in bends {
            *at.get_mut(&mut bent) = value;
        }
        decode_as_everything(&hive, &bent);
        if bent != *specimen {
            prop_assert!(hive.directory.admit(&bent, NOW).is_err());
            prop_assert!(hive.directory.take_notice(&bent).is_err());
        }
    }
}
