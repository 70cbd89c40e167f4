//! Who may act on a node, and all the ways not to.

use super::*;
use crate::{
    membership::{
        password::Login,
        testing::{NOW, name, signer},
    },
    testing::epoch,
};

const PASSWORD: &str = "correct horse";

fn seed(number: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([number; 32])
}

fn admin(password: &str, roles: Roles) -> Admin {
    let record = PasswordRecord::of(password.as_bytes(), &seed(1)).unwrap();
    Admin { roles, record }
}

/// A node with an administrator `admin`, at a moment.
struct Target {
    signer: Signer,
    administration: Administration,
    instant: Instant,
    unix: UnixTime,
}

impl Target {
    fn new(number: u8) -> Self {
        let mut administration = Administration::new(seed(2), &seed(3), [number; 16]);
        let admins = [(name("admin"), admin(PASSWORD, Roles::METRICS))];
        administration.appoint(admins.into(), [number; 16]);
        Self {
            signer: signer(number),
            administration,
            instant: epoch(),
            unix: NOW,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.instant += time;
        self.unix = self.unix.plus(time);
    }

    fn hear(&mut self, from: u8, listed: Roles, ask: &Ask) -> Step {
        let site = Site {
            signer: &self.signer,
            network: NetworkId::from_bytes([1; 32]),
            unix: self.unix,
            instant: self.instant,
        };
        let from = signer(from).peer_id();
        self.administration
            .handle(&from, listed, &ask.encode(), &site)
    }

    fn begin(&mut self, from: u8, user: &str, password: &str) -> (Login, Step) {
        let user = name(user);
        let parties = parties(&user, signer(from).peer_id(), self.signer.peer_id());
        let (login, begun) =
            Login::begin(password.as_bytes(), &parties, [seed(4), seed(5)]).unwrap();
        let step = self.hear(from, Roles::NONE, &Ask::Begin { user, begun });
        (login, step)
    }

    /// A whole login; none if the client finds that the password is wrong.
    fn login(&mut self, from: u8, user: &str, password: &str) -> Option<Step> {
        let (login, step) = self.begin(from, user, password);
        let Step::Begun { challenge, .. } = step else {
            return Some(step);
        };
        let (_, proof) = login.answer(&challenge).ok()?;
        Some(self.hear(from, Roles::NONE, &Ask::Prove(proof)))
    }

    fn capability(&mut self, from: u8) -> Vec<u8> {
        match self.login(from, "admin", PASSWORD) {
            Some(Step::Granted { grant, .. }) => grant.capability,
            other => panic!("{other:?}"),
        }
    }

    fn call(&mut self, from: u8, capability: &[u8]) -> Step {
        let call = Ask::Call {
            capability: capability.to_vec(),
            request: b"what".to_vec(),
        };
        self.hear(from, Roles::NONE, &call)
    }
}

fn refusal(step: Step) -> Refusal {
    match step {
        Step::Refused { why, .. } => why,
        Step::Begun { .. } | Step::Granted { .. } | Step::Call { .. } => panic!("{step:?}"),
    }
}

#[test]
fn with_the_password_a_member_may_do_what_the_administrator_may() {
    let mut target = Target::new(1);
    let capability = target.capability(2);
    let expected = Step::Call {
        roles: Roles::METRICS,
        request: b"what".to_vec(),
    };
    assert_eq!(target.call(2, &capability), expected);
}

#[test]
fn without_a_capability_or_with_anothers_nothing_is_done() {
    let (mut target, mut other) = (Target::new(1), Target::new(9));
    assert_eq!(refusal(target.call(2, b"")), Refusal::NotAdministrator);
    let capability = target.capability(2);
    // Overheard by another member, and shown at another node.
    assert_eq!(
        refusal(target.call(3, &capability)),
        Refusal::NotAdministrator
    );
    assert_eq!(
        refusal(other.call(2, &capability)),
        Refusal::NotAdministrator
    );
}

#[test]
fn a_wrong_password_is_found_by_the_client_and_a_made_up_proof_by_the_node() {
    let mut target = Target::new(1);
    assert_eq!(target.login(2, "admin", "wrong"), None);
    let (_, step) = target.begin(2, "admin", "wrong");
    assert!(matches!(step, Step::Begun { .. }));
    let made_up = Ask::Prove(vec![7; 64]);
    let step = target.hear(2, Roles::NONE, &made_up);
    assert_eq!(refusal(step), Refusal::WrongPassword);
}

#[test]
fn a_proof_serves_its_own_challenge_once() {
    let mut target = Target::new(1);
    let (login, Step::Begun { challenge, .. }) = target.begin(2, "admin", PASSWORD) else {
        panic!("a login begins");
    };
    let (_, proof) = login.answer(&challenge).unwrap();
    let prove = Ask::Prove(proof);
    let from_another = target.hear(3, Roles::NONE, &prove);
    assert_eq!(refusal(from_another), Refusal::WrongPassword);
    let first = target.hear(2, Roles::NONE, &prove);
    assert!(matches!(first, Step::Granted { .. }));
    let again = target.hear(2, Roles::NONE, &prove);
    assert_eq!(refusal(again), Refusal::WrongPassword);
}

#[test]
fn a_proof_that_comes_too_late_is_none() {
    let mut target = Target::new(1);
    let (login, Step::Begun { challenge, .. }) = target.begin(2, "admin", PASSWORD) else {
        panic!("a login begins");
    };
    let (_, proof) = login.answer(&challenge).unwrap();
    target.pass(ANSWER_TIME);
    let late = target.hear(2, Roles::NONE, &Ask::Prove(proof));
    assert_eq!(refusal(late), Refusal::WrongPassword);
}

#[test]
fn a_name_that_is_no_administrators_is_answered_like_one_that_is() {
    let mut target = Target::new(1);
    let (_, known) = target.begin(2, "admin", "guess");
    let (_, unknown) = target.begin(3, "nobody", "guess");
    let (
        Step::Begun {
            challenge: known, ..
        },
        Step::Begun {
            challenge: unknown, ..
        },
    ) = (known, unknown)
    else {
        panic!("both are challenged");
    };
    assert_eq!(known.len(), unknown.len());
    assert_eq!(target.login(4, "nobody", PASSWORD), None);
    // The evaluated element, which leads the message, depends on the name's key and the guess alone.
    let again = |target: &mut Target, from| {
        let Step::Begun { challenge, .. } = target.begin(from, "nobody", "guess").1 else {
            panic!("it is challenged");
        };
        challenge[..32].to_vec()
    };
    assert_eq!(again(&mut target, 5), unknown[..32]);
    assert_eq!(again(&mut Target::new(1), 5), unknown[..32]);
}

#[test]
fn guessing_is_slowed_down_and_a_success_forgives() {
    let mut target = Target::new(1);
    for _ in 0..3 {
        assert_eq!(target.login(2, "admin", "wrong"), None);
    }
    let (_, fourth) = target.begin(2, "admin", PASSWORD);
    assert_eq!(refusal(fourth), Refusal::TooOften { seconds: 2 });
    assert!(matches!(
        target.login(3, "admin", PASSWORD),
        Some(Step::Granted { .. })
    ));
    target.pass(Duration::from_secs(2));
    for _ in 0..10 {
        assert!(matches!(
            target.login(2, "admin", PASSWORD),
            Some(Step::Granted { .. })
        ));
        target.pass(Duration::from_secs(3));
    }
}

#[test]
fn a_new_password_ends_capabilities_and_logins_under_way() {
    let mut target = Target::new(1);
    let capability = target.capability(2);
    let (login, Step::Begun { challenge, .. }) = target.begin(2, "admin", PASSWORD) else {
        panic!("a login begins");
    };
    let admins = [(name("admin"), admin("another", Roles::METRICS))];
    target.administration.appoint(admins.into(), [8; 16]);
    assert_eq!(
        refusal(target.call(2, &capability)),
        Refusal::NotAdministrator
    );
    let (_, proof) = login.answer(&challenge).unwrap();
    let late = target.hear(2, Roles::NONE, &Ask::Prove(proof));
    assert_eq!(refusal(late), Refusal::WrongPassword);
    assert_eq!(target.login(2, "admin", PASSWORD), None);
    assert!(target.login(2, "admin", "another").is_some());
}

#[test]
fn after_an_hour_the_capability_is_over() {
    let mut target = Target::new(1);
    let capability = target.capability(2);
    target.pass(capability::LIFETIME);
    assert!(matches!(target.call(2, &capability), Step::Call { .. }));
    target.pass(Duration::from_secs(1));
    assert_eq!(
        refusal(target.call(2, &capability)),
        Refusal::NotAdministrator
    );
}

#[test]
fn who_is_listed_needs_no_password_and_who_is_not_gets_nothing() {
    let mut target = Target::new(1);
    let Step::Granted { user: None, grant } = target.hear(2, Roles::CONFIG, &Ask::Enter) else {
        panic!("the configuration lists it");
    };
    assert_eq!(grant.roles, Roles::CONFIG);
    assert!(matches!(
        target.call(2, &grant.capability),
        Step::Call {
            roles: Roles::CONFIG,
            ..
        }
    ));
    let unlisted = target.hear(3, Roles::NONE, &Ask::Enter);
    assert_eq!(refusal(unlisted), Refusal::NotListed);
}

#[test]
fn a_flood_of_calls_is_cut_off_and_others_are_heard() {
    let mut target = Target::new(1);
    let (mine, theirs) = (target.capability(2), target.capability(3));
    let answered = (0..500)
        .filter(|_| matches!(target.call(2, &mine), Step::Call { .. }))
        .count();
    assert_eq!(answered, CALLS_AT_ONCE as usize - 2, "the login counts");
    assert!(matches!(target.call(3, &theirs), Step::Call { .. }));
    target.pass(Duration::from_secs(1));
    assert!(matches!(target.call(2, &mine), Step::Call { .. }));
}

#[test]
fn what_is_not_understood_is_refused() {
    let mut target = Target::new(1);
    let site = Site {
        signer: &target.signer,
        network: NetworkId::from_bytes([1; 32]),
        unix: NOW,
        instant: target.instant,
    };
    let from = signer(2).peer_id();
    let step = target
        .administration
        .handle(&from, Roles::ALL, b"gibberish", &site);
    assert_eq!(refusal(step), Refusal::NotUnderstood);
}

#[test]
fn an_administrator_survives_the_store() {
    let kept = admin(PASSWORD, Roles::CONFIG).encode();
    let found = Admin::decode(&kept).unwrap();
    assert_eq!(found.roles, Roles::CONFIG);
    let mut target = Target::new(1);
    let admins = [(name("other"), found)];
    target.administration.appoint(admins.into(), [1; 16]);
    assert!(target.login(2, "other", PASSWORD).is_some());
    assert!(Admin::decode(&kept[1..]).is_err());
}
