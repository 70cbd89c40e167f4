//! systemd-resolved, where it runs: it asks us for our names, and whom it asked before for all others.
//!
//! What we set belongs to our interface and is gone with it, however this process ends. Root may set it; others need a
//! rule of polkit (config/hivevpn.rules). It may be started after us, and it may be started again and have forgotten what
//! we set ([`running`]).

use std::{
    fs,
    io::Read,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

/// Where it can be talked to while it runs.
const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";
/// The program that talks to it.
const PROGRAM: &str = "resolvectl";
/// How long it may take for one setting.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often to look whether it is done.
const POLL: Duration = Duration::from_millis(5);

/// An interface that it has settings for.
#[derive(Debug)]
pub struct Link(String);

/// What it is to know of an interface.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings<'a> {
    /// The interface.
    pub interface: &'a str,
    /// Who answers there.
    pub servers: &'a [IpAddr],
    /// The domain of the network.
    pub domain: &'a str,
    /// Domains of the addresses there.
    pub reverse: &'a [String],
    /// Whether names without a dot are looked for in the domain.
    pub search: bool,
}

/// One run of it, from a start to an end: its socket's inode, and when that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(u64, i64, i64);

/// Its last start, if there was any.
pub fn running() -> Option<Run> {
    let socket = fs::metadata(SOCKET).ok()?;
    Some(Run(socket.ino(), socket.ctime(), socket.ctime_nsec()))
}

/// Whether it can be for the network that we are in, which has these addresses: a container or a namespace may see
/// somebody else's. It is for the first process's. Where that is hidden from us, we are in a service that it has started.
pub fn is_ours(addresses: &[IpAddr]) -> bool {
    let read = |file| fs::read_to_string(Path::new("/proc/1/net").join(file));
    let (Ok(v4), Ok(v6)) = (read("fib_trie"), read("if_inet6")) else {
        return true;
    };
    addresses.iter().any(|address| match address {
        IpAddr::V4(address) => v4.contains(&format!("|-- {address}\n")),
        IpAddr::V6(address) => v6.contains(&format!("{:032x} ", u128::from(*address))),
    })
}

impl Link {
    /// Has our names asked for on our interface, and nothing else.
    pub async fn take(settings: &Settings<'_>) -> Result<Self> {
        let link = Self(settings.interface.to_owned());
        for line in lines(settings) {
            if let Err(error) = resolvectl(&line).await {
                link.give_back().await;
                return Err(error);
            }
        }
        Ok(link)
    }

    /// Undoes it.
    pub async fn give_back(self) {
        if let Err(error) = resolvectl(&["revert".to_owned(), self.0]).await {
            // The interface goes, and its settings with it.
            tracing::debug!("{error:#}");
        }
    }
}

/// The settings, one call each. Whom to ask comes last: until then it asks nobody here.
fn lines(settings: &Settings<'_>) -> Vec<Vec<String>> {
    let Settings {
        interface,
        servers,
        domain,
        reverse,
        search,
    } = settings;
    let line = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    let mut domains: Vec<String> = line(&["domain", interface]);
    // With a tilde it is asked for below that domain, and not searched there.
    domains.push(format!("{}{domain}", if *search { "" } else { "~" }));
    domains.extend(reverse.iter().map(|domain| format!("~{domain}")));
    let mut dns: Vec<String> = line(&["dns", interface]);
    dns.extend(servers.iter().map(IpAddr::to_string));
    vec![
        line(&["default-route", interface, "no"]),
        // Nobody signs what is below .internal.
        line(&["dnssec", interface, "no"]),
        line(&["dnsovertls", interface, "no"]),
        line(&["llmnr", interface, "no"]),
        line(&["mdns", interface, "no"]),
        domains,
        dns,
    ]
}

async fn resolvectl(words: &[String]) -> Result<()> {
    let shown = words.join(" ");
    let mut child = Command::new(PROGRAM)
        .args(words)
        // It asks nobody for a password then.
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {PROGRAM}"))?;
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            bail!("'{PROGRAM} {shown}' takes too long");
        }
        tokio::time::sleep(POLL).await;
    };
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    ensure!(status.success(), "'{PROGRAM} {shown}': {}", said.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_are_asked_for_and_whom_to_ask_comes_last() {
        let mut settings = Settings {
            interface: "hive0",
            servers: &["10.77.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            domain: "home.hive.internal",
            reverse: &["77.10.in-addr.arpa".to_owned()],
            search: false,
        };
        let said = lines(&settings);
        let last: Vec<_> = said[said.len() - 2..]
            .iter()
            .map(|line| line.join(" "))
            .collect();
        assert_eq!(
            last,
            [
                "domain hive0 ~home.hive.internal ~77.10.in-addr.arpa",
                "dns hive0 10.77.0.2 fd00::2"
            ]
        );
        assert!(said.contains(&["default-route", "hive0", "no"].map(str::to_owned).to_vec()));
        settings.search = true;
        assert!(
            lines(&settings)
                .iter()
                .any(|line| line[2] == "home.hive.internal")
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_address_that_the_machine_does_not_have_is_in_another_network() {
        assert!(!is_ours(&["192.0.2.77".parse().unwrap()]));
        assert!(is_ours(&["127.0.0.1".parse().unwrap()]));
    }
}
