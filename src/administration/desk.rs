//! Has the requests of members answered, as the control socket has those of this machine's commands answered.
//!
//! What a request takes is in one table for all callers ([`roles`]), and what was changed or refused is
//! written down for all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hivevpn_core::{
    membership::{
        Roles,
        administration::message::{Answer, MAX_ANSWER, Refusal},
    },
    output::RequestId,
};
use libp2p::PeerId;
use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    control::{Reply, Request},
    control_socket,
    event_loop::Local,
    mailbox,
    roles::{self, Access, Caller},
    swarm::Command,
};

/// What CBOR adds around a reply, and some to spare.
const ENVELOPE: usize = 64;
/// A node that is told to stop from afar does so when its answer had time to get there.
const FAREWELL: Duration = Duration::from_secs(1);

/// A request that a member's capability lets it ask, or not.
pub struct Called {
    /// Which request of the swarm is answered.
    pub id: RequestId,
    /// Who asks.
    pub caller: PeerId,
    /// What it may do.
    pub roles: Roles,
    /// What it asks, in JSON.
    pub request: Vec<u8>,
}

/// Answers members.
pub struct Desk {
    runtime: Handle,
    to_loop: mailbox::Sender<Local>,
    access: Arc<Access>,
}

impl Desk {
    /// Answers on this runtime what the loop knows.
    pub fn new(runtime: Handle, to_loop: mailbox::Sender<Local>, access: Arc<Access>) -> Self {
        Self {
            runtime,
            to_loop,
            access,
        }
    }

    /// Has a request answered, in its own time.
    pub fn answer(&self, called: Called, commands: mpsc::WeakSender<Command>) {
        let (to_loop, access) = (self.to_loop.clone(), self.access.clone());
        self.runtime.spawn(async move {
            let request = called.id;
            let (answer, stop) = answer(&called, &access, &to_loop).await;
            if let Some(commands) = commands.upgrade() {
                let body = answer.encode();
                // Without a swarm nobody waits.
                let _ = commands.send(Command::Respond { request, body }).await;
            }
            if stop {
                tokio::time::sleep(FAREWELL).await;
                // A loop that has ended need not be told.
                let _ = to_loop.send(Local::Stop).await;
            }
        });
    }
}

/// The answer, and whether to stop then.
async fn answer(
    called: &Called,
    access: &Access,
    to_loop: &mailbox::Sender<Local>,
) -> (Answer, bool) {
    let Ok(request) = serde_json::from_slice::<Request>(&called.request) else {
        return (Answer::Refused(Refusal::NotUnderstood), false);
    };
    let caller = Caller::Member(called.caller, called.roles);
    let rule = match access.allow(&caller, &request, Instant::now()) {
        Ok(rule) => rule,
        Err(why) => return (Answer::Refused(refusal(&why)), false),
    };
    let stop = request == Request::Down;
    let reply = if stop {
        Ok(Reply::Ok(().into()))
    } else {
        control_socket::ask_loop(request, to_loop).await
    };
    let reply = reply.unwrap_or_else(|_| Reply::Error("the daemon is stopping".to_owned()));
    access.answered(&caller, &rule, &reply);
    (replied(&reply), stop)
}

fn refusal(why: &roles::Refusal) -> Refusal {
    match why {
        roles::Refusal::Stranger => Refusal::NotAdministrator,
        roles::Refusal::Role { role, .. } => Refusal::MissingRole(*role),
        roles::Refusal::OnlyHere(_) => Refusal::OnlyThere,
        roles::Refusal::TooOften => Refusal::TooOften { seconds: 1 },
    }
}

fn replied(reply: &Reply) -> Answer {
    let encode = |reply: &Reply| serde_json::to_vec(reply).ok();
    let fits = |bytes: &Vec<u8>| bytes.len() <= MAX_ANSWER - ENVELOPE;
    let too_long = || {
        let why = "the answer is too long to be sent: ask on that node itself";
        encode(&Reply::Error(why.to_owned()))
    };
    let bytes = encode(reply).filter(fits).or_else(too_long);
    Answer::Replied(bytes.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use hivevpn_platform::poll::Waker;

    use super::*;
    use crate::audit::Audit;

    /// What a member with these roles is answered by a loop that says 7 to everything.
    async fn ask(roles: Roles, request: &str) -> (Answer, bool) {
        let (to_loop, mut local) = mailbox::channel(8, Waker::new().unwrap());
        let state = tempfile::tempdir().unwrap();
        let access = Access::new(Audit::open(state.path()).unwrap());
        let called = Called {
            id: RequestId(1),
            caller: PeerId::random(),
            roles,
            request: request.as_bytes().to_vec(),
        };
        let asked = answer(&called, &access, &to_loop);
        let answering = async {
            loop {
                if let Some(Local::Control(asked)) = local.try_recv() {
                    asked.answer.send(Reply::Ok(7.into())).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = asked => answer,
            () = answering => unreachable!("it answers for ever"),
        }
    }

    #[tokio::test]
    async fn what_the_roles_include_is_answered_as_it_would_be_here() {
        let seven = Answer::Replied(br#"{"ok":7}"#.to_vec());
        let (answer, stop) = ask(Roles::METRICS, r#"{"command":"status"}"#).await;
        assert_eq!((answer, stop), (seven, false));
    }

    #[tokio::test]
    async fn what_they_do_not_include_is_refused() {
        for (roles, request, missing) in [
            (Roles::METRICS, r#"{"command":"down"}"#, Roles::CONFIG),
            (Roles::CONFIG, r#"{"command":"status"}"#, Roles::METRICS),
            (
                Roles::CONFIG,
                r#"{"command":"invite","name":null,"groups":[],"address":null,"expires_s":60}"#,
                Roles::KEYS,
            ),
        ] {
            let (answer, stop) = ask(roles, request).await;
            let refused = Answer::Refused(Refusal::MissingRole(missing));
            assert_eq!((answer, stop), (refused, false), "{request}");
        }
    }

    #[tokio::test]
    async fn no_role_lets_a_member_appoint_administrators_or_go_on_to_other_nodes() {
        for request in [
            r#"{"command":"admins"}"#,
            r#"{"command":"appoint","user":"me","roles":["keys"],"record":""}"#,
            r#"{"command":"dismiss","user":"admin"}"#,
            r#"{"command":"on","peer":"c","request":{"command":"status"}}"#,
            r#"{"command":"login","peer":"c","step":"enter"}"#,
            r#"{"command":"logout","peer":"c"}"#,
        ] {
            let (answer, _) = ask(Roles::ALL, request).await;
            assert_eq!(answer, Answer::Refused(Refusal::OnlyThere), "{request}");
        }
    }

    #[tokio::test]
    async fn down_is_answered_first() {
        let (answer, stop) = ask(Roles::CONFIG, r#"{"command":"down"}"#).await;
        assert_eq!(answer, Answer::Replied(br#"{"ok":null}"#.to_vec()));
        assert!(stop);
    }

    #[tokio::test]
    async fn what_is_no_request_is_not_understood() {
        for request in ["", "gibberish", r#"{"command":"format"}"#] {
            let (answer, _) = ask(Roles::ALL, request).await;
            assert_eq!(answer, Answer::Refused(Refusal::NotUnderstood));
        }
    }

    #[test]
    fn an_answer_that_does_not_fit_says_so() {
        let Answer::Replied(bytes) = replied(&Reply::Ok("x".repeat(MAX_ANSWER).into())) else {
            panic!("an answer");
        };
        assert!(matches!(
            serde_json::from_slice(&bytes),
            Ok(Reply::Error(why)) if why.contains("too long")
        ));
    }
}
