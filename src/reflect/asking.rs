//! The asking daemon's part: a question to a member's daemon, and what its answer means to the command that waits.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    reflector::clock,
    wire::{Answer, Ask, Token},
};
use crate::control::{Clock, Reflection, Reply};

/// How long a token may be on its way, after the member said that it left. It takes half of the round trip that the
/// answer took.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is asked.
#[derive(Debug)]
pub enum Question {
    /// The member's clock.
    Clock,
    /// Whether a token gets here.
    Send {
        /// Where it is sent to.
        endpoint: SocketAddr,
        /// What is sent.
        token: Token,
        /// The data loop says here where it came from.
        arrived: oneshot::Receiver<SocketAddr>,
    },
}

/// A question that is under way, and who waits for its answer.
#[derive(Debug)]
pub struct Asking {
    /// Name of the member that is asked.
    pub name: String,
    /// What it is asked.
    pub question: Question,
    /// When.
    pub since: Instant,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

impl Asking {
    /// The question as it is sent.
    pub fn body(&self) -> Vec<u8> {
        let ask = match self.question {
            Question::Clock => Ask::Clock,
            Question::Send {
                endpoint, token, ..
            } => Ask::Send { endpoint, token },
        };
        ask.encode()
    }

    /// The member's daemon answered. Waits for the token, if one is on its way.
    pub async fn answered(self, body: &[u8]) {
        let name = &self.name;
        let reply = match (Answer::decode(body), self.question) {
            (Some(Answer::Clock(theirs)), Question::Clock) => clock_reply(theirs, self.since),
            (Some(Answer::Sent), Question::Send { arrived, .. }) => {
                let arrived = tokio::time::timeout(PATIENCE, arrived).await;
                Reply::of(&Reflection {
                    from: arrived
                        .ok()
                        .and_then(Result::ok)
                        .map(|from| from.to_string()),
                })
            }
            (Some(Answer::TooOften), _) => Reply::Error(format!(
                "{name} has sent enough tokens for now: try again in a minute"
            )),
            (Some(Answer::NotYours), _) => Reply::Error(format!(
                "{name} sees this node at another address by now: try again"
            )),
            (Some(Answer::Unable), _) => Reply::Error(format!("{name} could not do it")),
            (Some(Answer::Clock(_) | Answer::Sent | Answer::NotUnderstood) | None, _) => {
                Reply::Error(format!(
                    "{name} runs a version of hivevpn that differs from ours: bring both to the same version"
                ))
            }
        };
        // Whoever asked may have gone.
        let _ = self.answer.send(reply);
    }

    /// The member's daemon was not asked, or did not answer.
    pub fn unanswered(self, why: &str) {
        let _ = self
            .answer
            .send(Reply::Error(format!("{} {why}", self.name)));
    }
}

/// The answer was given half a round trip ago, give or take as much.
fn clock_reply(theirs: u64, since: Instant) -> Reply {
    let half = i64::try_from(since.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
    let ours = clock().and_then(|ours| i64::try_from(ours).ok());
    match (i64::try_from(theirs), ours) {
        (Ok(theirs), Some(ours)) => Reply::of(&Clock {
            ahead_ms: theirs.saturating_add(half).saturating_sub(ours),
            within_ms: half,
        }),
        (Err(_), _) | (_, None) => Reply::Error("a clock is beyond all time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(question: Question, answer: Vec<u8>) -> Reply {
        let (reply, replied) = oneshot::channel();
        let asking = Asking {
            name: "b".to_owned(),
            question,
            since: Instant::now(),
            answer: reply,
        };
        asking.answered(&answer).await;
        replied.await.unwrap()
    }

    fn send(arrived: oneshot::Receiver<SocketAddr>) -> Question {
        Question::Send {
            endpoint: "203.0.113.9:7777".parse().unwrap(),
            token: Token([1; 16]),
            arrived,
        }
    }

    #[tokio::test]
    async fn a_token_arrives_or_does_not() {
        let (arrival, arrived) = oneshot::channel();
        arrival.send("203.0.113.11:4711".parse().unwrap()).unwrap();
        let from = |from: Option<&str>| {
            let from = from.map(str::to_owned);
            Reply::of(&Reflection { from })
        };
        let reply = ask(send(arrived), Answer::Sent.encode()).await;
        assert_eq!(reply, from(Some("203.0.113.11:4711")));

        let (arrival, arrived) = oneshot::channel();
        drop(arrival); // The loop has forgotten it, which ends the wait early.
        let reply = ask(send(arrived), Answer::Sent.encode()).await;
        assert_eq!(reply, from(None));
    }

    #[tokio::test]
    async fn a_clock_is_compared_with_ours() {
        let ahead = Answer::Clock(clock().unwrap() + 3_600_000).encode();
        let Reply::Ok(value) = ask(Question::Clock, ahead).await else {
            panic!("the member told its time");
        };
        let clock: Clock = serde_json::from_value(value).unwrap();
        assert!(
            (3_599_000..3_601_000).contains(&clock.ahead_ms),
            "{clock:?}"
        );
    }

    #[tokio::test]
    async fn every_refusal_names_the_member() {
        for answer in [
            Answer::TooOften,
            Answer::NotYours,
            Answer::Unable,
            Answer::Sent,
        ] {
            let reply = ask(Question::Clock, answer.encode()).await;
            assert!(
                matches!(&reply, Reply::Error(why) if why.starts_with("b ")),
                "{reply:?}"
            );
        }
    }
}
