//! Answers to commands about the access policy.

use hivevpn_core::{
    node::Now,
    policy::{Policy, Selector, Subject, Traffic},
};

use super::{EventLoop, members::names};
use crate::{
    control::{
        Reply,
        policy::{Ask, Rule, Set, Shown, Test, Tested, Traced},
    },
    policy,
};

impl EventLoop {
    pub(super) fn policy(&mut self, ask: &Ask, now: Now) -> Result<Reply, String> {
        match ask {
            Ask::Show => Ok(Reply::of(&self.show_policy())),
            Ask::Set { toml, replaces } => Ok(Reply::of(&self.set_policy(toml, *replaces, now)?)),
            Ask::Test { toml } => {
                let policy = match toml {
                    Some(toml) => parsed(toml)?,
                    None => self.node.policy_in_force().clone(),
                };
                Ok(Reply::of(&Tested {
                    tests: policy.tests().len(),
                    failed: self.failed_tests(&policy),
                }))
            }
            Ask::Trace { from, to, port } => Ok(Reply::of(&self.trace(from, to, port)?)),
        }
    }

    fn policy_version(&self) -> u64 {
        self.node.policy().map_or(0, |(version, _)| version)
    }

    fn show_policy(&self) -> Shown {
        let policy = self.node.policy_in_force();
        let rules = policy.rules().map(|rule| Rule {
            action: rule.action.name().to_owned(),
            from: rule.from.iter().map(ToString::to_string).collect(),
            to: rule.to.iter().map(ToString::to_string).collect(),
            ports: rule.ports.iter().map(ToString::to_string).collect(),
            note: rule.note.clone(),
        });
        let tests = policy.tests().map(|test| Test {
            from: test.from.to_string(),
            to: test.to.to_string(),
            port: test.port.to_string(),
            expect: test.expect.name().to_owned(),
        });
        let published = self.node.exposed().iter();
        Shown {
            version: self.policy_version(),
            mode: policy.mode().to_string(),
            rules: rules.collect(),
            tests: tests.collect(),
            published: published.map(ToString::to_string).collect(),
            toml: policy::render(policy),
        }
    }

    fn set_policy(&mut self, toml: &str, replaces: Option<u64>, now: Now) -> Result<Set, String> {
        let policy = parsed(toml)?;
        let version = self.policy_version();
        if replaces.is_some_and(|replaces| replaces != version) {
            return Err(format!(
                "somebody has set version {version} of the policy meanwhile: look at it with 'hivevpn policy show' and \
                 begin again"
            ));
        }
        let failed = self.failed_tests(&policy);
        if !failed.is_empty() {
            return Err(format!(
                "the policy is not taken, because its tests do not come out:\n  {}",
                failed.join("\n  ")
            ));
        }
        let warnings = self.doubts(&policy);
        let is_known = self.node.policy().is_some() && *self.node.policy_in_force() == policy;
        if is_known {
            return Ok(Set {
                version,
                changed: false,
                warnings,
            });
        }
        let version = self
            .node
            .set_policy(policy.encode(), now)
            .map_err(|error| error.to_string())?;
        Ok(Set {
            version,
            changed: true,
            warnings,
        })
    }

    fn failed_tests(&self, policy: &Policy) -> Vec<String> {
        let failed = self.node.failed_tests(policy).into_iter();
        failed
            .map(|(test, verdict)| format!("{test}, but {}", verdict.by))
            .collect()
    }

    /// Names that mean nobody although a node is called so: rules go by the name that a node was admitted under, because
    /// anybody may call itself anything.
    fn doubts(&self, policy: &Policy) -> Vec<String> {
        let rules = policy.rules();
        let mut selectors: Vec<_> = rules
            .flat_map(|rule| rule.from.iter().chain(&rule.to))
            .collect();
        selectors.sort();
        selectors.dedup();
        let doubt = |selector: &Selector| {
            let Selector::Node(name) = selector else {
                return None;
            };
            let is_meant = self.node.selected(selector).is_some();
            let called = self.node.resolve(name.as_str()).filter(|_| !is_meant)?;
            let admitted = self.node.subject(&called).name;
            Some(match admitted {
                Some(admitted) => format!(
                    "no node was admitted as '{name}'; the one that calls itself so was admitted as '{admitted}', which is \
                     what rules go by"
                ),
                None => format!(
                    "no node was admitted as '{name}'; name the one that calls itself so by its peer id: {called}"
                ),
            })
        };
        selectors.into_iter().filter_map(doubt).collect()
    }

    fn trace(&self, from: &str, to: &str, port: &str) -> Result<Traced, String> {
        let traffic: Traffic = port
            .parse()
            .map_err(|error: hivevpn_core::policy::traffic::InvalidTraffic| error.to_string())?;
        let (from, to) = (self.somebody(from)?, self.somebody(to)?);
        let verdict = self.node.trace(&from, &to, traffic);
        Ok(Traced {
            from: described(&from),
            to: described(&to),
            port: traffic.to_string(),
            allowed: verdict.allowed,
            by: verdict.by.to_string(),
            version: self.policy_version(),
        })
    }

    /// The member of this name, or somebody of whom nothing else is known.
    fn somebody(&self, text: &str) -> Result<Subject, String> {
        if let Some(peer) = self.node.resolve(text) {
            return Ok(self.node.subject(&peer));
        }
        let selector: Selector = text
            .parse()
            .map_err(|error: hivevpn_core::policy::rule::InvalidSelector| error.to_string())?;
        Ok(selector.example())
    }
}

fn parsed(toml: &str) -> Result<Policy, String> {
    policy::parse(toml).map_err(|error| error.to_string())
}

/// `laptop (groups dev, ops)`.
fn described(subject: &Subject) -> String {
    let peer = subject.peer.map(|peer| peer.to_string());
    let name = subject.name.as_ref().map(ToString::to_string);
    let who = name.or(peer);
    let groups = names(&subject.groups).join(", ");
    match (who, groups.is_empty()) {
        (Some(who), true) => who,
        (Some(who), false) => format!("{who} (groups: {groups})"),
        (None, true) => "anybody".to_owned(),
        (None, false) => format!("anybody in {groups}"),
    }
}
