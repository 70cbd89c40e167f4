//! Acting on other nodes, and being acted on: between the commands, the swarm and the [`office`](crate::administration).

use hivevpn_core::{
    membership::{
        Name,
        administration::{Step, message::Ask},
    },
    node::Now,
    output::RequestId,
};
use libp2p::PeerId;
use tokio::sync::oneshot;

use super::EventLoop;
use crate::{
    administration::{
        asking::{Asking, Right, not_administrator},
        desk::Called,
    },
    audit::Outcome,
    bench::asking::Unanswered,
    control::{
        Reply, Request,
        admin::{LoginAnswer, LoginStep, Sealed},
    },
    swarm::Command,
};

impl EventLoop {
    // ---- being acted on ----------------------------------------------------------------------------------

    /// A member wants to act on this node.
    pub(super) fn administer(&mut self, id: RequestId, caller: PeerId, body: &[u8], now: Now) {
        let step = self.office.administer(&mut self.node, &caller, body, now);
        self.write_down(&caller, &step, now);
        if let Some(answer) = step.answer() {
            let (request, body) = (id, answer.encode());
            return self.command(Command::Respond { request, body });
        }
        if let Step::Call { roles, request } = step {
            let called = Called {
                id,
                caller,
                roles,
                request,
            };
            self.desk.answer(called, self.commands.downgrade());
        }
    }

    /// Logins, and who was turned away. Calls are written down where they are answered.
    fn write_down(&mut self, caller: &PeerId, step: &Step, now: Now) {
        let (user, what, why) = match step {
            Step::Granted { user, .. } => (user.as_ref(), "login", None),
            // Each is a guess, and the member that guessed wrong need not say so.
            Step::Begun { user, .. } => (Some(user), "try a password", None),
            Step::Refused { user, why } => (user.as_ref(), "login", Some(why)),
            Step::Call { .. } => return,
        };
        if why.is_some() && !self.office.is_worth_noting(caller, now.instant) {
            return;
        }
        let why = why.map(|why| format!("{why:?}"));
        let outcome = why.as_deref().map_or(Outcome::Done, Outcome::Refused);
        let caller = format!("member {caller}");
        self.audit
            .record(&caller, what, user.map(Name::as_str), outcome);
    }

    pub(super) fn appoint(&mut self, user: &str, roles: &[String], record: &Sealed) -> Reply {
        match self.office.appoint(&self.store, user, roles, record) {
            Ok(entry) => Reply::of(&entry),
            Err(why) => Reply::Error(why),
        }
    }

    pub(super) fn dismiss(&mut self, user: &str) -> Reply {
        match self.office.dismiss(&self.store, user) {
            Ok(()) => Reply::Ok(().into()),
            Err(why) => Reply::Error(why),
        }
    }

    // ---- acting on others --------------------------------------------------------------------------------

    /// Has a member's daemon answer a request, if we may act on it.
    pub(super) fn ask_on(
        &mut self,
        name: &str,
        request: &Request,
        answer: oneshot::Sender<Reply>,
        now: Now,
    ) {
        let asked = self.other_member(name).and_then(|(peer, status)| {
            let capability = self.office.capability(&peer, now.instant);
            let capability = capability
                .ok_or_else(|| not_administrator(status.member.name.as_str()))?
                .to_vec();
            let request = serde_json::to_vec(request).map_err(|error| error.to_string())?;
            Ok(Ask::Call {
                capability,
                request,
            })
        });
        match asked {
            Ok(ask) => self.ask_admin(name, ask, answer),
            // Whoever asked may have gone.
            Err(why) => drop(answer.send(Reply::Error(why))),
        }
    }

    /// A step towards acting on a member.
    pub(super) fn login(&mut self, name: &str, step: LoginStep, answer: oneshot::Sender<Reply>) {
        let ask = match step {
            LoginStep::Whom => {
                let reply = self.other_member(name).map(|(peer, status)| {
                    Reply::of(&LoginAnswer::Parties {
                        client: self.node.peer_id().to_string(),
                        server: peer.to_string(),
                        name: status.member.name.to_string(),
                    })
                });
                return drop(answer.send(reply.unwrap_or_else(Reply::Error)));
            }
            LoginStep::Enter => Ask::Enter,
            LoginStep::Begin { user, message } => match Name::parse(&user) {
                Ok(user) => Ask::Begin {
                    user,
                    begun: message.0,
                },
                Err(error) => return drop(answer.send(Reply::Error(error.to_string()))),
            },
            LoginStep::Prove { message } => Ask::Prove(message.0),
        };
        self.ask_admin(name, ask, answer);
    }

    pub(super) fn logout(&mut self, name: &str) -> Reply {
        match self.node.resolve(name) {
            Some(peer) if self.office.forget(&peer) => Reply::Ok(().into()),
            Some(_) => Reply::Error(format!("you are not logged in on {name}")),
            None => Reply::Error(super::answers::unknown(name)),
        }
    }

    fn ask_admin(&mut self, name: &str, ask: Ask, answer: oneshot::Sender<Reply>) {
        match self.other_member(name) {
            Ok((peer, status)) => {
                let name = status.member.name.to_string();
                let asking = Asking { name, ask, answer };
                self.command(Command::AskAdmin { peer, asking });
            }
            Err(why) => drop(answer.send(Reply::Error(why))),
        }
    }

    /// A member's daemon answered, or did not.
    pub(super) fn on_admin_answer(
        &mut self,
        peer: PeerId,
        asking: Asking,
        outcome: Result<Vec<u8>, Unanswered>,
        now: Now,
    ) {
        let (reply, right) = asking.settle(outcome);
        match right {
            Right::Given(grant) => self.office.keep(peer, grant, now.instant),
            Right::Ended => drop(self.office.forget(&peer)),
            Right::Unchanged => {}
        }
        // Whoever asked may have gone.
        let _ = asking.answer.send(reply);
    }
}
