//! One rule: who, to whom, by what; allowed or denied.

use std::{collections::BTreeSet, fmt, str::FromStr};

use libp2p_identity::PeerId;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use super::traffic::{Service, Traffic, shortened};
use crate::membership::Name;

/// A member, as rules see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its identity. None for somebody who is only supposed.
    pub peer: Option<PeerId>,
    /// The name that its certificate gives it, unless an older member has it. What a member calls itself counts for
    /// nothing here: it would gain the rights of whatever name is free.
    pub name: Option<Name>,
    /// The groups that its certificate puts it into.
    pub groups: BTreeSet<Name>,
}

impl Subject {
    /// Somebody of whom only the identity is known.
    pub fn unknown(peer: PeerId) -> Self {
        Self {
            peer: Some(peer),
            ..Self::default()
        }
    }
}

/// Whom a rule means. What it names need not exist: then it means nobody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// `*`: every member.
    Everyone,
    /// `group:gpu`: the members of a group.
    Group(Name),
    /// `laptop`: the member that was admitted under this name.
    Node(Name),
    /// `12D3Koo…`: the member with this identity.
    Peer(PeerId),
}

impl Selector {
    /// Whether it means this member.
    pub fn selects(&self, subject: &Subject) -> bool {
        match self {
            Self::Everyone => true,
            Self::Group(group) => subject.groups.contains(group),
            Self::Node(name) => subject.name.as_ref() == Some(name),
            Self::Peer(peer) => subject.peer.as_ref() == Some(peer),
        }
    }

    /// Somebody of whom nothing is known but that this selects it.
    pub fn example(&self) -> Subject {
        let mut subject = Subject::default();
        match self {
            Self::Everyone => {}
            Self::Group(group) => subject.groups = BTreeSet::from([group.clone()]),
            Self::Node(name) => subject.name = Some(name.clone()),
            Self::Peer(peer) => subject.peer = Some(*peer),
        }
        subject
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::Group(group) => write!(f, "group:{group}"),
            Self::Node(name) => fmt::Display::fmt(name, f),
            Self::Peer(peer) => fmt::Display::fmt(peer, f),
        }
    }
}

/// A text means nobody that there could ever be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of *, group:<name>, a node's name, a peer id")]
pub struct InvalidSelector(String);

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let name = |text: &str| Name::parse(text).map_err(|_| InvalidSelector(shortened(text)));
        match text.strip_prefix("group:") {
            Some(group) => name(group).map(Self::Group),
            None if text == "*" => Ok(Self::Everyone),
            // Peer ids have capital letters, names have none.
            None => match text.parse() {
                Ok(peer) => Ok(Self::Peer(peer)),
                Err(_) => name(text).map(Self::Node),
            },
        }
    }
}

/// What a rule does. Denials come first in order, because they win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Action {
    /// Whatever others allow, this is refused.
    #[n(0)]
    Deny,
    /// Unless denied, this may begin.
    #[n(1)]
    Allow,
}

impl Action {
    /// What people write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Rule {
    /// Allowed or denied.
    #[n(0)]
    pub action: Action,
    /// Who begins.
    #[n(1)]
    pub from: BTreeSet<Selector>,
    /// With whom.
    #[n(2)]
    pub to: BTreeSet<Selector>,
    /// By what.
    #[n(3)]
    pub ports: BTreeSet<Service>,
    /// Why there is such a rule, in the words of who wrote it.
    #[n(4)]
    pub note: Option<String>,
}

impl Rule {
    /// Whether it says something of this pair.
    pub fn concerns(&self, from: &Subject, to: &Subject) -> bool {
        self.from.iter().any(|selector| selector.selects(from))
            && self.to.iter().any(|selector| selector.selects(to))
    }

    /// Whether it says something of this traffic.
    pub fn includes(&self, traffic: Traffic) -> bool {
        self.ports.iter().any(|service| service.includes(traffic))
    }
}

/// `allow from group:dev to gpu on icmp, tcp/22`, and the note in brackets.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = self.action.name();
        let (from, to) = (listed(&self.from), listed(&self.to));
        write!(f, "{action} from {from} to {to} on {}", listed(&self.ports))?;
        match &self.note {
            Some(note) => write!(f, " ({note})"),
            None => Ok(()),
        }
    }
}

fn listed<T: ToString>(words: &BTreeSet<T>) -> String {
    let words: Vec<_> = words.iter().map(T::to_string).collect();
    words.join(", ")
}

/// Selectors and services travel as people write them: one spelling each.
macro_rules! travels_as_text {
    ($type:ty) => {
        impl<C> Encode<C> for $type {
            fn encode<W: encode::Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), encode::Error<W::Error>> {
                e.str(&self.to_string())?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
                let text = d.str()?;
                let value: Self = text.parse().map_err(decode::Error::message)?;
                match value.to_string() == text {
                    true => Ok(value),
                    false => Err(decode::Error::message("another spelling")),
                }
            }
        }
    };
}
travels_as_text!(Selector);
travels_as_text!(Service);
