//! What the swarm, the commands and the signals say, told to the core.

use std::{collections::BTreeSet, time::Instant};

use hivevpn_core::{
    node::{Now, Reach},
    path::Path,
    relay,
};

use super::{EventLoop, GREETING_DELAY, Local, MESSAGE_TIME, MESSAGES};
use crate::swarm::{Command, Event, Protocol};

impl EventLoop {
    pub(super) fn receive_messages(&mut self, now: Now) {
        self.waker.drain();
        let started = Instant::now();
        for _ in 0..MESSAGES {
            if started.elapsed() >= MESSAGE_TIME {
                break;
            }
            let Some(event) = self.early.pop_front().or_else(|| self.swarm.try_recv()) else {
                break;
            };
            self.on_swarm_event(event, now);
            self.carry_out();
        }
        for _ in 0..MESSAGES {
            match self.local.try_recv() {
                Some(Local::Control(asked)) => self.answer(asked, now),
                Some(Local::Services(told)) => self.on_services(told, now),
                Some(Local::Stop) => self.stopping = true,
                None => break,
            }
            self.carry_out();
        }
        // Whatever was left behind must not wait for the next message.
        if !self.early.is_empty() || !self.swarm.is_empty() || !self.local.is_empty() {
            self.waker.wake();
        }
    }

    fn on_swarm_event(&mut self, event: Event, now: Now) {
        let node = &mut self.node;
        match event {
            Event::ConnectionOpened {
                connection,
                peer,
                link,
                dialed: _,
            } => {
                node.handle_connection_opened(connection, peer, link, now);
            }
            Event::ConnectionMoved { connection, link } => {
                node.handle_connection_moved(connection, link, now)
            }
            Event::ConnectionClosed {
                connection,
                peer: _,
            } => {
                self.carriers.remove(&connection);
                node.handle_connection_closed(connection, now);
            }
            Event::Credential {
                connection,
                peer,
                credential,
            } => {
                node.handle_credential(connection, peer, &credential, now);
            }
            Event::Authenticated {
                connection,
                peer: _,
            } => {
                node.handle_authenticated(connection, now);
                self.tell_relay_members(now);
            }
            Event::RefusedByPeer {
                connection: _,
                peer,
            } => node.handle_refused_by_peer(peer, now),
            Event::CarrierOpened {
                connection,
                peer: _,
                carrier,
            } => {
                self.carriers.insert(connection, carrier);
                node.handle_carrier_opened(connection, now);
            }
            Event::CarrierClosed { connection } => {
                self.carriers.remove(&connection);
                node.handle_carrier_closed(connection, now);
            }
            Event::Frames { connection, frames } => {
                for datagram in frames.iter() {
                    node.handle_datagram(Path::Carrier(connection), datagram, now.instant);
                }
            }
            Event::Request {
                request,
                peer,
                protocol: Protocol::Join,
                body,
            } => {
                node.handle_join_request(request, peer, &body, now);
            }
            Event::Request {
                request,
                peer,
                protocol: Protocol::Sync,
                body,
            } => {
                node.handle_sync_request(request, peer, &body, now);
            }
            Event::Request {
                request,
                peer,
                protocol: Protocol::Registry,
                body,
            } => node.handle_registry_request(request, peer, &body, now),
            Event::Request {
                request,
                peer,
                protocol: Protocol::Admin,
                body,
            } => self.administer(request, peer, &body, now),
            Event::AdminAnswer {
                peer,
                asking,
                outcome,
            } => self.on_admin_answer(peer, asking, outcome, now),
            Event::Response {
                token,
                peer,
                outcome,
            } if self.renewals.remove(&token) => match outcome {
                Ok(body) => node.handle_renewal_answer(peer, &body, now),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no answer about our certificate");
                    node.handle_renewal_failed(peer, now);
                }
            },
            Event::Response {
                token,
                peer,
                outcome,
            } if self.registry_tokens.remove(&token) => match outcome {
                Ok(body) => node.handle_registry_answer(peer, &body, now),
                Err(error) => {
                    tracing::debug!(%peer, %error, "no answer to a message about entries");
                    node.handle_registry_failed(peer, now);
                }
            },
            Event::Response {
                token: _,
                peer,
                outcome: Ok(body),
            } => node.handle_sync_answer(peer, &body, now),
            Event::Response {
                token: _,
                peer,
                outcome: Err(error),
            } => {
                tracing::debug!(%peer, %error, "no answer to a sync message");
                node.handle_sync_failed(peer, now);
            }
            Event::DialFailed { peer, error } => {
                tracing::debug!(%peer, %error, "dial failed");
                node.handle_dial_failed(&peer, now);
            }
            Event::Discovered { peer, addresses } => node.handle_discovered(peer, addresses, now),
            Event::Found { key: _, value } => node.handle_found_record(&value, now),
            Event::FoundEntry { slot, sealed, from } => {
                self.on_entry_found(&slot, sealed, from, now);
            }
            Event::LookedUp { key, without } => self.on_looked_up(&key, without, now),
            Event::EntryOffered {
                from,
                slot,
                sealed,
                kept,
            } => self.on_entry_offered(from, slot, sealed, kept, now),
            Event::Rejected(reason) => node.handle_rejected(reason),
            Event::Addresses(addresses) => {
                self.addresses = addresses;
                self.tell_reach(now);
                if self.greet && self.greet_at.is_none() {
                    self.greet_at = Some(now.instant + GREETING_DELAY);
                }
            }
            Event::Relaying(relays) => {
                self.relays = relays;
                self.tell_reach(now);
            }
        }
    }

    /// Tells swarm and core who the members are that we relay for. A name becomes somebody's when its owner comes.
    fn tell_relay_members(&mut self, now: Now) {
        if let Some(members) = &self.relay_members {
            let guests: BTreeSet<_> = members
                .iter()
                .filter_map(|member| self.node.resolve(member))
                .collect();
            let terms = relay::Terms {
                bytes_per_second: self.relay_rate,
                members: Some(guests.clone()),
            };
            self.node.set_relay_terms(terms, now);
            self.command(Command::RelayFor(guests));
        }
    }

    fn tell_reach(&mut self, now: Now) {
        let Some(addresses) = crate::reach::announced(&self.addresses) else {
            return;
        };
        self.node.handle_reach(
            Reach {
                addresses,
                candidates: crate::reach::candidates(&self.addresses),
                relays: self.relays,
                is_seen: self.addresses.has_public() || !self.addresses.observed.is_empty(),
            },
            now,
        );
    }
}
