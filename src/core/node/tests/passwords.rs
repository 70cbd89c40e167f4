//! Joining by the network's name and password, and all the ways not to.

use super::*;
use crate::membership::{JoinError, PasswordJoin, PasswordProven, PasswordRecord};

const PASSWORD: &str = "correct horse battery";

fn seed(number: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([number; 32])
}

fn home() -> Name {
    Name::parse("home").unwrap()
}

fn wrong_password() -> JoinError {
    JoinError::Refused(JoinRefusal::WrongPassword)
}

fn rate_limited() -> JoinError {
    JoinError::Refused(JoinRefusal::RateLimited)
}

impl World {
    fn with_password(password: &str) -> Self {
        let mut world = Self::new();
        world.set_password(password);
        world
    }

    fn set_password(&mut self, password: &str) {
        let record = PasswordRecord::of(password.as_bytes(), &seed(11)).unwrap();
        self.hosts[0].node.set_password(Some(record));
    }

    /// Carries a message of the stranger `number` to the host `at`, and the answer back.
    fn carry(&mut self, at: usize, number: u8, message: &[u8]) -> Vec<u8> {
        let now = self.now();
        let peer = signer(number).peer_id();
        self.hosts[at]
            .node
            .handle_join_request(RequestId(0), peer, message, now);
        self.settle();
        self.hosts[at]
            .answers
            .pop()
            .expect("every request is answered")
    }

    fn begin(&self, name: &str, password: &str, number: u8) -> (PasswordJoin, Vec<u8>) {
        let founder = self.hosts[0].node.peer_id();
        let us = signer(number).peer_id();
        let seeds = [seed(number), seed(number + 100)];
        let name = Name::parse(name).unwrap();
        PasswordJoin::begin(&name, password.as_bytes(), &us, &founder, seeds).unwrap()
    }

    /// The first two steps of a join.
    fn prove(
        &mut self,
        name: &str,
        password: &str,
        number: u8,
    ) -> Result<(PasswordProven, Vec<u8>), JoinError> {
        let (join, begun) = self.begin(name, password, number);
        let challenge = self.carry(0, number, &begun);
        join.prove(&challenge, &format!("n{number}"), None)
    }

    /// A whole join of the stranger `number` at the founder.
    fn log_in(&mut self, name: &str, password: &str, number: u8) -> Result<Joined, JoinError> {
        let (proven, proof) = self.prove(name, password, number)?;
        let answer = self.carry(0, number, &proof);
        proven.accept(&answer, &signer(number).key(), UNIX)
    }

    /// A connection of the stranger `number` to the founder.
    fn connects(&mut self, number: u8, link: Link) {
        let id = ConnectionId(1000 + u64::from(number));
        let now = self.now();
        let peer = signer(number).peer_id();
        let founder = &mut self.hosts[0].node;
        founder.handle_connection_opened(id, peer, link, now);
    }
}

#[test]
fn who_knows_name_and_password_becomes_a_member_of_the_lowest_tier() {
    let mut world = World::with_password(PASSWORD);
    let joined = world.log_in("home", PASSWORD, 2).unwrap();
    assert_eq!(joined.certificate.tier, 0);
    assert!(joined.certificate.groups.is_empty());
    assert_eq!(joined.certificate.name.as_str(), "n2");
    assert_eq!(joined.network, *world.hosts[0].node.network());

    let start = start(2, joined.network, joined.credential, joined.records);
    world.start_host(start, 2);
    world.connect(0, 1);
    assert_eq!(world.send(1, 0, b"hello").len(), 1);
}

#[test]
fn a_member_by_invite_loses_nothing_by_the_password() {
    let mut world = World::with_password(PASSWORD);
    let invite = world.invite(7);
    let before = world.ask(&invite, 2).unwrap().certificate;
    let after = world.log_in("home", PASSWORD, 2).unwrap().certificate;
    assert_eq!((after.tier, after.ipv4), (1, before.ipv4));
    assert_eq!(after.admitted_at, before.admitted_at);
    assert!(after.serial > before.serial);
}

#[test]
fn who_was_expelled_does_not_come_back_by_the_password() {
    let mut world = World::with_password(PASSWORD);
    let b = world.join(2);
    world.connect(0, b);
    let (expelled, now) = (world.hosts[b].node.peer_id(), world.now());
    let founder = &mut world.hosts[0].node;
    founder.revoke(&expelled, "lost", now).unwrap();
    world.settle();
    let refused = world.log_in("home", PASSWORD, 2).err();
    assert_eq!(refused, Some(JoinError::Refused(JoinRefusal::Expelled)));
    assert!(world.log_in("home", PASSWORD, 3).is_ok());
}

#[test]
fn a_wrong_name_a_wrong_password_and_no_password_at_all_look_the_same() {
    let mut world = World::with_password(PASSWORD);
    let mut lengths = Vec::new();
    for (name, password) in [("home", "wrong"), ("hone", PASSWORD), ("hone", "wrong")] {
        assert_eq!(
            world.log_in(name, password, 2).err(),
            Some(wrong_password())
        );
        let (_, begun) = world.begin(name, password, 2);
        lengths.push(world.carry(0, 2, &begun).len());
    }
    let mut without = World::new();
    assert_eq!(
        without.log_in("home", PASSWORD, 2).err(),
        Some(wrong_password())
    );
    let (_, begun) = without.begin("home", PASSWORD, 2);
    lengths.push(without.carry(0, 2, &begun).len());
    lengths.dedup();
    assert_eq!(lengths.len(), 1, "one length: {lengths:?}");
}

#[test]
fn a_node_that_may_not_admit_says_so() {
    let mut world = World::with_password(PASSWORD);
    let b = world.join(2);
    let (join, begun) = world.begin("home", PASSWORD, 3);
    let answer = world.carry(b, 3, &begun);
    let refused = join.prove(&answer, "n3", None).err();
    assert_eq!(refused, Some(JoinError::Refused(JoinRefusal::MayNotAdmit)));
    let now = world.now();
    assert_eq!(
        world.hosts[b].node.may_set_password(now),
        Err(NoPassword::MayNotAdmit)
    );
}

#[test]
fn a_changed_password_replaces_the_old_one_and_a_cleared_one_admits_nobody() {
    let mut world = World::with_password(PASSWORD);
    world.set_password("another");
    assert_eq!(
        world.log_in("home", PASSWORD, 2).err(),
        Some(wrong_password())
    );
    assert!(world.log_in("home", "another", 2).is_ok());
    world.hosts[0].node.set_password(None);
    assert!(!world.hosts[0].node.has_password());
    assert_eq!(
        world.log_in("home", "another", 3).err(),
        Some(wrong_password())
    );
}

#[test]
fn a_login_that_began_before_the_change_does_not_end_after_it() {
    let mut world = World::with_password(PASSWORD);
    let (proven, proof) = world.prove("home", PASSWORD, 2).unwrap();
    world.set_password(PASSWORD);
    let answer = world.carry(0, 2, &proof);
    let refused = proven.accept(&answer, &signer(2).key(), UNIX).err();
    assert_eq!(refused, Some(wrong_password()));
}

#[test]
fn a_proof_admits_once_and_only_who_made_it() {
    let mut world = World::with_password(PASSWORD);
    let (proven, proof) = world.prove("home", PASSWORD, 2).unwrap();
    for (number, admitted) in [(3, false), (2, true), (2, false), (3, false)] {
        let answer = world.carry(0, number, &proof);
        let accepted = proven.accept(&answer, &signer(2).key(), UNIX);
        assert_eq!(accepted.is_ok(), admitted, "peer {number}");
    }
}

#[test]
fn a_login_lapses_when_it_is_not_completed() {
    let mut world = World::with_password(PASSWORD);
    let (proven, proof) = world.prove("home", PASSWORD, 2).unwrap();
    world.pass(Duration::from_secs(31));
    let answer = world.carry(0, 2, &proof);
    let refused = proven.accept(&answer, &signer(2).key(), UNIX).err();
    assert_eq!(refused, Some(wrong_password()));
    assert_eq!(world.hosts[0].node.passwords.poll_timeout(), None);
}

/// Mallory has his own bootstrap string taken for the founder's. The joiner connects to him, and he passes every
/// message on to the founder and back, under his own peer id: he has no other.
#[test]
fn a_node_in_the_middle_gets_nowhere_and_learns_nothing() {
    let mut world = World::with_password(PASSWORD);
    let (joiner, mallory) = (signer(2), signer(66));
    let seeds = [seed(2), seed(3)];
    let (join, begun) = PasswordJoin::begin(
        &home(),
        PASSWORD.as_bytes(),
        &joiner.peer_id(),
        &mallory.peer_id(),
        seeds,
    )
    .unwrap();
    let challenge = world.carry(0, 66, &begun);
    assert_eq!(
        join.prove(&challenge, "n2", None).err(),
        Some(wrong_password())
    );
}

/// The same Mallory, who begins the founder in the joiner's place while the joiner believes to speak with the founder:
/// what the joiner says to the founder fits no login of Mallory's.
#[test]
fn what_was_overheard_serves_no_other_peer() {
    let mut world = World::with_password(PASSWORD);
    let (join, begun) = world.begin("home", PASSWORD, 2);
    let challenge = world.carry(0, 2, &begun);
    let for_mallory = world.carry(0, 66, &begun);
    let (proven, proof) = join.prove(&challenge, "n2", None).unwrap();
    let answer = world.carry(0, 66, &proof);
    assert_eq!(
        proven.accept(&answer, &signer(66).key(), UNIX).err(),
        Some(wrong_password())
    );

    let (join, _) = world.begin("home", PASSWORD, 2);
    assert_eq!(
        join.prove(&for_mallory, "n2", None).err(),
        Some(wrong_password())
    );
}

/// Whoever could write into the joiner's connection would still have to know the key of the login.
#[test]
fn an_admission_that_was_bent_or_is_of_another_login_is_not_believed() {
    let mut world = World::with_password(PASSWORD);
    let (proven, proof) = world.prove("home", PASSWORD, 2).unwrap();
    let answer = world.carry(0, 2, &proof);
    let (other, _) = world.prove("home", PASSWORD, 2).unwrap();
    let own = signer(2).key();
    assert!(matches!(
        other.accept(&answer, &own, UNIX).err(),
        Some(JoinError::Unproven(_))
    ));
    for at in 0..answer.len() {
        let mut bent = answer.clone();
        bent[at] ^= 1;
        assert!(proven.accept(&bent, &own, UNIX).is_err(), "byte {at}");
    }
    assert!(proven.accept(&answer, &own, UNIX).is_ok());
}

#[test]
fn a_hundred_wrong_passwords_are_cut_off_after_ten() {
    let mut world = World::with_password(PASSWORD);
    world.connects(2, Link::Quic(endpoint(9)));
    let mut refusals = Vec::new();
    for _ in 0..100 {
        world.pass(Duration::from_millis(100));
        refusals.push(world.log_in("home", "wrong", 2).unwrap_err());
    }
    let wrong = refusals.iter().filter(|why| **why == wrong_password());
    assert_eq!(wrong.count(), 10);
    assert!(refusals[10..].iter().all(|why| *why == rate_limited()));
    // Even the right one must wait now.
    assert_eq!(
        world.log_in("home", PASSWORD, 2).err(),
        Some(rate_limited())
    );
    world.pass(Duration::from_secs(60));
    assert!(world.log_in("home", PASSWORD, 2).is_ok());
}

#[test]
fn another_identity_at_the_same_address_or_relay_is_the_same_source() {
    let relay = signer(50).peer_id();
    for link in [Link::Tcp(endpoint(9)), Link::Relayed { relay }] {
        let mut world = World::with_password(PASSWORD);
        let mut wrong = 0;
        for number in 2..32 {
            world.pass(Duration::from_millis(100));
            world.connects(number, link);
            let refusal = world.log_in("home", "wrong", number).unwrap_err();
            wrong += usize::from(refusal == wrong_password());
        }
        assert_eq!(wrong, 10, "{link:?}");
        // Whoever comes from elsewhere is not held up.
        world.connects(40, Link::Tcp(endpoint(10)));
        assert!(world.log_in("home", PASSWORD, 40).is_ok());
    }
}

#[test]
fn whoever_is_refused_for_trying_too_often_may_still_use_an_invite() {
    let mut world = World::with_password(PASSWORD);
    for _ in 0..15 {
        let _ = world.log_in("home", "wrong", 2);
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.log_in("home", "wrong", 2).err(), Some(rate_limited()));
    let invite = world.invite(7);
    assert!(world.ask(&invite, 2).is_ok());
}

#[test]
fn a_step_that_is_no_step_is_refused() {
    let mut world = World::with_password(PASSWORD);
    for bytes in [&b""[..], b"x", &[0; 100]] {
        let answer = world.carry(0, 2, &JoinMessage::Password(bytes.to_vec()).encode());
        let (join, _) = world.begin("home", PASSWORD, 2);
        let refused = join.prove(&answer, "n2", None).err();
        assert_eq!(refused, Some(JoinError::Refused(JoinRefusal::Malformed)));
    }
}
