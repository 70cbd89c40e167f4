//! Lending the authority's powers, using them, and taking them back.

use super::*;
use crate::{
    membership::{Applicant, GroupGrant, Issuer, Notice, PolicyUpdate, Powers, Revocation, notice},
    policy::{Mode, Policy},
};

const MONTHS: Duration = Duration::from_secs(100 * 24 * 60 * 60);

fn authority() -> Signer {
    signer(200)
}

impl World {
    /// The founder's machine has the authority's key and lends powers to a host.
    pub fn delegate(&mut self, to: usize, powers: Powers, groups: GroupGrant) {
        let (peer, now) = (self.peer(to), self.now());
        let until = now.unix.plus(MONTHS);
        self.hosts[0]
            .node
            .delegate(&authority(), &peer, powers, groups, until, now)
            .unwrap();
        self.settle();
    }

    fn undelegate(&mut self, delegate: usize) -> Undelegated {
        let (peer, now) = (self.peer(delegate), self.now());
        let ended = self.hosts[0]
            .node
            .undelegate(&authority(), &peer, now)
            .unwrap();
        self.settle();
        ended
    }

    /// A host admits a node by hand, which joins the world connected to it.
    fn admitted_by(&mut self, delegate: usize, number: u8) -> usize {
        self.admitted_with(delegate, number, None)
    }

    pub fn admitted_with(&mut self, delegate: usize, number: u8, ipv4: Option<Ipv4Addr>) -> usize {
        let now = self.now();
        let name = Name::parse(&format!("n{number}")).unwrap();
        let key = signer(number).key();
        let answer = self.hosts[delegate]
            .node
            .admit_applicant(key, name, BTreeSet::new(), ipv4, now)
            .unwrap();
        let bundle = crate::membership::Bundle::of_answer(&answer).unwrap();
        let joined = bundle.accept(&key, now.unix).unwrap();
        let mut start = start(number, joined.network, joined.credential, joined.records);
        start.notices = joined.notices;
        let at = self.start_host(start, number);
        self.connect(delegate, at);
        at
    }

    /// What a thief has who has copied a delegate's keys.
    fn stolen(&self, delegate: usize) -> Issuer {
        let node = &self.hosts[delegate].node;
        let envelope = node.issuer.as_ref().unwrap().envelope().to_vec();
        let genesis = node.network.genesis().clone();
        Issuer::new(node.signer.clone(), envelope, genesis).unwrap()
    }

    fn offer_notice(&mut self, at: usize, notice: &Notice) -> bool {
        let now = self.now();
        let encoded = notice.encode();
        let node = &mut self.hosts[at].node;
        let is_new = node.take_notices([encoded.as_slice()], None, now);
        self.settle();
        is_new
    }
}

#[test]
fn a_delegate_learns_its_powers_by_itself_and_keeps_them_over_a_restart() {
    let (mut world, b, c) = three();
    let (peer, now) = (world.peer(c), world.now());
    let refused = world.hosts[b].node.revoke(&peer, "", now);
    assert_eq!(refused, Err(CannotRevoke::NotDelegated));
    world.delegate(b, Powers::ADMIT | Powers::REVOKE, GroupGrant::Any);
    world.restart(b);
    assert!(world.knock(0, b));
    let d = world.admitted_by(b, 4);
    assert!(world.knows(0, d), "the founder believes the delegate");
    world.hosts[b].node.revoke(&peer, "", now).unwrap();
    world.settle();
    assert!(!world.knows(0, c));
    let delegates = world.hosts[c].node.delegates();
    let delegates: BTreeSet<_> = delegates.iter().map(|d| d.peer_id).collect();
    assert_eq!(delegates, [world.peer(0), world.peer(b)].into());
}

#[test]
fn a_member_outlives_the_node_that_admitted_it_if_another_may_admit() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ADMIT, GroupGrant::Any);
    world.unplug(0);
    let first = world.hosts[c].node.certificate.clone();
    world.sleep(16);
    world.wake(b);
    let renewed = world.hosts[c].node.certificate.clone();
    assert_eq!(renewed, first, "that is the founder's to do, for a while");
    world.sleep(7);
    world.wake(b);
    let renewed = world.hosts[c].node.certificate.clone();
    assert!(renewed.serial > first.serial);
    assert_eq!(renewed.issuer, signer(2).key());
}

#[test]
fn ending_a_delegation_that_served_well_disturbs_nobody() {
    let (mut world, b, c) = three();
    world.delegate(
        b,
        Powers::ADMIT | Powers::REVOKE | Powers::POLICY,
        GroupGrant::Any,
    );
    let (d, e) = (world.admitted_by(b, 4), world.admitted_by(b, 5));
    world.connect(0, d);
    world.connect(c, d);
    assert_eq!(world.send(c, d, b"hello"), [b"hello".to_vec()]);
    let (now, expelled) = (world.now(), world.peer(e));
    world.hosts[b].node.revoke(&expelled, "", now).unwrap();
    let ours = Policy::of(Mode::Open).encode();
    world.hosts[b].node.set_policy(ours.clone(), now).unwrap();
    world.settle();
    let links = world.links.len();
    let ended = world.undelegate(b);
    assert_eq!(
        ended,
        Undelegated {
            reissued: vec![world.peer(d)],
            left_out: vec![],
            expelled: vec![expelled],
            policy: true,
        }
    );
    assert_eq!(world.links.len(), links, "no connection was closed");
    assert_eq!(world.send(c, d, b"still"), [b"still".to_vec()]);
    for at in [0, b, c, d] {
        assert_eq!(world.standing(at), Standing::Member, "host {at}");
        assert!(!world.knows(at, e), "host {at}");
        assert_eq!(world.hosts[at].node.policy(), Some((2, &ours[..])));
    }
    assert!(world.hosts[b].node.delegation().is_none());
    let (peer, now) = (world.peer(c), world.now());
    let refused = world.hosts[b].node.revoke(&peer, "", now);
    assert_eq!(refused, Err(CannotRevoke::NotDelegated));
}

/// The attack: the delegate's key was stolen. Whatever is signed with it now says that it was signed before.
#[test]
fn backdating_does_not_help_a_thief_of_a_delegates_key() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ALL, GroupGrant::Any);
    let thief = world.stolen(b);
    let before = world.now().unix;
    world.undelegate(b);
    // An accomplice.
    let node = &world.hosts[c].node;
    let mut directory = node.directory.clone();
    let applicant = Applicant {
        key: signer(66).key(),
        name: Name::parse("accomplice").unwrap(),
        groups: BTreeSet::new(),
        ipv4: None,
        tier: 1,
    };
    let credential = thief.admit(applicant, before, &mut directory).unwrap();
    let accomplice = Descriptor {
        network: node.network.id(),
        seq: 1,
        wireguard_key: [66; 32],
        name: Name::parse("accomplice").unwrap(),
        addresses: vec![],
        features: Features::NONE,
    };
    let record = MemberRecord {
        credential,
        descriptor: accomplice.seal(&signer(66)),
    };
    let now = world.now();
    let verdict = world.hosts[c].node.admit(&record.encode(), None, now);
    assert_eq!(verdict, Err(Rejection::DelegationEnded));
    // An expulsion of the founder's friends, and a policy nobody could follow.
    let revocation = Revocation {
        network: world.hosts[c].node.network.id(),
        subject: signer(3).key(),
        generation: u32::MAX,
        revoked_at: before,
        reason: String::new(),
    };
    let signing = thief.signing(Powers::REVOKE, before).unwrap();
    world.offer_notice(0, &Notice::revocation(revocation, signing));
    let update = PolicyUpdate {
        network: world.hosts[c].node.network.id(),
        version: u64::MAX,
        previous: [0; 32],
        body: b"everything is open".to_vec(),
        set_at: before,
    };
    world.offer_notice(0, &Notice::policy(&update, signing));
    assert!(world.knows(0, c));
    assert_eq!(world.standing(c), Standing::Member);
    assert_eq!(world.hosts[c].node.policy(), None);
}

#[test]
fn a_member_that_was_away_while_its_delegation_ended_is_handed_the_new_certificate() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ADMIT, GroupGrant::Any);
    let d = world.admitted_by(b, 4);
    world.unplug(d);
    world.undelegate(b);
    assert!(!world.knock(d, c), "its certificate rests on nothing");
    assert!(world.knock(d, c));
    assert_eq!(world.hosts[d].node.certificate.issuer, signer(1).key());
}

#[test]
fn a_delegate_that_was_ended_may_be_trusted_again_and_its_past_stays_past() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ALL, GroupGrant::Any);
    let thief = world.stolen(b);
    world.undelegate(b);
    world.delegate(b, Powers::REVOKE, GroupGrant::Any);
    assert_eq!(
        world.hosts[b].node.delegation().map(|d| d.powers),
        Some(Powers::REVOKE)
    );
    let before = world.now().unix;
    let update = PolicyUpdate {
        network: world.hosts[c].node.network.id(),
        version: 9,
        previous: [0; 32],
        body: vec![],
        set_at: before,
    };
    let signing = thief.signing(Powers::POLICY, before).unwrap();
    world.offer_notice(c, &Notice::policy(&update, signing));
    assert_eq!(world.hosts[c].node.policy(), None);
}

#[test]
fn a_delegate_may_not_expel_another() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ALL, GroupGrant::Any);
    let (founder, now) = (world.peer(0), world.now());
    let refused = world.hosts[b].node.revoke(&founder, "coup", now);
    assert_eq!(refused, Err(CannotRevoke::Delegate));
    // It does so all the same.
    let coup = Revocation {
        network: world.hosts[b].node.network.id(),
        subject: signer(1).key(),
        generation: 7,
        revoked_at: now.unix,
        reason: "coup".to_owned(),
    };
    let issuer = world.stolen(b);
    let coup = Notice::revocation(coup, issuer.signing(Powers::REVOKE, now.unix).unwrap());
    let taken = world.hosts[c]
        .node
        .directory
        .clone()
        .take_notice(&coup.encode())
        .unwrap();
    assert_eq!(taken.void, Some(Rejection::RevokesDelegate));
    world.offer_notice(c, &coup);
    for at in [0, b, c] {
        assert!(world.knows(at, 0), "host {at}");
    }
    assert_eq!(world.standing(0), Standing::Member);
}

#[test]
fn an_authority_may_end_the_founders_delegation_from_another_delegates_node() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ALL, GroupGrant::Any);
    let (founder, now) = (world.peer(0), world.now());
    let node = &mut world.hosts[b].node;
    let ended = node.undelegate(&authority(), &founder, now).unwrap();
    assert_eq!((ended.reissued.len(), ended.left_out.len()), (3, 0));
    node.revoke(&founder, "stolen", now).unwrap();
    world.settle();
    assert!(matches!(world.standing(0), Standing::Expelled { .. }));
    assert!(!world.knows(c, 0) && world.knows(c, b) && world.knows(b, c));
    assert_eq!(world.send(b, c, b"without it"), [b"without it".to_vec()]);
    // What the founder's machine still has is worth nothing, also after a restart.
    world.restart(0);
    let now = world.now();
    let peer = world.peer(c);
    let refused = world.hosts[0].node.revoke(&peer, "revenge", now);
    assert_eq!(refused, Err(CannotRevoke::NotDelegated));
}

/// The founder's machine was stolen, and no other node may do anything. Whoever has the authority's key brings it to any
/// member's node.
#[test]
fn the_authority_takes_a_network_back_from_a_stolen_founder() {
    let (mut world, b, c) = three();
    let [us, founder] = [world.peer(b), world.peer(0)];
    world.unplug(0);
    let now = world.now();
    let until = now.unix.plus(MONTHS);
    let node = &mut world.hosts[b].node;
    node.delegate(&authority(), &us, Powers::ALL, GroupGrant::Any, until, now)
        .unwrap();
    node.undelegate(&authority(), &founder, now).unwrap();
    node.revoke(&founder, "stolen", now).unwrap();
    world.settle();
    for at in [b, c] {
        assert_eq!(world.standing(at), Standing::Member);
        assert_eq!(world.hosts[at].node.certificate.issuer, signer(2).key());
        assert!(!world.knows(at, 0));
    }
    assert!(!world.knock(0, c));
    assert_eq!(world.send(b, c, b"ours"), [b"ours".to_vec()]);
}

#[test]
fn what_cannot_be_lent_or_taken_back_is_said() {
    let (mut world, b, c) = three();
    let now = world.now();
    let [founder, peer] = [world.peer(0), world.peer(b)];
    let until = now.unix.plus(MONTHS);
    let node = &mut world.hosts[0].node;
    let mut lend = |by: &Signer, to: &PeerId, powers, until| {
        node.delegate(by, to, powers, GroupGrant::Any, until, now)
    };
    let stranger = signer(99).peer_id();
    let key = authority();
    assert_eq!(
        lend(&signer(1), &peer, Powers::ALL, until),
        Err(CannotDelegate::NotAnAuthority)
    );
    assert_eq!(
        lend(&key, &stranger, Powers::ALL, until),
        Err(CannotDelegate::NotAMember)
    );
    assert_eq!(
        lend(&key, &peer, Powers::NONE, until),
        Err(CannotDelegate::NoPowers)
    );
    assert_eq!(
        lend(&key, &peer, Powers::ALL, now.unix),
        Err(CannotDelegate::Over)
    );
    assert_eq!(
        lend(&key, &founder, Powers::ALL, until),
        Err(CannotDelegate::AlreadyDelegated)
    );
    assert_eq!(
        node.undelegate(&signer(1), &peer, now),
        Err(CannotUndelegate::NotAnAuthority)
    );
    assert_eq!(
        node.undelegate(&key, &peer, now),
        Err(CannotUndelegate::NotADelegate)
    );
    assert_eq!(
        node.undelegate(&key, &founder, now),
        Err(CannotUndelegate::Ourselves)
    );
    let node = &mut world.hosts[c].node;
    assert_eq!(
        node.undelegate(&key, &founder, now),
        Err(CannotUndelegate::CannotReissue)
    );
}

/// A delegate numbers its certificates as high as numbers go, so that no other issuer could follow.
#[test]
fn a_certificate_with_the_highest_serial_is_replaced_all_the_same() {
    let (mut world, b, c) = three();
    world.delegate(b, Powers::ALL, GroupGrant::Any);
    let issuer = world.stolen(b);
    let (peer, now) = (world.peer(c), world.now());
    let member = world.hosts[0].node.directory.get(&peer).unwrap().clone();
    let forged = crate::membership::Certificate {
        serial: u64::MAX,
        issuer: signer(2).key(),
        not_before: now.unix.minus(Duration::from_secs(60)),
        ..member.certificate
    };
    let record = MemberRecord {
        credential: Credential {
            delegation: issuer.envelope().to_vec(),
            certificate: forged.seal(&signer(2)),
        },
        descriptor: member.record.descriptor,
    };
    let node = &mut world.hosts[0].node;
    node.admit(&record.encode(), None, now).unwrap();
    world.settle();
    assert_eq!(world.hosts[c].node.certificate.serial, u64::MAX);
    let ended = world.undelegate(b);
    assert_eq!(ended.reissued, [peer]);
    world.settle();
    if !world.knows(b, c) || world.standing(c) != Standing::Member {
        world.knock(c, b);
        world.knock(c, 0);
    }
    assert_eq!(world.standing(c), Standing::Member);
    assert!(world.hosts[c].node.certificate.serial < u64::MAX);
    for at in [0, b] {
        assert!(world.knows(at, c), "host {at}");
    }
}

#[test]
fn a_delegation_alone_is_bounded_by_its_own_words() {
    let (mut world, b, c) = three();
    let lab = Name::parse("lab").unwrap();
    world.delegate(
        b,
        Powers::ADMIT,
        GroupGrant::Only(BTreeSet::from([lab.clone()])),
    );
    let now = world.now();
    let admit = |world: &mut World, group: &str| {
        let name = Name::parse("n9").unwrap();
        let groups = BTreeSet::from([Name::parse(group).unwrap()]);
        let key = signer(9).key();
        let node = &mut world.hosts[b].node;
        node.admit_applicant(key, name, groups, None, now)
    };
    assert_eq!(
        admit(&mut world, "admin").unwrap_err(),
        CannotAdmit::NotDelegated
    );
    assert!(admit(&mut world, "lab").is_ok());
    assert_eq!(
        world.hosts[b].node.set_policy(vec![], now),
        Err(CannotSetPolicy::NotDelegated)
    );
    let too_long = vec![0; notice::MAX_POLICY + 1];
    assert_eq!(
        world.hosts[0].node.set_policy(too_long, now),
        Err(CannotSetPolicy::TooLarge)
    );
    assert!(world.knows(0, c));
}
