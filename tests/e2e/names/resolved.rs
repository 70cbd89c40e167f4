//! Where systemd-resolved runs, the real one, programs find the network's names by themselves, and nobody writes a file.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::machine::{LINK, Machine, Settings};
use super::{DOMAIN, answers, code, dig, founded, names};
use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab, Outcome};
use crate::node::{HIVEVPN, Node, STOP, exit};
use crate::privileges::is_alone;
use crate::services::{dns::NameServer, ssh};

/// Far more than any of it takes.
const SOON: Duration = Duration::from_secs(60);
/// What the server elsewhere has for every name.
const OUTSIDE: &str = "192.0.2.53";
/// The user of config/hivevpn.service.
const SERVICE: &str = "hivevpn:x:41234:41234::/:/usr/sbin/nologin";

/// A host `desk` with systemd-resolved, which asks a name server elsewhere; and `gpu`.
struct Office {
    machine: Machine, // before `lab`, as the server: they end first
    server: NameServer,
    lab: Lab,
}

impl Office {
    fn new() -> Self {
        let mut office = Self::without_resolved();
        office.machine.start_resolved();
        office
    }

    fn without_resolved() -> Self {
        let lab = Lab::new().public("ns").public("desk").public("gpu").build();
        let server = NameServer::on(lab.host("ns"));
        let machine = Machine::new(lab.host("desk"), lab.host("ns"));
        Self {
            machine,
            server,
            lab,
        }
    }

    fn desk(&self) -> &Host {
        self.lab.host("desk")
    }

    /// `gpu`, as a member of a node's network.
    fn join(&self, desk: &Node) -> Node {
        let gpu = self.lab.host("gpu").up(&["--join", &desk.invite()]);
        desk.wait("direct", "gpu", SOON);
        gpu
    }

    /// Brings the node up that is asked for names.
    fn up(&self, arguments: &[&str]) -> Node {
        let node = self.machine.up(arguments);
        let domain = match arguments.contains(&"search") {
            true => DOMAIN.to_owned(),
            false => format!("~{DOMAIN}"),
        };
        self.asks(&node, &domain);
        node
    }

    /// Waits until systemd-resolved asks a node for names in a domain, for its addresses, and for nothing else.
    fn asks(&self, node: &Node, domain: &str) {
        let mut bytes = node.ipv6().octets()[..6].to_vec();
        bytes.reverse();
        let reverse: String = bytes
            .iter()
            .map(|byte| format!("{:x}.{:x}.", byte & 15, byte >> 4))
            .collect();
        let domains = [
            domain,
            "~77.10.in-addr.arpa",
            &format!("~{reverse}ip6.arpa"),
        ];
        let expected = Settings {
            servers: node.addresses().map(|address| address.to_string()).into(),
            domains: domains.map(str::to_owned).into(),
            by_default: vec!["no".to_owned()],
        };
        until(
            SOON,
            &format!("systemd-resolved is told {expected:?}"),
            || {
                names(node)["through"] == "systemd-resolved"
                    && self.machine.settings().as_ref() == Some(&expected)
            },
        );
    }

    /// Waits until a node says that systemd-resolved does not obey it.
    fn refuses(&self, node: &Node) {
        let trouble = eventually(SOON, "somebody says why", || {
            names(node)["trouble"].as_str().map(str::to_owned)
        });
        assert!(trouble.contains("config/hivevpn.rules"), "{trouble}");
        assert_eq!(names(node)["through"], "none");
        self.is_told_nothing();
    }

    /// Waits until systemd-resolved knows the interface, of which it is told nothing.
    fn is_told_nothing(&self) {
        until(SOON, "nothing is set", || {
            let settings = self.machine.settings();
            settings
                .is_some_and(|settings| settings.servers.is_empty() && settings.domains.is_empty())
        });
    }

    /// Waits until nothing of a node is left, and `/etc/resolv.conf` is this.
    fn forgets(&self, resolv_conf: &str, what: &str) {
        until(SOON, &format!("nothing is left after {what}"), || {
            let status = self.machine.run(&["resolvectl", "status"]).ok();
            let kept = std::fs::read_dir(self.machine.kept());
            !status.contains("hive")
                && !status.contains("10.77.")
                && kept.into_iter().flatten().next().is_none()
                && self.machine.resolv_conf() == resolv_conf
        });
    }

    /// The IPv4 address that programs find.
    fn finds(&self, name: &str) -> String {
        let found = self.machine.run(&["getent", "ahostsv4", name]).stdout;
        let address = found.split_whitespace().next();
        address.unwrap_or_default().to_owned()
    }

    /// What systemd-resolved answers who asks it as a name server.
    fn stub(&self, question: &str) -> String {
        dig(self.desk(), &format!("@127.0.0.53 {question}"))
    }

    fn query(&self, name: &str) -> Outcome {
        self.machine.run(&["resolvectl", "query", name])
    }

    /// Asserts that nobody elsewhere was asked for a name of ours.
    fn leaks_nothing(&self) {
        let asked = self.server.asked();
        assert!(
            !asked.iter().any(|name| name.contains("internal")),
            "{asked:?}"
        );
    }
}

/// Counts what is asked of a node's resolver.
struct Questions<'a>(&'a Host);

impl<'a> Questions<'a> {
    fn to(node: &'a Node) -> Self {
        let rule =
            |what: &str| format!("nft add rule inet questions out th dport 53 {what} counter");
        let lines = [
            "nft add table inet questions".to_owned(),
            "nft 'add chain inet questions out { type filter hook output priority 0; }'".to_owned(),
            rule(&format!("ip daddr {}", node.ipv4())),
            rule(&format!("ip6 daddr {}", node.ipv6())),
        ];
        node.host().sh(&lines.join(" && ")).ok();
        Self(node.host())
    }

    fn count(&self) -> u64 {
        let shown = self.0.sh("nft -j list table inet questions").ok();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        let rules = shown["nftables"].as_array().unwrap().iter();
        let counters = rules.flat_map(|rule| rule["rule"]["expr"].as_array().into_iter().flatten());
        counters
            .filter_map(|part| part["counter"]["packets"].as_u64())
            .sum()
    }
}

#[test]
fn it_asks_the_node_for_names_of_the_network_and_for_nothing_else() {
    let office = Office::new();
    let before = office.machine.resolv_conf();
    let desk = office.up(&[]);
    let gpu = office.join(&desk);
    let _listener = gpu
        .host()
        .here(|| TcpListener::bind(("127.0.0.1", 8000)).unwrap());
    gpu.ask(&["expose", "127.0.0.1:8000", "--as", "shop", "--kind", "tcp"]);
    let (v4, v6) = (gpu.ipv4().to_string(), gpu.ipv6().to_string());
    until(SOON, "the service is known", || {
        dig(desk.host(), &format!("@{} shop.svc.{DOMAIN}", desk.ipv4())) == v4
    });
    let questions = Questions::to(&desk);

    for name in ["gpu", "shop.gpu", "shop.svc"] {
        let name = format!("{name}.{DOMAIN}");
        assert_eq!(office.stub(&format!("{name} A")), v4, "{name}");
        assert_eq!(office.stub(&format!("+tcp {name} AAAA")), v6, "{name}");
        assert_eq!(office.finds(&name), v4, "{name}");
        let found = office.query(&name).ok();
        for part in [&v4, &v6, LINK] {
            assert!(found.contains(part), "{found}");
        }
    }
    assert_eq!(
        office.finds(&format!("ai.{DOMAIN}")),
        desk.ipv4().to_string()
    );
    let port = office.stub(&format!("_shop._tcp.gpu.{DOMAIN} SRV"));
    assert!(port.ends_with(&format!(" 8000 gpu.{DOMAIN}.")), "{port}");
    let name = format!("gpu.{DOMAIN}");
    for address in gpu.addresses() {
        assert_eq!(office.stub(&format!("-x {address}")), format!("{name}."));
        let found = office.query(&address.to_string()).ok();
        assert!(found.contains(&name), "{found}");
    }
    let unknown = format!("@127.0.0.53 tpu.{DOMAIN}");
    assert_eq!(code(office.desk(), &unknown), "NXDOMAIN");
    assert_eq!(office.finds("gpu"), "", "nobody searches the domain");
    let asked = questions.count();
    assert!(asked > 0, "it was asked for all of that");

    assert_eq!(office.finds("gpu.example"), OUTSIDE);
    assert_eq!(office.finds("gpu.work.hive.example"), OUTSIDE);
    assert!(office.query("shop.example").ok().contains(OUTSIDE));
    assert_eq!(questions.count(), asked, "names of others");
    let outside = office.server.asked();
    assert!(outside.contains(&"gpu.example".to_owned()), "{outside:?}");
    office.leaks_nothing();

    let listed = names(&desk);
    assert_eq!(listed["search"], false);
    assert!(listed["trouble"].is_null(), "{listed:#}");
    assert_eq!(office.machine.resolv_conf(), before);
    desk.interrupt();
    office.forgets(&before, "Ctrl-C");
}

#[test]
fn names_without_the_domain_are_found_where_the_user_asked_for_it() {
    let office = Office::new();
    let before = office.machine.resolv_conf();
    let desk = office.up(&["--names", "search"]);
    let gpu = office.join(&desk);
    let address = gpu.ipv4().to_string();
    assert_eq!(names(&desk)["search"], true);
    let search = format!("search {DOMAIN}");
    until(SOON, "programs are told", || {
        office.machine.resolv_conf().contains(&search)
    });
    assert_eq!(office.finds("gpu"), address);
    assert_eq!(office.finds(&format!("gpu.{DOMAIN}")), address);
    assert!(office.query("gpu").ok().contains(&address));
    assert_eq!(office.finds("gpu.example"), OUTSIDE);
    ssh::works_by_name(
        office.desk(),
        gpu.host(),
        gpu.ipv4().into(),
        "gpu",
        &office.machine.prepare(),
    );
    office.leaks_nothing();
    office.machine.hivevpn(&["down"]).ok();
    desk.ended().ok();
    office.forgets(&before, "down");
}

#[test]
fn however_a_node_ends_it_forgets_it_and_the_next_one_is_asked() {
    let office = Office::new();
    let before = office.machine.resolv_conf();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        office.up(&[]).end(signal);
        office.forgets(&before, signal.as_str());
    }
    let desk = office.up(&[]);
    office.machine.hivevpn(&["down"]).ok();
    desk.ended().ok();
    office.forgets(&before, "down");

    office.up(&[]).kill9();
    office.forgets(&before, "kill -9");
    office
        .machine
        .hivevpn(&["down"])
        .failed_with(exit::NO_DAEMON);
    office.forgets(&before, "kill -9 and down");

    office.up(&[]).kill9();
    let desk = office.up(&[]);
    assert_eq!(
        office.finds(&format!("desk.{DOMAIN}")),
        desk.ipv4().to_string()
    );
    assert_eq!(office.machine.resolv_conf(), before);
    desk.interrupt();
    office.forgets(&before, "kill -9, a start, and Ctrl-C");
}

#[test]
fn when_it_starts_again_or_only_later_it_is_told_then() {
    let mut office = Office::without_resolved();
    let desk = office.machine.up(&[]);
    let (name, address) = (format!("desk.{DOMAIN}"), desk.ipv4().to_string());
    let domain = format!("~{DOMAIN}");
    answers(&desk);
    assert_eq!(names(&desk)["through"], "none");
    office.machine.start_resolved();
    office.asks(&desk, &domain);
    assert_eq!(office.finds(&name), address);
    let before = office.machine.resolv_conf();

    // It has kept what it was told.
    office.machine.stop_resolved();
    office.machine.start_resolved();
    until(SOON, "names are found", || office.finds(&name) == address);
    // It has not.
    office.machine.stop_resolved();
    std::fs::remove_dir_all(office.machine.kept()).unwrap();
    office.machine.start_resolved();
    office.asks(&desk, &domain);
    until(SOON, "names are found", || office.finds(&name) == address);
    desk.interrupt();
    office.forgets(&before, "Ctrl-C");
}

#[test]
fn networks_of_one_daemon_are_told_apart() {
    let office = Office::new();
    let before = office.machine.resolv_conf();
    let host = office.desk();
    host.write_private("home.toml", &founded("home", "10.77.0.0/16"));
    host.write_private("work.toml", &founded("work", "10.78.0.0/16"));
    let line = |words: &[&str]| {
        let hivevpn = [HIVEVPN, "--state", "nets"];
        office.machine.line(&[&hivevpn, words].concat())
    };
    let mut daemon = host.spawn(&line(&["up", "home.toml", "work.toml"]));
    let ask = |net, command: &[&str]| host.run(&line(&[&["--net", net], command].concat()));
    let server = |net| {
        eventually(SOON, "systemd-resolved is told", || {
            let names: Value = serde_json::from_str(&ask(net, &["names", "--json"]).stdout).ok()?;
            let server = names["servers"][0].as_str()?.to_owned();
            (names["through"] == "systemd-resolved").then_some(server)
        })
    };
    let (home, work) = (server("home"), server("work"));
    assert_eq!(office.finds("desk.home.hive.internal"), home);
    assert_eq!(office.finds("desk.work.hive.internal"), work);
    assert_eq!(office.finds("gpu.example"), OUTSIDE);
    office.leaks_nothing();

    ask("home", &["down"]).ok();
    until(SOON, "one is forgotten", || {
        let domains = office.machine.run(&["resolvectl", "domain"]).ok();
        !domains.contains("home.hive.internal")
    });
    assert_eq!(office.finds("desk.work.hive.internal"), work);
    ask("work", &["down"]).ok();
    daemon.ends(STOP).ok();
    office.forgets(&before, "both networks");
}

#[test]
fn one_of_another_network_is_left_alone() {
    let office = Office::new();
    let before = office.machine.resolv_conf();
    let desk = office.machine.up_in_another_network(&[]);
    answers(&desk);
    assert_eq!(names(&desk)["through"], "none");
    office.is_told_nothing();
    let question = format!("@{} desk.{DOMAIN}", desk.ipv4());
    assert_eq!(dig(office.desk(), &question), desk.ipv4().to_string());
    desk.interrupt();
    office.forgets(&before, "Ctrl-C");
}

#[test]
fn the_service_s_user_is_obeyed_by_the_rule_and_others_are_told_of_it() {
    if is_alone() {
        return;
    }
    let mut office = Office::new();
    let before = office.machine.resolv_conf();
    // Where the control socket lies.
    let everybody = Permissions::from_mode(0o777);
    std::fs::set_permissions(office.desk().directory(), everybody).unwrap();
    office.machine.add_user(SERVICE);

    let service = office.machine.up(&["--user", "hivevpn"]);
    office.refuses(&service);
    office.machine.start_polkit();
    office.asks(&service, &format!("~{DOMAIN}"));
    let name = format!("desk.{DOMAIN}");
    assert_eq!(office.finds(&name), service.ipv4().to_string());
    service.interrupt();
    office.forgets(&before, "Ctrl-C");

    // It is the other user's.
    std::fs::remove_dir_all(office.desk().directory().join("state")).unwrap();
    let nobody = office.machine.up(&["--user", "nobody"]);
    office.refuses(&nobody);
    let asked = format!("@{} {name}", nobody.ipv4());
    assert_eq!(dig(office.desk(), &asked), nobody.ipv4().to_string());
    nobody.interrupt();
}
