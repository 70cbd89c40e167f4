//! A policy as people write it, in TOML, and back.
//!
//! ```toml
//! mode = "closed"
//!
//! [[allow]]
//! from = ["group:dev"]
//! to = ["gpu"]
//! ports = ["tcp/22", "tcp/8000-8100", "icmp"]
//!
//! [[test]]
//! from = "laptop"
//! to = "gpu"
//! port = "tcp/22"
//! expect = "deny"
//! ```
//!
//! An error names the line and the rule. What a policy means is for the core to say: [`hivevpn_core::policy`].

use std::{collections::BTreeSet, fmt::Display, ops::Range, str::FromStr};

use hivevpn_core::policy::{Action, Mode, Policy, Rule, Selector, Test};
use serde::Deserialize;
use toml::Spanned;

/// What is shown to whoever edits a policy.
const HEAD: &str = "\
# The access policy of this network. Rules are a set: what any [[deny]] says wins, and their order means nothing.
#
#   mode   \"open\": everything that no rule denies · \"published\": ping, DNS and what a node publishes ·
#          \"closed\": only what a rule allows
#   from, to   \"*\", \"group:dev\", the name a node was admitted under, or a peer id; whom a rule names need not exist yet
#   ports  \"tcp/22\", \"udp/8000-8100\", \"any/53\" (TCP and UDP), \"tcp\", \"udp\", \"icmp\" (ping), \"any\"
#   note   why, in a sentence (optional)
#
# Each [[test]] (from, to, port, expect = \"allow\" or \"deny\") must come out before the policy is taken.
";

/// A text is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct InvalidPolicy {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Spanned<String>,
    #[serde(default)]
    allow: Vec<Spanned<RuleText>>,
    #[serde(default)]
    deny: Vec<Spanned<RuleText>>,
    #[serde(default)]
    test: Vec<TestText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    from: Vec<Spanned<String>>,
    to: Vec<Spanned<String>>,
    ports: Vec<Spanned<String>>,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestText {
    from: Spanned<String>,
    to: Spanned<String>,
    port: Spanned<String>,
    expect: Spanned<String>,
}

/// Reads a policy.
pub fn parse(text: &str) -> Result<Policy, InvalidPolicy> {
    let error = |span: Range<usize>, message: String| InvalidPolicy {
        line: 1 + text
            .bytes()
            .take(span.start)
            .filter(|b| *b == b'\n')
            .count(),
        message,
    };
    let file: File = toml::from_str(text)
        .map_err(|wrong| error(wrong.span().unwrap_or_default(), wrong.message().to_owned()))?;
    let reader = Reader { error: &error };
    let mode: Mode = reader.word(&file.mode, "mode")?;
    let mut rules = Vec::new();
    for (action, texts) in [(Action::Allow, &file.allow), (Action::Deny, &file.deny)] {
        for (at, rule) in texts.iter().enumerate() {
            rules.push(reader.rule(action, at + 1, rule)?);
        }
    }
    let tests = file.test.iter().enumerate();
    let tests: Vec<_> = tests
        .map(|(at, test)| reader.test(at + 1, test))
        .collect::<Result<_, _>>()?;
    Policy::new(mode, rules, tests).map_err(|wrong| error(0..0, wrong.to_string()))
}

struct Reader<'a> {
    error: &'a dyn Fn(Range<usize>, String) -> InvalidPolicy,
}

impl Reader<'_> {
    fn word<T: FromStr<Err: Display>>(
        &self,
        word: &Spanned<String>,
        place: &str,
    ) -> Result<T, InvalidPolicy> {
        let parsed = word.get_ref().parse();
        parsed.map_err(|wrong| (self.error)(word.span(), format!("{place}: {wrong}")))
    }

    fn words<T: FromStr<Err: Display> + Ord>(
        &self,
        words: &[Spanned<String>],
        rule: Range<usize>,
        place: &str,
    ) -> Result<BTreeSet<T>, InvalidPolicy> {
        if words.is_empty() {
            let message = format!("{place}: it is empty, so the rule would mean nothing");
            return Err((self.error)(rule, message));
        }
        words.iter().map(|word| self.word(word, place)).collect()
    }

    fn rule(
        &self,
        action: Action,
        number: usize,
        text: &Spanned<RuleText>,
    ) -> Result<Rule, InvalidPolicy> {
        let (rule, span) = (text.get_ref(), text.span());
        let place = |key: &str| format!("{} rule {number}, {key}", action.name());
        Ok(Rule {
            action,
            from: self.words(&rule.from, span.clone(), &place("from"))?,
            to: self.words(&rule.to, span.clone(), &place("to"))?,
            ports: self.words(&rule.ports, span, &place("ports"))?,
            note: rule.note.clone(),
        })
    }

    fn test(&self, number: usize, text: &TestText) -> Result<Test, InvalidPolicy> {
        let place = |key: &str| format!("test {number}, {key}");
        let port: hivevpn_core::policy::Traffic = self.word(&text.port, &place("port"))?;
        let expect = match text.expect.get_ref().as_str() {
            "allow" => Action::Allow,
            "deny" => Action::Deny,
            other => {
                let message = format!("{}: '{other}' is neither allow nor deny", place("expect"));
                return Err((self.error)(text.expect.span(), message));
            }
        };
        Ok(Test {
            from: self.word::<Selector>(&text.from, &place("from"))?,
            to: self.word::<Selector>(&text.to, &place("to"))?,
            port: port.into(),
            expect,
        })
    }
}

/// Writes a policy so that [`parse`] reads it again.
pub fn render(policy: &Policy) -> String {
    let mut text = format!("{HEAD}\nmode = \"{}\"\n", policy.mode());
    for rule in policy.rules() {
        text.push_str(&format!(
            "\n[[{}]]\nfrom = {}\nto = {}\nports = {}\n",
            rule.action.name(),
            array(&rule.from),
            array(&rule.to),
            array(&rule.ports),
        ));
        if let Some(note) = &rule.note {
            text.push_str(&format!("note = {}\n", toml::Value::from(note.as_str())));
        }
    }
    for test in policy.tests() {
        text.push_str(&format!(
            "\n[[test]]\nfrom = \"{}\"\nto = \"{}\"\nport = \"{}\"\nexpect = \"{}\"\n",
            test.from,
            test.to,
            test.port,
            test.expect.name(),
        ));
    }
    text
}

/// None of the words has anything in it that TOML would want escaped.
fn array<T: Display>(words: &BTreeSet<T>) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    format!("[{}]", words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
mode = "closed"

[[allow]]
from = ["group:dev"]
to = ["gpu"]
ports = ["tcp/22", "tcp/8000-8100", "icmp"]
note = "who \"develops\"\nthere"

[[deny]]
from = ["*"]
to = ["12D3KooWK99VoVxNE7XzyBwXEzW7xhK7Gpv85r9F3V3fyKSUKPH5"]
ports = ["any"]

[[test]]
from = "laptop"
to = "gpu"
port = "22"
expect = "deny"
"#;

    #[test]
    fn what_is_written_is_read_again() {
        let policy = parse(EXAMPLE).unwrap();
        assert_eq!((policy.rules().len(), policy.tests().len()), (2, 1));
        let text = render(&policy);
        assert_eq!(parse(&text).unwrap(), policy);
        assert_eq!(render(&parse(&text).unwrap()), text);
        assert_eq!(
            parse(&render(&Policy::default())).unwrap(),
            Policy::default()
        );
    }

    #[test]
    fn an_error_names_the_line_and_the_rule() {
        for (from, to, expected) in [
            (
                "tcp/22\"",
                "tcp/99999\"",
                "line 7: allow rule 1, ports: 'tcp/99999'",
            ),
            (
                "\"group:dev\"",
                "\"group:\"",
                "line 5: allow rule 1, from: ''",
            ),
            (
                "\"closed\"",
                "\"shut\"",
                "line 2: mode: 'shut' is none of open",
            ),
            (
                "\"deny\"",
                "\"no\"",
                "line 19: test 1, expect: 'no' is neither",
            ),
            (
                "\"22\"",
                "\"any\"",
                "line 18: test 1, port: 'any' is no port",
            ),
            ("[\"*\"]", "[]", "line 10: deny rule 1, from: it is empty"),
            ("ports = [\"any\"]", "", "missing field `ports`"),
            (
                "to = [\"gpu\"]",
                "too = [\"gpu\"]",
                "line 6: unknown field `too`",
            ),
            ("mode = \"closed\"", "", "missing field `mode`"),
        ] {
            let text = EXAMPLE.replacen(from, to, 1);
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} / {expected}");
        }
    }
}
