//! What the core wants done, done.

use std::{net::Ipv4Addr, time::Instant};

use hivevpn_core::{membership::Redemption, output::Output};

use super::{EventLoop, now};
use crate::audit::Outcome;
use crate::swarm::{Command, Protocol};

impl EventLoop {
    /// Carries out everything the core has to say.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.carry_out_one(output);
        }
        while let Some(answer) = self.node.poll_ping() {
            self.answer_ping(answer);
        }
        while let Some(moved) = self.node.poll_moved(Instant::now()) {
            self.log_path(moved);
        }
        self.send_commands();
    }

    fn carry_out_one(&mut self, output: Output) {
        match output {
            Output::Dial {
                peer,
                addresses,
                even_if_connected,
            } => {
                self.command(Command::Dial {
                    peer,
                    addresses,
                    even_if_connected,
                });
            }
            Output::Close(connection) => self.command(Command::Close { connection }),
            Output::Admit(connection) => self.command(Command::Admit { connection }),
            Output::Refuse { connection, reason } => {
                self.command(Command::Refuse { connection, reason })
            }
            Output::Introduce(credential) => {
                let network = self.node.network().clone();
                self.command(Command::EnterNetwork {
                    network,
                    credential,
                });
            }
            Output::Sync { peer, body } => {
                let token = self.next_token();
                self.command(Command::Request {
                    peer,
                    protocol: Protocol::Sync,
                    token,
                    body,
                });
            }
            Output::Registry { peer, body } => {
                let token = self.next_token();
                self.registry_tokens.insert(token);
                self.command(Command::Request {
                    peer,
                    protocol: Protocol::Registry,
                    token,
                    body,
                });
            }
            Output::Respond { request, body } => self.command(Command::Respond { request, body }),
            Output::Redeem {
                request,
                invite,
                redemption,
                accepted,
                refused,
            } => {
                let body = match self.store.redeem(&invite, &redemption) {
                    Ok(true) => {
                        self.record_joined(&redemption);
                        accepted
                    }
                    Ok(false) => {
                        self.node.handle_redeem_failed(invite);
                        refused
                    }
                    Err(error) => {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "an admission could not be saved"
                        );
                        self.node.handle_redeem_failed(invite);
                        refused
                    }
                };
                self.command(Command::Respond { request, body });
            }
            Output::SaveRecord { peer, record } => {
                let saved = self.store.save_record(&peer.to_bytes(), &record);
                report(saved, "a member's record");
                self.command(Command::Expect { peer });
            }
            Output::ForgetRecord(peer) => {
                let removed = self.store.remove_record(&peer.to_bytes());
                report(removed, "a member's record");
            }
            Output::Departed(peer) => self.command(Command::Unexpect { peer }),
            Output::SaveNotice { id, notice } => {
                report(self.store.save_notice(&id, &notice), "a notice");
            }
            Output::ForgetNotice(id) => report(self.store.remove_notice(&id), "a notice"),
            Output::AskRenewal { peer, body } => {
                let token = self.next_token();
                self.renewals.insert(token);
                self.command(Command::Request {
                    peer,
                    protocol: Protocol::Join,
                    token,
                    body,
                });
            }
            // Whoever asks for the status is told; the core has said it in the log.
            Output::Standing(_) => {}
            // The core enforces it, and has said so in the log.
            Output::PolicyChanged(_) => {}
            Output::SaveDescriptorSeq(seq) => report(
                self.store.save_descriptor_seq(seq),
                "our descriptor's number",
            ),
            Output::SaveTimeFloor(time) => report(self.store.save_time_floor(time.0), "the time"),
            Output::SaveCredential(credential) => {
                report(
                    self.store.save_credential(&credential),
                    "our renewed certificate",
                );
            }
            Output::Publish { key, record } => self.command(Command::Publish {
                key: key.to_vec(),
                value: record,
            }),
            Output::Lookup { key } => self.command(Command::Lookup { key: key.to_vec() }),
            Output::SaveEntry { slot, sealed } => {
                report(self.store.save_entry(&slot, &sealed), "an entry");
            }
            Output::ForgetEntry { slot } => {
                report(self.store.remove_entry(&slot), "an entry");
                self.command(Command::Unpublish { key: slot.to_vec() });
            }
            Output::PublishEntry { slot, sealed } => self.command(Command::Publish {
                key: slot.to_vec(),
                value: sealed,
            }),
            Output::LookupEntry { slot } => self.search(slot, now()),
            Output::Relays(relays) => self.command(Command::Relays(relays)),
            Output::SetIpv4(ipv4) => self.set_ipv4(ipv4),
        }
    }

    /// Writes down whom one of our invites has let in.
    fn record_joined(&self, redemption: &[u8]) {
        let Ok(Redemption {
            subject, invite, ..
        }) = Redemption::decode(redemption)
        else {
            return;
        };
        let subject = format!("{} by invite {}", subject.peer_id(), invite.peer_id());
        self.audit
            .record("network", "join", Some(&subject), Outcome::Done);
    }

    fn set_ipv4(&mut self, ipv4: Option<Ipv4Addr>) {
        let before = self.tun.config().clone();
        if before.ipv4.map(|(address, _)| address) == ipv4 {
            return;
        }
        match ipv4 {
            Some(address) => tracing::warn!(%address, "our overlay IPv4 address changed"),
            None => tracing::warn!(
                "an older member holds our overlay IPv4 address: we are reached by IPv6 only"
            ),
        }
        let length = self.node.network().genesis().ipv4_prefix().prefix_len();
        if let Err(error) = self
            .tun
            .set_addresses(ipv4.map(|address| (address, length)), before.ipv6)
        {
            tracing::error!(%error, "the interface does not take the new address");
        }
    }

    pub(super) fn next_token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// What cannot be sent has failed, as far as the core can tell.
    pub(super) fn command(&mut self, command: Command) {
        let Some(lost) = self.unsent.push(command) else {
            return;
        };
        tracing::debug!("the network side of this node is far behind: something is not sent");
        match lost {
            Command::Request {
                peer,
                protocol: Protocol::Registry,
                token,
                ..
            } => {
                self.registry_tokens.remove(&token);
                self.node.handle_registry_failed(peer, now());
            }
            Command::Request { peer, .. } => self.node.handle_sync_failed(peer, now()),
            Command::Dial { peer, .. } => self.node.handle_dial_failed(&peer, now()),
            _ => {}
        }
    }

    /// The swarm may be behind; commands keep their order.
    fn send_commands(&mut self) {
        while !self.unsent.is_empty() {
            let Ok(room) = self.commands.try_reserve() else {
                return;
            };
            if let Some(command) = self.unsent.pop() {
                room.send(command);
            }
        }
    }
}

fn report(saved: anyhow::Result<()>, what: &str) {
    if let Err(error) = saved {
        tracing::error!(
            error = format!("{error:#}"),
            "{what} could not be saved: is the disk full?"
        );
    }
}
