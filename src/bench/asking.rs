//! The asking daemon's part: a question to a peer's daemon, and what its answer means to the command that waits.

use std::net::Ipv6Addr;

use tokio::sync::oneshot;

use super::{
    Place,
    wire::{Answer, Ask},
};
use crate::control::{Bench, Peer, Reply};

/// Why a peer's daemon did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// There is no authenticated connection to it.
    NotConnected,
    /// It does not know the protocol.
    Unsupported,
    /// The connection broke, or it took too long.
    Lost(String),
}

/// A question that is under way, and who waits for its answer.
pub struct Asking {
    /// Who is asked.
    pub peer: Peer,
    /// Our overlay address.
    pub own: Ipv6Addr,
    /// How long each direction will be measured.
    pub seconds: u8,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Reply>,
}

impl Asking {
    /// The question as it is sent.
    pub fn body(&self) -> Vec<u8> {
        let seconds = self.seconds;
        Ask { seconds }.encode()
    }

    /// The peer's daemon answered.
    pub fn answered(self, body: &[u8]) {
        let name = &self.peer.name;
        let reply = match Answer::decode(body) {
            Some(Answer::Opened(opened)) => Reply::of(&Bench {
                place: Place {
                    own: self.own,
                    peer: self.peer.ipv6,
                    tcp: opened.tcp,
                    udp: opened.udp,
                    ticket: opened.ticket,
                },
                peer: self.peer,
            }),
            Some(Answer::Busy) => Reply::Error(format!(
                "{name} is busy with other measurements: try again in a minute"
            )),
            Some(Answer::Unable) => Reply::Error(format!(
                "{name} cannot open a port on its overlay address {}: its log says why",
                self.peer.ipv6
            )),
            Some(Answer::NotUnderstood) | None => Reply::Error(format!(
                "{name} runs a version of hivevpn whose 'bench' differs from ours: bring both to the same version"
            )),
        };
        // Whoever asked may have gone.
        let _ = self.answer.send(reply);
    }

    /// The peer's daemon did not answer.
    pub fn unanswered(self, why: Unanswered) {
        let name = &self.peer.name;
        let why = match why {
            Unanswered::NotConnected => {
                format!("{name} is not connected at the moment: look at 'hivevpn status'")
            }
            Unanswered::Unsupported => {
                format!("{name} runs a version of hivevpn without 'bench': update it")
            }
            Unanswered::Lost(error) => format!("{name} did not answer: {error}"),
        };
        let _ = self.answer.send(Reply::Error(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire::{Opened, Ticket};

    fn ask(outcome: impl FnOnce(Asking)) -> Reply {
        let (answer, mut answered) = oneshot::channel();
        outcome(Asking {
            peer: Peer {
                name: "b".into(),
                peer_id: "12D3b".into(),
                ipv4: None,
                ipv6: "fd00::2".parse().unwrap(),
                online: true,
                path: "direct".into(),
                endpoint: None,
                relay: None,
                rtt_ms: None,
                mtu: None,
                tx_bytes: 0,
                rx_bytes: 0,
                last_handshake_s: None,
                post_quantum: false,
            },
            own: "fd00::1".parse().unwrap(),
            seconds: 5,
            answer,
        });
        answered.try_recv().unwrap()
    }

    #[test]
    fn an_opened_port_is_passed_on_with_both_addresses() {
        let ticket = Ticket([7; 16]);
        let answer = Answer::Opened(Opened {
            tcp: 1,
            udp: 2,
            ticket,
        });
        let Reply::Ok(value) = ask(|asking| asking.answered(&answer.encode())) else {
            panic!("the peer opened a port");
        };
        let bench: Bench = serde_json::from_value(value).unwrap();
        let place = Place {
            own: "fd00::1".parse().unwrap(),
            peer: "fd00::2".parse().unwrap(),
            tcp: 1,
            udp: 2,
            ticket,
        };
        assert_eq!(bench.place, place);
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        let lost = "timeout".to_owned();
        let refusals = [
            (
                ask(|asking| asking.answered(&Answer::Busy.encode())),
                "busy",
            ),
            (
                ask(|asking| asking.answered(&Answer::Unable.encode())),
                "fd00::2",
            ),
            (ask(|asking| asking.answered(b"gibberish")), "version"),
            (
                ask(|asking| asking.unanswered(Unanswered::NotConnected)),
                "not connected",
            ),
            (
                ask(|asking| asking.unanswered(Unanswered::Unsupported)),
                "without 'bench'",
            ),
            (
                ask(|asking| asking.unanswered(Unanswered::Lost(lost))),
                "timeout",
            ),
        ];
        for (reply, part) in refusals {
            let Reply::Error(why) = reply else {
                panic!("{part}: {reply:?}");
            };
            assert!(why.starts_with("b ") && why.contains(part), "{why}");
        }
    }
}
