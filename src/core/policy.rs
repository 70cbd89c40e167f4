//! Who may reach what: the access policy of a network, and the filter that enforces it.
//!
//! A **policy** is a mode and a set of rules. The *mode* says what may begin when no rule speaks of it: everything
//! ([`Mode::Open`]), what the destination publishes ([`Mode::Published`]), or nothing ([`Mode::Closed`]). A *rule* allows or
//! denies: from whom, to whom, on which ports. Rules are a set, so their order means nothing: what any of them denies is
//! denied, whatever others allow.
//!
//! A policy speaks of how a conversation **begins**. Who may begin one gets its answers too: the **filter** remembers the
//! *flows* that began rightly and lets their packets pass both ways. It stands at the destination, because a node that
//! wants in can hardly be trusted to keep itself out. The source knows the same policy and refuses early what the
//! destination would, so that programs learn it at once.
//!
//! A new policy counts for flows that live already: each is looked at again when its next packet comes.
//!
//! Reading order: [`traffic`] (protocols and ports), [`rule`], this file; then the filter: [`content`] (what a packet is
//! about), [`flows`] (the table), [`guard`] (the decision for each peer), [`reset`] (the answer).

use std::{collections::BTreeSet, fmt, str::FromStr};

use minicbor::{Decode, Encode};

use crate::membership::{Rejection, notice::MAX_POLICY, wire};

pub mod content;
pub mod flows;
pub mod guard;
pub mod reset;
pub mod rule;
pub mod traffic;

pub use guard::{Answer, Denial, Filter, Guard};
pub use rule::{Action, Rule, Selector, Subject};
pub use traffic::{Protocol, Reachable, Service, Traffic};

/// The longest encoded policy in bytes.
pub const MAX_BODY: usize = MAX_POLICY;
/// More rules than people can keep in their heads; each peer's first packet after a change walks through them.
pub const MAX_RULES: usize = 1024;
/// Of one rule, who, whom or what.
pub const MAX_WORDS: usize = 64;
/// The tests that a policy may carry.
pub const MAX_TESTS: usize = 256;
/// A note is a sentence; in bytes.
pub const MAX_NOTE: usize = 200;

/// The encoding that this version writes and reads. One that adds conditions to rules must have another number: who does
/// not know the condition would otherwise allow too much.
const FORMAT: u8 = 1;

/// What the destination publishes: services that a policy in [`Mode::Published`] lets everybody reach.
pub type Exposed = BTreeSet<Traffic>;

/// What may begin where no rule says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    /// Everything.
    #[default]
    #[n(0)]
    Open,
    /// Ping, DNS, and what the destination publishes.
    #[n(1)]
    Published,
    /// Nothing.
    #[n(2)]
    Closed,
}

impl Mode {
    /// What people write.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Published => "published",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A text names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of open, published, closed")]
pub struct InvalidMode(String);

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(text: &str) -> Result<Self, InvalidMode> {
        let mut modes = [Self::Open, Self::Published, Self::Closed].into_iter();
        modes
            .find(|mode| mode.name() == text)
            .ok_or_else(|| InvalidMode(traffic::shortened(text)))
    }
}

/// What must come out for a policy to be what its author meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct Test {
    /// Who begins: a member if there is one of this name, else somebody of whom only this is known.
    #[n(0)]
    pub from: Selector,
    /// With whom.
    #[n(1)]
    pub to: Selector,
    /// By what, one port.
    #[n(2)]
    pub port: Service,
    /// Allowed or denied.
    #[n(3)]
    pub expect: Action,
}

/// `group:dev to gpu on tcp/22: expect deny`.
impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to, port) = (&self.from, &self.to, &self.port);
        let expect = self.expect.name();
        write!(f, "{from} to {to} on {port}: expect {expect}")
    }
}

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    mode: Mode,
    rules: BTreeSet<Rule>,
    tests: BTreeSet<Test>,
}

/// Why there is no such policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The bytes are no policy, or none that this version knows how to read.
    #[error("the policy cannot be read ({0}): is it of a newer version of hivevpn?")]
    Unreadable(Rejection),
    /// Its format has another number.
    #[error("the policy has format {0}, this version reads format {FORMAT}: update hivevpn")]
    OtherFormat(u8),
    /// More than a policy can hold.
    #[error("a policy has at most {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A rule that means nobody or nothing.
    #[error(
        "the rule '{0}' is without from, to or ports: name them, or everybody with \"*\" and everything with \"any\""
    )]
    Empty(String),
    /// A test that asks for more than one port.
    #[error(
        "the test '{0}' asks for more than one port: name a single one, such as tcp/22, or icmp"
    )]
    NotOnePort(String),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    format: u8,
    #[n(1)]
    mode: Mode,
    #[n(2)]
    rules: BTreeSet<Rule>,
    #[n(3)]
    tests: BTreeSet<Test>,
}

/// The one field that every format has.
#[derive(Decode)]
#[cbor(map)]
struct Format {
    #[n(0)]
    format: u8,
}

/// What the policy says of some traffic, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Whether it may begin, as far as is known here.
    pub allowed: bool,
    /// What decides.
    pub by: Reason<'a>,
}

/// What decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason<'a> {
    /// A rule: a denial if any concerns it, else one that allows it.
    Rule(&'a Rule),
    /// No rule, and the mode alone.
    Mode(Mode),
    /// The mode is published, and this is ping or DNS.
    Basic,
    /// The mode is published, and the destination publishes it.
    Published,
    /// The mode is published, and only the destination, which is another node, knows what it publishes.
    UpToDestination,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(rule) => write!(f, "rule: {rule}"),
            Self::Mode(mode) => write!(f, "mode {mode}: no rule says otherwise"),
            Self::Basic => f.write_str("mode published: ping and DNS are open to all"),
            Self::Published => f.write_str("mode published: the destination publishes it"),
            Self::UpToDestination => {
                f.write_str("mode published: only the destination knows whether it publishes this")
            }
        }
    }
}

impl Policy {
    /// A policy of that mode and nothing else.
    pub fn of(mode: Mode) -> Self {
        Self {
            mode,
            ..Self::default()
        }
    }

    /// A policy of these parts, in whatever order they come.
    pub fn new(
        mode: Mode,
        rules: impl IntoIterator<Item = Rule>,
        tests: impl IntoIterator<Item = Test>,
    ) -> Result<Self, PolicyError> {
        let policy = Self {
            mode,
            rules: rules.into_iter().collect(),
            tests: tests.into_iter().collect(),
        };
        policy.check()?;
        Ok(policy)
    }

    fn check(&self) -> Result<(), PolicyError> {
        let at_most = |limit, count, what| match count <= limit {
            true => Ok(()),
            false => Err(PolicyError::TooMany { what, limit }),
        };
        at_most(MAX_RULES, self.rules.len(), "rules")?;
        at_most(MAX_TESTS, self.tests.len(), "tests")?;
        for rule in &self.rules {
            at_most(MAX_WORDS, rule.from.len(), "words after 'from' in a rule")?;
            at_most(MAX_WORDS, rule.to.len(), "words after 'to' in a rule")?;
            at_most(MAX_WORDS, rule.ports.len(), "ports in a rule")?;
            let note = rule.note.as_ref().map_or(0, String::len);
            at_most(MAX_NOTE, note, "bytes in a note")?;
            if rule.from.is_empty() || rule.to.is_empty() || rule.ports.is_empty() {
                return Err(PolicyError::Empty(rule.to_string()));
            }
        }
        if let Some(test) = self.tests.iter().find(|test| test.port.single().is_none()) {
            return Err(PolicyError::NotOnePort(test.to_string()));
        }
        at_most(MAX_BODY, self.encode().len(), "bytes")
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The rules, denials first.
    pub fn rules(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    /// The tests.
    pub fn tests(&self) -> impl ExactSizeIterator<Item = &Test> {
        self.tests.iter()
    }

    /// The same in another mode.
    pub fn with_mode(&self, mode: Mode) -> Self {
        Self {
            mode,
            ..self.clone()
        }
    }

    /// One encoding for each policy: CBOR, the rules in order.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode(&Body {
            format: FORMAT,
            mode: self.mode,
            rules: self.rules.clone(),
            tests: self.tests.clone(),
        })
    }

    /// Reads a policy. What it cannot read in full it refuses: half of a policy is another one.
    pub fn decode(body: &[u8]) -> Result<Self, PolicyError> {
        if body.len() > MAX_BODY {
            let limit = MAX_BODY;
            return Err(PolicyError::Unreadable(Rejection::TooLarge { limit }));
        }
        let Format { format } = wire::decode(body).map_err(PolicyError::Unreadable)?;
        if format != FORMAT {
            return Err(PolicyError::OtherFormat(format));
        }
        let body: Body = wire::decode(body).map_err(PolicyError::Unreadable)?;
        Self::new(body.mode, body.rules, body.tests)
    }

    /// Whether `from` may begin this with `to`, and what decides. `exposed` is what `to` publishes, if that is known here:
    /// another node's is not.
    pub fn decide(
        &self,
        from: &Subject,
        to: &Subject,
        traffic: Traffic,
        exposed: Option<&Exposed>,
    ) -> Verdict<'_> {
        // Denials come first in the set.
        let mut rules = self.rules.iter();
        let deciding = rules.find(|rule| rule.includes(traffic) && rule.concerns(from, to));
        if let Some(rule) = deciding {
            return Verdict {
                allowed: rule.action == Action::Allow,
                by: Reason::Rule(rule),
            };
        }
        let (allowed, by) = match self.mode {
            Mode::Open => (true, Reason::Mode(self.mode)),
            Mode::Closed => (false, Reason::Mode(self.mode)),
            Mode::Published if is_basic(traffic) => (true, Reason::Basic),
            Mode::Published => match exposed {
                Some(exposed) if exposed.contains(&traffic) => (true, Reason::Published),
                Some(_) => (false, Reason::Mode(self.mode)),
                None => (false, Reason::UpToDestination),
            },
        };
        Verdict { allowed, by }
    }

    /// All that `from` may begin with `to`, which publishes `exposed`. If that is not known here, everything that it may
    /// turn out to publish is included.
    pub fn reachable(&self, from: &Subject, to: &Subject, exposed: Option<&Exposed>) -> Reachable {
        let mut reachable = match (self.mode, exposed) {
            (Mode::Open, _) | (Mode::Published, None) => Reachable::everything(),
            (Mode::Closed, _) => Reachable::nothing(),
            (Mode::Published, Some(exposed)) => {
                let mut published = Reachable::nothing();
                for traffic in BASIC.iter().chain(exposed) {
                    published.allow(&Service::from(*traffic));
                }
                published
            }
        };
        let concerning = || self.rules.iter().filter(|rule| rule.concerns(from, to));
        for rule in concerning().filter(|rule| rule.action == Action::Allow) {
            rule.ports.iter().for_each(|port| reachable.allow(port));
        }
        for rule in concerning().filter(|rule| rule.action == Action::Deny) {
            rule.ports.iter().for_each(|port| reachable.deny(port));
        }
        reachable
    }

    /// The tests that do not come out as expected, with what does. `find` tells who a name means.
    pub fn failed_tests(
        &self,
        find: impl Fn(&Selector) -> Option<Subject>,
    ) -> Vec<(&Test, Verdict<'_>)> {
        let subject = |selector: &Selector| find(selector).unwrap_or_else(|| selector.example());
        let outcome = |test: &Test| {
            let traffic = test.port.single()?;
            let (from, to) = (subject(&test.from), subject(&test.to));
            let verdict = self.decide(&from, &to, traffic, None);
            let is_expected = verdict.allowed == (test.expect == Action::Allow);
            (!is_expected).then_some(verdict)
        };
        let tests = self.tests.iter();
        tests
            .filter_map(|test| Some((test, outcome(test)?)))
            .collect()
    }
}

/// What every node that publishes anything lets everybody have.
const BASIC: [Traffic; 3] = [
    Traffic::of(Protocol::Icmp, 0),
    Traffic::of(Protocol::Udp, DNS),
    Traffic::of(Protocol::Tcp, DNS),
];
/// RFC 1035 §4.2.
const DNS: u16 = 53;

fn is_basic(traffic: Traffic) -> bool {
    BASIC.contains(&traffic)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
