//! Joining by invite, at both ends.

use std::net::Ipv4Addr;

use zeroize::Zeroizing;

use crate::membership::{
    delegation::{Delegation, GroupGrant, Powers},
    issuer::{Issuer, Offer, Redemption},
    join::{JoinAnswer, JoinError, JoinRequest},
    network::Network,
    refusal::JoinRefusal,
    rejection::Rejection,
    testing::{Hive, NOW, applicant, authority, founder, groups, later, name, offer, signer},
    time::UnixTime,
};

fn request(hive: &Hive, node: u8, wanted_ipv4: Option<Ipv4Addr>) -> Vec<u8> {
    JoinRequest::seal(&hive.invite(offer(), 9), &signer(node), "gpu", wanted_ipv4)
}

#[test]
fn an_invited_node_becomes_a_member() {
    let mut hive = Hive::founded();
    let offer = Offer {
        groups: groups(&["lab"]),
        ..offer()
    };
    let invite = hive.invite(offer, 9);
    let joiner = signer(1);
    let request = JoinRequest::seal(&invite, &joiner, "Gpu Box.local", None);
    let redemption = hive.join(&request, &joiner, NOW, None).unwrap();
    let answer = JoinAnswer::admitted(
        &hive.network,
        redemption.credential,
        &founder().peer_id(),
        &hive.directory,
    );

    let joined = JoinAnswer::accept(&answer.encode(), &invite, &joiner.key(), NOW).unwrap();
    assert_eq!(joined.network, hive.network);
    assert_eq!(joined.certificate.name, name("gpu-box"));
    assert_eq!(joined.certificate.groups, groups(&["lab"]));
    assert_eq!(joined.time, NOW);

    // With what it was given it builds its own directory and is believed by the founder.
    let mut directory = crate::membership::Directory::new(joined.network.genesis().clone());
    for record in &joined.records {
        directory.admit(record, NOW).unwrap();
    }
    assert_eq!(directory.resolve("founder"), Some(founder().peer_id()));
    let record = hive.record(&joiner, joined.credential, "gpu-box", 1);
    hive.directory.admit(&record, NOW).unwrap();
    assert_eq!(hive.directory.resolve("gpu-box"), Some(joiner.peer_id()));
}

#[test]
fn a_used_invite_admits_nobody_else() {
    let mut hive = Hive::founded();
    let first = hive.join(&request(&hive, 1, None), &signer(1), NOW, None);
    let redeemed = first.unwrap();
    assert_eq!(
        hive.join(&request(&hive, 2, None), &signer(2), NOW, Some(&redeemed)),
        Err(JoinRefusal::UsedUp)
    );
}

#[test]
fn the_same_joiner_may_ask_again_when_the_answer_was_lost() {
    let mut hive = Hive::founded();
    let redeemed = hive
        .join(&request(&hive, 1, None), &signer(1), NOW, None)
        .unwrap();
    // The invite's own day is over, but it was used in time.
    let again = hive.join(
        &request(&hive, 1, None),
        &signer(1),
        later(2),
        Some(&redeemed),
    );
    assert_eq!(again, Ok(redeemed.clone()));
    // When the certificate is over too, there is nothing left to give.
    let late = hive.join(
        &request(&hive, 1, None),
        &signer(1),
        later(31),
        Some(&redeemed),
    );
    assert_eq!(late, Err(JoinRefusal::Expired));
}

#[test]
fn of_twenty_joiners_with_one_invite_one_is_admitted() {
    let mut hive = Hive::founded();
    let mut stored: Option<Redemption> = None;
    let mut refused = 0;
    for n in 1..=20 {
        match hive.join(&request(&hive, n, None), &signer(n), NOW, stored.as_ref()) {
            Ok(redemption) => {
                assert_eq!(stored.replace(redemption), None, "a second was admitted");
            }
            Err(refusal) => {
                assert_eq!(refusal, JoinRefusal::UsedUp);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 19);
}

#[test]
fn an_expired_invite_admits_nobody() {
    let mut hive = Hive::founded();
    let last = later(1);
    assert!(
        hive.clone()
            .join(&request(&hive, 1, None), &signer(1), last, None)
            .is_ok()
    );
    assert_eq!(
        hive.join(
            &request(&hive, 1, None),
            &signer(1),
            UnixTime(last.0 + 1),
            None
        ),
        Err(JoinRefusal::Expired)
    );
}

#[test]
fn an_invite_of_another_issuer_or_network_is_refused() {
    let mut hive = Hive::founded();
    let theirs = request(&Hive::founded_as(8), 1, None);
    assert_eq!(
        hive.join(&theirs, &signer(1), NOW, None),
        Err(JoinRefusal::NotForThisNetwork)
    );
    // A member without any delegation invites people into its network all the same.
    let delegation = Delegation {
        network: hive.network.id(),
        delegate: signer(5).key(),
        powers: Powers::ALL,
        groups: GroupGrant::Any,
        not_before: NOW,
        not_after: later(30),
    };
    let genesis = hive.network.genesis().clone();
    let other = Issuer::new(signer(5), delegation.seal(&authority()), genesis).unwrap();
    let invite = other.invite(offer(), Zeroizing::new([9; 32]), NOW).unwrap();
    let request = JoinRequest::seal(&invite, &signer(1), "gpu", None);
    assert_eq!(
        hive.join(&request, &signer(1), NOW, None),
        Err(JoinRefusal::UnknownInvite)
    );
}

/// The attack: pass on somebody's request as one's own, or replay it from another node.
#[test]
fn an_overheard_request_is_of_no_use_to_anyone_else() {
    let mut hive = Hive::founded();
    assert_eq!(
        hive.join(&request(&hive, 1, None), &signer(2), NOW, None),
        Err(JoinRefusal::Malformed)
    );
}

/// The attack: the terms travel in the request, so a spy knows all of the invite but its secret.
#[test]
fn knowing_the_terms_is_not_holding_the_invite() {
    let mut hive = Hive::founded();
    let spied = hive.invite(offer(), 9);
    let own = hive.invite(offer(), 10);
    let genuine = JoinRequest::seal(&spied, &signer(2), "gpu", None);
    let proof_of_own = JoinRequest::seal(&own, &signer(2), "gpu", None);
    // Signatures are the last 64 bytes of each message.
    let cut = genuine.len() - 64;
    let forged = [&genuine[..cut], &proof_of_own[proof_of_own.len() - 64..]].concat();
    assert_eq!(
        hive.join(&forged, &signer(2), NOW, None),
        Err(JoinRefusal::Malformed)
    );
    assert!(hive.join(&genuine, &signer(2), NOW, None).is_ok());
}

#[test]
fn every_flipped_bit_of_a_request_is_noticed() {
    let hive = Hive::founded();
    let request = request(&hive, 1, None);
    for at in 0..request.len() {
        let mut bent = request.clone();
        bent[at] ^= 1 << (at % 8);
        assert!(
            JoinRequest::open(&bent, &signer(1).peer_id()).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn an_address_that_is_asked_for_is_given_if_it_is_free() {
    let mut hive = Hive::founded();
    let wanted = Ipv4Addr::new(10, 77, 0, 4);
    let given = |hive: &Hive, redemption: &Redemption, node: u8| {
        let genesis = hive.network.genesis();
        let peer = signer(node).peer_id();
        redemption
            .credential
            .verify(genesis, NOW, &peer)
            .unwrap()
            .ipv4
    };
    let first = hive
        .join(&request(&hive, 1, Some(wanted)), &signer(1), NOW, None)
        .unwrap();
    assert_eq!(given(&hive, &first, 1), wanted);
    // Taken, although the first one's record has not come yet.
    assert_eq!(
        hive.join(&request(&hive, 2, Some(wanted)), &signer(2), NOW, None),
        Err(JoinRefusal::AddressTaken)
    );
    let unasked = hive
        .join(&request(&hive, 3, None), &signer(3), NOW, None)
        .unwrap();
    assert_ne!(
        given(&hive, &unasked, 3).octets()[2],
        0,
        "the first /24 is for the asked-for"
    );
    for outside in [[10, 77, 0, 0], [10, 77, 255, 255], [10, 78, 0, 1]] {
        assert_eq!(
            hive.join(
                &request(&hive, 4, Some(outside.into())),
                &signer(4),
                NOW,
                None
            ),
            Err(JoinRefusal::AddressOutside)
        );
    }
}

#[test]
fn what_the_invite_says_overrides_what_the_joiner_wants() {
    let mut hive = Hive::founded();
    let invite = hive.invite(
        Offer {
            name: Some(name("printer")),
            ipv4: Some([10, 77, 0, 9].into()),
            ..offer()
        },
        9,
    );
    let request = JoinRequest::seal(&invite, &signer(1), "gpu", Some([10, 77, 0, 4].into()));
    let redemption = hive.join(&request, &signer(1), NOW, None).unwrap();
    let certificate = redemption
        .credential
        .verify(hive.network.genesis(), NOW, &signer(1).peer_id())
        .unwrap();
    assert_eq!(certificate.name, name("printer"));
    assert_eq!(certificate.ipv4, Ipv4Addr::new(10, 77, 0, 9));
}

#[test]
fn names_are_numbered_when_taken_and_made_up_when_missing() {
    let mut hive = Hive::founded();
    let mut named = |node: u8, wanted: &str| {
        let invite = hive.invite(offer(), node);
        let request = JoinRequest::seal(&invite, &signer(node), wanted, None);
        let redemption = hive.join(&request, &signer(node), NOW, None).unwrap();
        let peer = signer(node).peer_id();
        let genesis = hive.network.genesis();
        redemption
            .credential
            .verify(genesis, NOW, &peer)
            .unwrap()
            .name
            .to_string()
    };
    assert_eq!(named(1, "gpu"), "gpu");
    assert_eq!(named(2, "GPU"), "gpu-2");
    assert_eq!(named(3, "gpu.lan"), "gpu-3");
    assert_eq!(named(4, "日本"), "node");
    assert_eq!(named(5, ""), "node-2");
}

#[test]
fn promises_survive_a_restart() {
    let mut hive = Hive::founded();
    let wanted = Some(Ipv4Addr::new(10, 77, 0, 4));
    let redeemed = hive
        .join(&request(&hive, 1, wanted), &signer(1), NOW, None)
        .unwrap();
    let stored = Redemption::decode(&redeemed.encode()).unwrap();
    assert_eq!(stored, redeemed);

    let mut restarted = Hive::founded();
    restarted
        .issuer
        .remember(&stored, NOW, &mut restarted.directory);
    assert_eq!(
        restarted.join(&request(&hive, 2, wanted), &signer(2), NOW, None),
        Err(JoinRefusal::AddressTaken)
    );
    // They end with the certificate.
    restarted.directory.expire(later(31));
    assert!(
        restarted
            .join(&request(&hive, 2, wanted), &signer(2), NOW, None)
            .is_ok()
    );
}

#[test]
fn a_member_that_joins_anew_keeps_its_seniority_and_address() {
    let mut hive = Hive::founded();
    hive.admit(&signer(1), "gpu", None);
    let before = hive
        .directory
        .get(&signer(1).peer_id())
        .unwrap()
        .certificate
        .clone();
    let redemption = hive
        .join(&request(&hive, 1, None), &signer(1), NOW, None)
        .unwrap();
    let after = redemption
        .credential
        .verify(hive.network.genesis(), NOW, &signer(1).peer_id())
        .unwrap();
    assert_eq!((&after.name, after.ipv4), (&before.name, before.ipv4));
    assert_eq!(after.admitted_at, before.admitted_at);
    assert!(after.serial > before.serial);
}

#[test]
fn a_delegate_invites_within_its_powers_only() {
    let hive = Hive::founded();
    let issuer = |powers, grant: GroupGrant| {
        let delegation = Delegation {
            network: hive.network.id(),
            delegate: signer(5).key(),
            powers,
            groups: grant,
            not_before: NOW,
            not_after: later(30),
        };
        let genesis = hive.network.genesis().clone();
        Issuer::new(signer(5), delegation.seal(&authority()), genesis).unwrap()
    };
    let offer = Offer {
        groups: groups(&["lab"]),
        ..offer()
    };
    let attempt = |issuer: Issuer| {
        let invite = issuer.invite(offer.clone(), Zeroizing::new([9; 32]), NOW);
        invite.map(|_| ()).err()
    };
    let lab = GroupGrant::Only(groups(&["lab"]));
    let none = GroupGrant::Only(groups(&[]));
    let both = Powers::ADMIT | Powers::INVITE;
    assert_eq!(attempt(issuer(both, lab.clone())), None);
    assert_eq!(
        attempt(issuer(both, none)),
        Some(Rejection::GroupNotGranted)
    );
    assert_eq!(
        attempt(issuer(Powers::ADMIT, lab)),
        Some(Rejection::MissingPower)
    );
}

#[test]
fn a_refusal_reaches_the_joiner_with_a_sentence() {
    let hive = Hive::founded();
    let answer = JoinAnswer::Refused(JoinRefusal::UsedUp).encode();
    let error = JoinAnswer::accept(&answer, &hive.invite(offer(), 9), &signer(1).key(), NOW);
    let error = error.unwrap_err();
    assert_eq!(error, JoinError::Refused(JoinRefusal::UsedUp));
    assert!(error.to_string().contains("ask for a new one"), "{error}");
}

/// The attack: whoever answers at the issuer's address draws the joiner into another network.
#[test]
fn an_admission_into_another_network_is_not_accepted() {
    let ours = Hive::founded();
    let mut theirs = Hive::founded_as(8);
    let credential = theirs.admit(&signer(1), "gpu", None);
    let founder = founder().peer_id();
    let answer = JoinAnswer::admitted(&theirs.network, credential, &founder, &theirs.directory);
    let outcome = JoinAnswer::accept(
        &answer.encode(),
        &ours.invite(offer(), 9),
        &signer(1).key(),
        NOW,
    );
    assert_eq!(
        outcome.unwrap_err(),
        JoinError::Untrustworthy(Rejection::WrongNetwork)
    );
}

#[test]
fn somebody_elses_credential_is_not_accepted() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(2), "gpu", None);
    let founder = founder().peer_id();
    let answer = JoinAnswer::admitted(&hive.network, credential, &founder, &hive.directory);
    let invite = hive.invite(offer(), 9);
    assert_eq!(
        JoinAnswer::accept(&answer.encode(), &invite, &signer(1).key(), NOW).unwrap_err(),
        JoinError::Untrustworthy(Rejection::WrongSubject)
    );
}

#[test]
fn a_machine_whose_clock_stands_in_1970_can_join() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(1), "gpu", None);
    let founder = founder().peer_id();
    let answer = JoinAnswer::admitted(&hive.network, credential, &founder, &hive.directory);
    let invite = hive.invite(offer(), 9);
    let joined =
        JoinAnswer::accept(&answer.encode(), &invite, &signer(1).key(), UnixTime(60)).unwrap();
    assert_eq!(joined.time, joined.certificate.not_before);
    assert!(joined.time > UnixTime(60));
}

#[test]
fn a_network_survives_being_stored_and_shows_no_secret() {
    let network = Hive::founded_as(0xee).network;
    assert_eq!(Network::decode(&network.encode()), Ok(network.clone()));
    let shown = format!("{network:?}");
    assert!(
        !shown.contains("eeee") && !shown.contains("238, 238"),
        "{shown}"
    );
}

#[test]
fn a_node_can_be_admitted_by_hand() {
    let mut hive = Hive::founded();
    let applicant = applicant(&signer(1), "gpu", None);
    let credential = hive
        .issuer
        .admit(applicant, NOW, &mut hive.directory)
        .unwrap();
    let peer = signer(1).peer_id();
    assert!(
        credential
            .verify(hive.network.genesis(), NOW, &peer)
            .is_ok()
    );
    // Not a member before its record is here, but its name is kept.
    assert_eq!(hive.directory.resolve("gpu"), None);
    assert!(hive.directory.get(&peer).is_none());
}
