//! Commands that the swarm has not taken yet, in order and within bounds.
//!
//! What ends with a timeout anyway may be lost when the swarm is far behind: requests, answers, dials, the DHT. What
//! only the loop can say is kept, verdicts about connections for example; there are no more of those than connections.

use std::collections::VecDeque;

use crate::swarm::Command;

/// Commands that may wait before those that can be lost are.
pub const MAX_UNSENT: usize = 8192;
/// And their bytes.
pub const MAX_UNSENT_BYTES: usize = 32 << 20;

/// The queue.
#[derive(Default)]
pub struct Unsent {
    commands: VecDeque<Command>,
    bytes: usize,
}

impl Unsent {
    /// Puts a command at the end, or gives it back if there is no room for it.
    pub fn push(&mut self, command: Command) -> Option<Command> {
        let bytes = body(&command).unwrap_or_default();
        let is_full = self.commands.len() >= MAX_UNSENT || self.bytes + bytes > MAX_UNSENT_BYTES;
        if is_full && may_be_lost(&command) {
            return Some(command);
        }
        self.bytes += bytes;
        self.commands.push_back(command);
        None
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<Command> {
        let command = self.commands.pop_front()?;
        self.bytes -= body(&command).unwrap_or_default();
        Some(command)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

/// How long what it carries is, if that is of any length.
fn body(command: &Command) -> Option<usize> {
    match command {
        Command::Request { body, .. } | Command::Respond { body, .. } => Some(body.len()),
        Command::Publish { value, .. } => Some(value.len()),
        Command::KeepEntry { sealed, .. } | Command::WriteBack { sealed, .. } => Some(sealed.len()),
        Command::EnterNetwork { .. }
        | Command::Admit { .. }
        | Command::Refuse { .. }
        | Command::Expect { .. }
        | Command::Unexpect { .. }
        | Command::Dial { .. }
        | Command::Close { .. }
        | Command::AskBench { .. }
        | Command::AskAdmin { .. }
        | Command::AskReflection { .. }
        | Command::Survey { .. }
        | Command::Lookup { .. }
        | Command::Unpublish { .. }
        | Command::Routes { .. }
        | Command::Relays(_)
        | Command::RelayFor(_) => None,
    }
}

fn may_be_lost(command: &Command) -> bool {
    match command {
        Command::Request { .. }
        | Command::Respond { .. }
        | Command::Dial { .. }
        | Command::AskBench { .. }
        | Command::AskAdmin { .. }
        | Command::AskReflection { .. }
        | Command::Survey { .. }
        | Command::Publish { .. }
        | Command::Lookup { .. }
        | Command::KeepEntry { .. }
        | Command::WriteBack { .. }
        | Command::Routes { .. } => true,
        // One per member, per connection, or few.
        Command::EnterNetwork { .. }
        | Command::Admit { .. }
        | Command::Refuse { .. }
        | Command::Expect { .. }
        | Command::Unexpect { .. }
        | Command::Close { .. }
        | Command::Unpublish { .. }
        | Command::Relays(_)
        | Command::RelayFor(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use hivevpn_core::connection::ConnectionId;
    use libp2p::PeerId;

    use super::*;
    use crate::swarm::Protocol;

    fn request(length: usize) -> Command {
        Command::Request {
            peer: PeerId::random(),
            protocol: Protocol::Sync,
            token: 0,
            body: vec![0; length],
        }
    }

    #[test]
    fn what_may_be_lost_is_when_there_is_too_much_of_it() {
        let mut unsent = Unsent::default();
        let taken = (0..2 * MAX_UNSENT).filter(|_| unsent.push(request(1)).is_none());
        assert_eq!(taken.count(), MAX_UNSENT);
        let connection = ConnectionId(1);
        assert!(unsent.push(Command::Admit { connection }).is_none());
        while unsent.pop().is_some() {}
        assert!(unsent.is_empty());
        assert_eq!(unsent.bytes, 0);
    }

    #[test]
    fn long_messages_are_bounded_by_their_bytes() {
        let mut unsent = Unsent::default();
        let taken = (0..1000).filter(|_| unsent.push(request(1 << 20)).is_none());
        assert_eq!(taken.count(), MAX_UNSENT_BYTES >> 20);
    }
}
