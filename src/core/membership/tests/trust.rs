//! What is believed, and every way of being refused.

use std::time::Duration;

use crate::membership::{
    certificate::{Certificate, Credential},
    delegation::{Delegation, GroupGrant, Powers},
    issuer::Issuer,
    record::MemberRecord,
    rejection::Rejection,
    signer::Signer,
    testing::{Hive, NOW, applicant, authority, founder, groups, later, name, signer},
    time::UnixTime,
};

fn delegation(hive: &Hive) -> Delegation {
    Delegation::open(&hive.delegation, hive.network.genesis()).unwrap()
}

fn certificate(hive: &Hive) -> Certificate {
    Certificate {
        network: hive.network.id(),
        subject: signer(1).key(),
        serial: 1,
        name: name("gpu"),
        tier: 1,
        groups: groups(&[]),
        ipv4: [10, 77, 3, 4].into(),
        admitted_at: NOW,
        not_before: NOW,
        not_after: later(30),
        generation: 0,
        issuer: founder().key(),
    }
}

/// What node 1 gets for showing these two.
fn verdict(
    hive: &Hive,
    delegation: &Delegation,
    certificate: &Certificate,
) -> Result<Certificate, Rejection> {
    let credential = Credential {
        delegation: delegation.seal(&authority()),
        certificate: certificate.seal(&founder()),
    };
    credential.verify(hive.network.genesis(), NOW, &signer(1).peer_id())
}

fn verdict_on(hive: &Hive, certificate: &Certificate) -> Result<Certificate, Rejection> {
    verdict(hive, &delegation(hive), certificate)
}

#[test]
fn a_certificate_by_a_delegate_makes_a_member() {
    let hive = Hive::founded();
    assert_eq!(
        verdict_on(&hive, &certificate(&hive)),
        Ok(certificate(&hive))
    );
}

#[test]
fn a_member_cannot_certify_anyone() {
    let hive = Hive::founded();
    let forger = signer(66);
    for issuer in [founder(), forger.clone()] {
        let forged = Certificate {
            issuer: issuer.key(),
            ..certificate(&hive)
        };
        let credential = Credential {
            delegation: hive.delegation.clone(),
            certificate: forged.seal(&forger),
        };
        assert_eq!(
            credential.verify(hive.network.genesis(), NOW, &signer(1).peer_id()),
            Err(Rejection::WrongIssuer)
        );
    }
}

#[test]
fn a_member_cannot_delegate_to_itself() {
    let hive = Hive::founded();
    let forger = signer(66);
    let usurped = Delegation {
        delegate: forger.key(),
        ..delegation(&hive)
    };
    let credential = Credential {
        delegation: usurped.seal(&forger),
        certificate: Certificate {
            issuer: forger.key(),
            ..certificate(&hive)
        }
        .seal(&forger),
    };
    assert_eq!(
        credential.verify(hive.network.genesis(), NOW, &signer(1).peer_id()),
        Err(Rejection::DelegationNotByAuthority)
    );
}

#[test]
fn a_certificate_is_of_no_use_to_another_node() {
    let hive = Hive::founded();
    let credential = Credential {
        delegation: hive.delegation.clone(),
        certificate: certificate(&hive).seal(&founder()),
    };
    assert_eq!(
        credential.verify(hive.network.genesis(), NOW, &signer(2).peer_id()),
        Err(Rejection::WrongSubject)
    );
}

#[test]
fn a_certificate_of_another_network_is_refused() {
    let (ours, theirs) = (Hive::founded(), Hive::founded_as(8));
    // The same authority and founder run both, so nothing but the network differs.
    let credential = &theirs.credential;
    assert_eq!(
        credential.verify(ours.network.genesis(), NOW, &founder().peer_id()),
        Err(Rejection::WrongNetwork)
    );
    let mixed = Credential {
        delegation: ours.delegation.clone(),
        certificate: credential.certificate.clone(),
    };
    assert_eq!(
        mixed.verify(ours.network.genesis(), NOW, &founder().peer_id()),
        Err(Rejection::WrongNetwork)
    );
}

#[test]
fn a_certificate_is_valid_from_its_first_second_to_its_last() {
    let hive = Hive::founded();
    let credential = Credential {
        delegation: hive.delegation.clone(),
        certificate: certificate(&hive).seal(&founder()),
    };
    let at = |now| {
        credential
            .verify(hive.network.genesis(), now, &signer(1).peer_id())
            .err()
    };
    assert_eq!(at(UnixTime(NOW.0 - 1)), Some(Rejection::NotYetValid));
    assert_eq!(at(NOW), None);
    assert_eq!(at(later(30)), None);
    assert_eq!(at(UnixTime(later(30).0 + 1)), Some(Rejection::Expired));
}

#[test]
fn a_delegate_without_admit_admits_nobody() {
    let hive = Hive::founded();
    let inviter = Delegation {
        powers: Powers::INVITE | Powers::REVOKE | Powers::POLICY | Powers::UPDATE,
        ..delegation(&hive)
    };
    assert_eq!(
        verdict(&hive, &inviter, &certificate(&hive)),
        Err(Rejection::MissingPower)
    );
}

#[test]
fn a_delegate_gives_its_own_groups_only() {
    let hive = Hive::founded();
    let limited = Delegation {
        groups: GroupGrant::Only(groups(&["gpu"])),
        ..delegation(&hive)
    };
    let with = |names: &[&str]| Certificate {
        groups: groups(names),
        ..certificate(&hive)
    };
    assert!(verdict(&hive, &limited, &with(&["gpu"])).is_ok());
    assert_eq!(
        verdict(&hive, &limited, &with(&["gpu", "admin"])),
        Err(Rejection::GroupNotGranted)
    );
}

#[test]
fn a_certificate_stays_inside_its_delegation() {
    let hive = Hive::founded();
    for (not_before, not_after) in [(NOW, later(29)), (UnixTime(NOW.0 + 1), later(31))] {
        let short = Delegation {
            not_before,
            not_after,
            ..delegation(&hive)
        };
        assert_eq!(
            verdict(&hive, &short, &certificate(&hive)),
            Err(Rejection::OutsideDelegation)
        );
    }
}

#[test]
fn no_certificate_lives_longer_than_the_network_allows() {
    let hive = Hive::founded();
    let eternal = Certificate {
        not_after: UnixTime(later(30).0 + 1),
        ..certificate(&hive)
    };
    assert_eq!(verdict_on(&hive, &eternal), Err(Rejection::LifetimeTooLong));
}

#[test]
fn a_certificate_cannot_give_an_address_outside_the_network() {
    let hive = Hive::founded();
    for address in [
        [10, 78, 0, 1],
        [8, 8, 8, 8],
        [10, 77, 0, 0],
        [10, 77, 255, 255],
    ] {
        let outside = Certificate {
            ipv4: address.into(),
            ..certificate(&hive)
        };
        assert_eq!(verdict_on(&hive, &outside), Err(Rejection::AddressUnusable));
    }
}

/// The attack: publish one's own descriptor, with one's own tunnel key, under a member's certificate.
#[test]
fn a_foreign_descriptor_under_a_members_certificate_is_refused() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(1), "gpu", None);
    let foreign = MemberRecord {
        credential,
        descriptor: hive.descriptor(&signer(66), "gpu", 9).seal(&signer(66)),
    };
    assert_eq!(
        hive.directory.admit(&foreign.encode(), NOW),
        Err(Rejection::ForeignDescriptor)
    );
}

#[test]
fn renewal_keeps_what_a_member_is_and_beats_the_old_certificate() {
    let mut hive = Hive::founded();
    let first = hive.admit(&signer(1), "gpu", None);
    let peer = signer(1).peer_id();
    let old = first.verify(hive.network.genesis(), NOW, &peer).unwrap();
    assert!(!old.is_due_for_renewal(later(14)));
    assert!(old.is_due_for_renewal(later(15)));

    let renewed = hive.issuer.renew(&old, later(15)).unwrap();
    let new = renewed
        .verify(hive.network.genesis(), later(31), &peer)
        .unwrap();
    assert_eq!(
        (&new.name, new.ipv4, new.admitted_at),
        (&old.name, old.ipv4, old.admitted_at)
    );
    let record = hive.record(&signer(1), renewed, "gpu", 1);
    hive.directory.admit(&record, later(15)).unwrap();
    assert!(!hive.directory.expire(later(31)).gone.contains(&peer));
}

#[test]
fn an_expired_certificate_is_not_renewed() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(1), "gpu", None);
    let old = credential
        .verify(hive.network.genesis(), NOW, &signer(1).peer_id())
        .unwrap();
    assert_eq!(hive.issuer.renew(&old, later(31)), Err(Rejection::Expired));
}

#[test]
fn a_delegate_issues_nothing_before_or_after_its_delegation() {
    let hive = Hive::founded();
    let delegate = signer(50);
    let short = Delegation {
        delegate: delegate.key(),
        not_before: later(10),
        not_after: later(20),
        ..delegation(&hive)
    };
    let genesis = hive.network.genesis().clone();
    let issuer = Issuer::new(delegate, short.seal(&authority()), genesis.clone()).unwrap();
    let issue = |now| {
        let mut directory = hive.directory.clone();
        issuer.admit(applicant(&signer(1), "gpu", None), now, &mut directory)
    };
    assert!(issue(later(9)).is_err());
    assert!(issue(later(21)).is_err());
    // The certificate ends with the delegation.
    let certificate = issue(later(15))
        .unwrap()
        .verify(&genesis, later(15), &signer(1).peer_id())
        .unwrap();
    assert_eq!(certificate.not_after, later(20));
}

/// Otherwise it would renew again and again, for ever less, as its end comes near.
#[test]
fn a_delegate_whose_time_is_nearly_over_leaves_renewals_to_others() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(1), "gpu", None);
    let old = credential
        .verify(hive.network.genesis(), NOW, &signer(1).peer_id())
        .unwrap();
    let short = Delegation {
        delegate: signer(50).key(),
        not_after: later(29),
        ..delegation(&hive)
    };
    let genesis = hive.network.genesis().clone();
    let issuer = Issuer::new(signer(50), short.seal(&authority()), genesis).unwrap();
    assert_eq!(
        issuer.renew(&old, later(20)),
        Err(Rejection::OutsideDelegation)
    );
}

#[test]
fn a_delegation_works_for_its_delegate_only() {
    let hive = Hive::founded();
    let genesis = hive.network.genesis().clone();
    let thief: Signer = signer(66);
    assert_eq!(
        Issuer::new(thief, hive.delegation.clone(), genesis).unwrap_err(),
        Rejection::WrongSubject
    );
}

#[test]
fn clocks_that_differ_a_little_do_not_matter() {
    let mut hive = Hive::founded();
    let credential = hive.admit(&signer(1), "gpu", None);
    let behind = NOW.minus(Duration::from_secs(9 * 60));
    assert!(
        credential
            .verify(hive.network.genesis(), behind, &signer(1).peer_id())
            .is_ok()
    );
}
