//! Several networks on their way together: one that fails falls out and does not hold up the others.

use anyhow::{Result, bail, ensure};

use super::{Launch, Prepared, Siblings, ground::Ground};

/// Networks that take the same steps together.
pub(super) struct Convoy {
    /// Whether there are others that may go on.
    several: bool,
    /// The names of those that fell out.
    failed: Vec<String>,
}

impl Convoy {
    pub(super) fn of(networks: usize) -> Self {
        Self {
            several: networks > 1,
            failed: Vec::new(),
        }
    }

    /// Takes each network a step further. A failure is an error when nothing is left to run.
    pub(super) fn advance<A: Named, B>(
        &mut self,
        networks: Vec<A>,
        mut step: impl FnMut(A) -> Result<B>,
    ) -> Result<Vec<B>> {
        let mut further = Vec::new();
        let mut last_error = None;
        for network in networks {
            let name = network.name();
            match step(network) {
                Ok(next) => further.push(next),
                Err(error) => last_error = Some(self.note(name, error)),
            }
        }
        match last_error {
            Some(error) if further.is_empty() => Err(error),
            Some(_) | None => Ok(further),
        }
    }

    /// Says at once what went wrong, if others go on.
    fn note(&mut self, name: Option<String>, error: anyhow::Error) -> anyhow::Error {
        let Some(name) = name.filter(|_| self.several) else {
            return error;
        };
        tracing::error!("network '{name}': {error:#}");
        self.failed.push(name.clone());
        error.context(format!("network '{name}'"))
    }

    /// Runs what was prepared to its end: one network on this thread, several on one each.
    pub(super) fn run(mut self, mut networks: Vec<Prepared>) -> Result<()> {
        let siblings = Siblings::of(&networks);
        if !self.several
            && let Some(only) = networks.pop()
        {
            return only.run(&siblings);
        }
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = networks
                .into_iter()
                .map(|network| {
                    let name = network.name();
                    let siblings = &siblings;
                    (name, scope.spawn(move || network.run(siblings)))
                })
                .collect();
            running
                .into_iter()
                .map(|(name, thread)| {
                    let outcome = thread.join();
                    (
                        name,
                        outcome.unwrap_or_else(|_| bail!("its thread panicked")),
                    )
                })
                .collect()
        });
        for (name, outcome) in outcomes {
            if let (Some(name), Err(_)) = (name, outcome) {
                self.failed.push(name);
            }
        }
        ensure!(
            self.failed.is_empty(),
            "these networks failed: {} (the log says why)",
            self.failed.join(", ")
        );
        Ok(())
    }
}

/// Something that belongs to one of several networks.
pub(super) trait Named {
    fn name(&self) -> Option<String>;
}

impl Named for Launch {
    fn name(&self) -> Option<String> {
        self.name.clone()
    }
}

impl Named for Ground {
    fn name(&self) -> Option<String> {
        self.launch.name.clone()
    }
}

impl Named for Prepared {
    fn name(&self) -> Option<String> {
        self.ground.launch.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &str {
        fn name(&self) -> Option<String> {
            Some((*self).to_owned())
        }
    }

    fn open(network: &str) -> Result<usize> {
        ensure!(network != "broken", "it is broken");
        Ok(network.len())
    }

    #[test]
    fn those_that_fail_are_named_and_the_others_go_on() {
        let mut convoy = Convoy::of(3);
        let further = convoy
            .advance(vec!["home", "broken", "office"], open)
            .unwrap();
        assert_eq!(further, [4, 6]);
        assert_eq!(convoy.failed, ["broken"]);
        let error = convoy.run(Vec::new()).unwrap_err().to_string();
        assert!(error.contains("broken"), "{error}");
    }

    #[test]
    fn when_nobody_is_left_the_error_names_the_last_and_alone_it_is_the_error_itself() {
        let error = Convoy::of(2).advance(vec!["broken", "broken"], open);
        assert_eq!(
            format!("{:#}", error.unwrap_err()),
            "network 'broken': it is broken"
        );
        let error = Convoy::of(1).advance(vec!["broken"], open);
        assert_eq!(format!("{:#}", error.unwrap_err()), "it is broken");
    }
}
