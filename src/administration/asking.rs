//! The asking daemon's part: a message to a member's daemon, and what its answer means to the command that waits.
//!
//! Whatever comes back was written by another machine. It is shown on a terminal, so nothing that a terminal would obey
//! gets through.

use hivevpn_core::membership::administration::message::{Answer, Ask, Grant, Refusal};
use serde_json::Value;
use tokio::sync::oneshot;

use super::role_names;
use crate::{
    bench::asking::Unanswered,
    control::{
        Reply,
        admin::{Granted, LoginAnswer, Sealed},
    },
};

/// A message that is under way, and who waits for its answer.
#[derive(Debug)]
pub struct Asking {
    /// Name of the member that is asked.
    pub name: String,
    /// What it is asked.
    pub ask: Ask,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

/// What the answer says about our right to act on the node.
#[derive(Debug, PartialEq, Eq)]
pub enum Right {
    /// Nothing new.
    Unchanged,
    /// We were given it.
    Given(Grant),
    /// We have none, or none any more.
    Ended,
}

impl Asking {
    /// What the command is told, and what is to be remembered.
    pub fn settle(&self, outcome: Result<Vec<u8>, Unanswered>) -> (Reply, Right) {
        let answer = match outcome {
            Ok(body) => Answer::decode(&body).ok(),
            Err(why) => return (Reply::Error(self.unanswered(why)), Right::Unchanged),
        };
        let name = &self.name;
        match (answer, &self.ask) {
            (Some(Answer::Granted(grant)), Ask::Enter | Ask::Prove(_)) => {
                let granted = Granted {
                    node: name.clone(),
                    roles: role_names(grant.roles),
                    seconds: grant.seconds,
                };
                let reply = Reply::of(&LoginAnswer::Granted(granted));
                (reply, Right::Given(grant))
            }
            (Some(Answer::Challenge(message)), Ask::Begin { .. }) => {
                let challenge = LoginAnswer::Challenge(Sealed(message));
                (Reply::of(&challenge), Right::Unchanged)
            }
            (Some(Answer::Replied(reply)), Ask::Call { .. }) => {
                match serde_json::from_slice(&reply) {
                    Ok(reply) => (tame(reply), Right::Unchanged),
                    Err(_) => (self.other_version(), Right::Unchanged),
                }
            }
            (Some(Answer::Refused(why)), _) => self.refused(why),
            (Some(Answer::Granted(_) | Answer::Challenge(_) | Answer::Replied(_)) | None, _) => {
                (self.other_version(), Right::Unchanged)
            }
        }
    }

    fn refused(&self, why: Refusal) -> (Reply, Right) {
        let name = &self.name;
        let why = match why {
            Refusal::NotAdministrator => {
                return (Reply::Error(not_administrator(name)), Right::Ended);
            }
            Refusal::NotListed => return (Reply::of(&LoginAnswer::NotListed), Right::Unchanged),
            Refusal::WrongPassword => {
                format!("{name} does not accept it: the user or the password is wrong")
            }
            Refusal::TooOften { seconds } => {
                format!("{name} was asked too often: try again in {seconds} s")
            }
            Refusal::MissingRole(role) => format!(
                "this takes the role {} on {name}, which your login does not give",
                role_names(role).join(", ")
            ),
            Refusal::OnlyThere => format!("this can be done on {name} itself only"),
            Refusal::NotUnderstood => return (self.other_version(), Right::Unchanged),
        };
        (Reply::Error(why), Right::Unchanged)
    }

    fn other_version(&self) -> Reply {
        Reply::Error(format!(
            "{} runs a version of hivevpn that differs from ours: bring both to the same version",
            self.name
        ))
    }

    fn unanswered(&self, why: Unanswered) -> String {
        let name = &self.name;
        match why {
            Unanswered::NotConnected => {
                format!("{name} is not connected at the moment: look at 'hivevpn status'")
            }
            Unanswered::Unsupported => {
                format!("{name} runs a version of hivevpn without 'login': update it")
            }
            Unanswered::Lost(error) => format!("{name} did not answer: {error}"),
        }
    }
}

/// What whoever has no right on a node is told.
pub fn not_administrator(name: &str) -> String {
    format!("not an administrator of {name}: log in with 'hivevpn login {name}'")
}

/// Takes out of a reply what would move a terminal's cursor, change its colours, or worse.
fn tame(reply: Reply) -> Reply {
    match reply {
        Reply::Ok(value) => Reply::Ok(tame_value(value)),
        Reply::Error(text) => Reply::Error(tame_text(text)),
        Reply::Starting(text) => Reply::Starting(tame_text(text)),
    }
}

fn tame_value(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(tame_text(text)),
        Value::Array(values) => values.into_iter().map(tame_value).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (tame_text(key), tame_value(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

fn tame_text(text: String) -> String {
    let is_obeyed = |c: char| c.is_control() && c != '\n';
    if text.contains(is_obeyed) {
        text.replace(is_obeyed, "\u{fffd}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use hivevpn_core::membership::Roles;

    use super::*;

    fn settle(ask: Ask, outcome: Result<Answer, Unanswered>) -> (Reply, Right) {
        let asking = Asking {
            name: "gpu".to_owned(),
            ask,
            answer: oneshot::channel().0,
        };
        asking.settle(outcome.map(|answer| answer.encode()))
    }

    fn call() -> Ask {
        Ask::Call {
            capability: vec![1],
            request: vec![2],
        }
    }

    fn grant() -> Grant {
        Grant {
            capability: vec![7],
            roles: Roles::METRICS,
            seconds: 3600,
        }
    }

    #[test]
    fn a_grant_is_kept_and_the_command_learns_what_it_is_good_for() {
        for ask in [Ask::Enter, Ask::Prove(vec![1])] {
            let (reply, right) = settle(ask, Ok(Answer::Granted(grant())));
            assert_eq!(right, Right::Given(grant()));
            let Reply::Ok(value) = reply else {
                panic!("{reply:?}");
            };
            assert!(!value.to_string().contains("capability"), "{value}");
            let LoginAnswer::Granted(granted) = serde_json::from_value(value).unwrap() else {
                panic!("a grant");
            };
            assert_eq!(
                (granted.roles, granted.seconds),
                (vec!["metrics".to_owned()], 3600)
            );
        }
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let replied = Answer::Replied(b"{\"ok\":1}".to_vec());
        for (ask, answer) in [
            (Ask::Enter, replied),
            (call(), Answer::Granted(grant())),
            (Ask::Enter, Answer::Challenge(vec![])),
            (call(), Answer::Replied(b"gibberish".to_vec())),
        ] {
            let (reply, right) = settle(ask, Ok(answer));
            assert_eq!(right, Right::Unchanged);
            assert!(
                matches!(&reply, Reply::Error(why) if why.contains("version")),
                "{reply:?}"
            );
        }
    }

    #[test]
    fn every_refusal_names_the_node_and_a_lost_right_is_forgotten() {
        let refused = |why| settle(call(), Ok(Answer::Refused(why)));
        let (reply, right) = refused(Refusal::NotAdministrator);
        assert_eq!(right, Right::Ended);
        let text = "not an administrator of gpu: log in with 'hivevpn login gpu'";
        assert_eq!(reply, Reply::Error(text.to_owned()));
        for (why, part) in [
            (Refusal::WrongPassword, "wrong"),
            (Refusal::TooOften { seconds: 9 }, "in 9 s"),
            (Refusal::MissingRole(Roles::CONFIG), "role config"),
            (Refusal::OnlyThere, "itself only"),
            (Refusal::NotUnderstood, "version"),
        ] {
            let (reply, right) = refused(why);
            assert_eq!(right, Right::Unchanged);
            assert!(
                matches!(&reply, Reply::Error(text) if text.contains("gpu") && text.contains(part)),
                "{reply:?}"
            );
        }
        let lost = settle(call(), Err(Unanswered::Lost("timeout".to_owned())));
        assert!(matches!(&lost.0, Reply::Error(text) if text == "gpu did not answer: timeout"));
    }

    /// A hostile node answers with escape sequences: they would be obeyed by the terminal of whoever asked.
    #[test]
    fn what_a_terminal_would_obey_does_not_get_through() {
        let reply = br#"{"ok":{"name\u001b[2J":["\u001b]0;x\u0007","a\u009bb"],"n":1}}"#.to_vec();
        let (reply, _) = settle(call(), Ok(Answer::Replied(reply)));
        let shown = serde_json::to_string(&reply).unwrap();
        assert!(!shown.contains("\\u00"), "{shown}");
        let (reply, _) = settle(
            call(),
            Ok(Answer::Replied(br#"{"error":"\u001b[2J"}"#.to_vec())),
        );
        assert_eq!(reply, Reply::Error("\u{fffd}[2J".to_owned()));
    }
}
