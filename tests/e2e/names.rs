//! Nodes have names, and a machine's own name resolution is what it was when they have gone.

mod machine;
mod resolved;

use std::fs::Permissions;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::deadline::{eventually, until};
use crate::lab::{Host, Lab, Outcome};
use crate::node::{HIVEVPN, Network, Node, STOP};
use crate::privileges::is_alone;
use crate::services::{dns::NameServer, ssh};

/// Far more than any of it takes.
const SOON: Duration = Duration::from_secs(15);
/// What a program's host sees in place of the machine's own file.
const SHOW: &str = "mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"";
/// As others have written it: with a comment, and without an end.
const BEFORE: &str = "# by hand\noptions timeout:2 attempts:2\nnameserver ";
const DOMAIN: &str = "home.hive.internal";

/// The first line of `dig +short`, or of what the server says of itself.
fn dig(host: &Host, question: &str) -> String {
    host.sh(&format!("dig +short +tries=1 +time=5 {question}"))
        .ok()
}

/// The code of a response: `NOERROR`, `NXDOMAIN`, `REFUSED`.
fn code(host: &Host, question: &str) -> String {
    let shown = host.sh(&format!("dig +tries=1 +time=5 {question}")).ok();
    let (_, status) = shown
        .split_once("status: ")
        .unwrap_or_else(|| panic!("{shown}"));
    status.split(',').next().unwrap().to_owned()
}

fn names(node: &Node) -> Value {
    node.json(&["names", "--json"])
}

fn is_listed(node: &Node, label: &str) -> bool {
    let full = format!("{label}.{DOMAIN}");
    let names = names(node);
    let mut names = names["names"].as_array().unwrap().iter();
    names.any(|name| name["name"] == full && name["resolves"] == true)
}

fn answers(node: &Node) {
    until(SOON, "the resolver answers", || {
        names(node)["servers"].as_array().unwrap().len() == 2
    });
}

/// `desk`, which founds the network, and `gpu`.
fn desk_and_gpu() -> Network {
    let lab = Lab::new().public("desk").public("gpu").build();
    let net = Network::start(lab, ["desk", "gpu"]);
    net.wait("direct", ["desk", "gpu"], SOON);
    for name in ["desk", "gpu"] {
        answers(net.node(name));
    }
    net
}

#[test]
fn nodes_have_names_on_their_own_machine_and_peers_are_not_told() {
    let net = desk_and_gpu();
    let (desk, gpu) = (net.node("desk"), net.node("gpu"));
    let host = desk.host();
    for server in desk.addresses() {
        for how in ["+notcp", "+tcp", "+noedns"] {
            let ask = |question: &str| dig(host, &format!("@{server} {how} {question}"));
            assert_eq!(ask(&format!("gpu.{DOMAIN} A")), gpu.ipv4().to_string());
            assert_eq!(ask("GPU.Home.Hive.Internal AAAA"), gpu.ipv6().to_string());
            assert_eq!(ask(&format!("desk.{DOMAIN} A")), desk.ipv4().to_string());
            assert_eq!(ask(&format!("ai.{DOMAIN} A")), desk.ipv4().to_string());
            for address in gpu.addresses() {
                assert_eq!(ask(&format!("-x {address}")), format!("gpu.{DOMAIN}."));
            }
            assert_eq!(ask(&format!("{DOMAIN} NS")), format!("{DOMAIN}."));
        }
        let code = |question: &str| code(host, &format!("@{server} {question}"));
        assert_eq!(code(&format!("tpu.{DOMAIN}")), "NXDOMAIN");
        assert_eq!(code(&format!("gpu.{DOMAIN} MX")), "NOERROR");
        assert_eq!(code("gpu.work.hive.internal"), "REFUSED");
        assert_eq!(code("example.org"), "REFUSED");
    }
    // Neither over the overlay nor beside it.
    for server in desk.addresses() {
        let question = format!("@{server} gpu.{DOMAIN}");
        assert_eq!(code(gpu.host(), &question), "REFUSED");
        let by_tcp = gpu
            .host()
            .sh(&format!("dig +tcp +tries=1 +time=5 {question}"));
        assert!(!by_tcp.stdout.contains("ANSWER SECTION"), "{by_tcp}");
    }
    let beside = format!("@{} +tries=1 +time=1 gpu.{DOMAIN}", host.address());
    assert!(!gpu.host().sh(&format!("dig {beside}")).succeeded());

    let listed = names(desk);
    assert_eq!(listed["domain"], DOMAIN);
    assert_eq!(listed["through"], "none");
    assert!(is_listed(desk, "gpu") && is_listed(desk, "desk") && is_listed(desk, "ai"));
    let shown = desk.ask(&["names"]);
    assert!(shown.contains(&format!("dig @{}", desk.ipv4())), "{shown}");
}

#[test]
fn services_have_names_that_say_where_they_are() {
    let net = desk_and_gpu();
    let (desk, gpu) = (net.node("desk"), net.node("gpu"));
    let _listener = gpu
        .host()
        .here(|| TcpListener::bind(("127.0.0.1", 8000)).unwrap());
    gpu.ask(&["expose", "127.0.0.1:8000", "--as", "shop", "--kind", "tcp"]);
    let ask =
        |node: &Node, question: &str| dig(node.host(), &format!("@{} {question}", node.ipv4()));
    let address = gpu.ipv4().to_string();
    for node in [desk, gpu] {
        until(SOON, "everybody finds the service", || {
            ask(node, &format!("shop.svc.{DOMAIN} A")) == address
        });
        assert_eq!(ask(node, &format!("shop.gpu.{DOMAIN} A")), address);
        assert_eq!(
            ask(node, &format!("shop.gpu.{DOMAIN} AAAA")),
            gpu.ipv6().to_string()
        );
        let text = ask(node, &format!("shop.gpu.{DOMAIN} TXT"));
        assert!(
            text.contains("\"kind=tcp\"") && text.contains("\"port=8000\""),
            "{text}"
        );
        for place in ["gpu", "svc"] {
            let port = ask(node, &format!("_shop._tcp.{place}.{DOMAIN} SRV"));
            assert!(
                port.starts_with("10 ") && port.ends_with(&format!(" 8000 gpu.{DOMAIN}.")),
                "{port}"
            );
        }
        assert!(is_listed(node, "shop.gpu") && is_listed(node, "shop.svc"));
    }
    gpu.ask(&["unexpose", "shop"]);
    let question = format!("@{} shop.svc.{DOMAIN}", desk.ipv4());
    until(SOON, "its names are gone", || {
        code(desk.host(), &question) == "NXDOMAIN"
    });
}

#[test]
fn a_name_is_the_one_in_the_certificate_and_goes_with_its_member() {
    let mut net = desk_and_gpu();
    net.take("gpu").interrupt();
    let host = net.lab().host("gpu").clone();
    let bank = host.up(&[host.configure("[node]\nname = \"bank\"\n")]);
    let desk = net.node("desk");
    desk.wait("online", "bank", SOON);
    let code = |label| code(desk.host(), &format!("@{} {label}.{DOMAIN}", desk.ipv4()));
    assert_eq!(code("bank"), "NXDOMAIN");
    assert!(!is_listed(desk, "bank"));

    let peer = bank.node_field("peer_id");
    desk.ask(&["revoke", &peer]);
    let address = format!("@{} -x {}", desk.ipv4(), bank.ipv4());
    until(SOON, "the names of an expelled member are gone", || {
        code("gpu") == "NXDOMAIN" && dig(desk.host(), &address).is_empty()
    });
    bank.interrupt();
}

#[test]
fn where_another_program_answers_on_every_address_the_node_does_without() {
    let lab = Lab::new().public("a").build();
    let host = lab.host("a");
    let taken = host.here(|| UdpSocket::bind(("0.0.0.0", 53)).unwrap());
    let node = host.up(&[]);
    until(SOON, "names are answered by IPv6", || {
        names(&node)["servers"] == serde_json::json!([node.ipv6().to_string()])
    });
    let why = names(&node)["trouble"].as_str().unwrap().to_owned();
    assert!(why.contains("another program has it"), "{why}");
    assert_eq!(
        dig(host, &format!("@{} a.{DOMAIN} A", node.ipv6())),
        node.ipv4().to_string()
    );
    drop(taken);
    node.interrupt();
}

/// A host `desk` whose programs ask a name server elsewhere, and `gpu`.
struct Office {
    server: NameServer, // before `lab`: it ends first
    lab: Lab,
    before: String,
}

impl Office {
    fn new() -> Self {
        let lab = Lab::new().public("ns").public("desk").public("gpu").build();
        let server = NameServer::on(lab.host("ns"));
        let before = format!("{BEFORE}{}", lab.host("ns").address());
        std::fs::write(lab.host("desk").directory().join("resolv.conf"), &before).unwrap();
        Self {
            server,
            lab,
            before,
        }
    }

    fn desk(&self) -> &Host {
        self.lab.host("desk")
    }

    /// Brings the node up that programs of `desk` ask for names.
    fn up(&self, arguments: &[&str]) -> Node {
        let node = self.desk().up_after(SHOW, arguments);
        let expected = match arguments.contains(&"--names") {
            true => "resolv.conf",
            false => "none",
        };
        until(SOON, "programs find the resolver", || {
            let names = names(&node);
            names["through"] == expected && !names["servers"].as_array().unwrap().is_empty()
        });
        node
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.desk().directory().join("resolv.conf")).unwrap()
    }

    fn is_as_before(&self, what: &str) {
        assert_eq!(self.file(), self.before, "after {what}");
    }

    fn getent(&self, name: &str) -> Outcome {
        self.desk()
            .run(&["sh", "-c", SHOW, "sh", "getent", "ahostsv4", name])
    }

    /// The address that programs find.
    fn finds(&self, name: &str) -> String {
        let found = self.getent(name).ok();
        found
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

const IN_FRONT: [&str; 2] = ["--names", "resolv-conf"];
const SEARCHED: [&str; 2] = ["--names", "resolv-conf,search"];

#[test]
fn programs_find_names_with_and_without_the_domain_and_all_others_as_before() {
    let office = Office::new();
    assert_eq!(office.finds("gpu.example"), "192.0.2.53");
    let desk = office.up(&SEARCHED);
    let gpu = office.lab.host("gpu").up(&["--join", &desk.invite()]);
    desk.wait("direct", "gpu", SOON);
    let address = gpu.ipv4().to_string();
    assert_eq!(office.finds(&format!("gpu.{DOMAIN}")), address);
    assert_eq!(office.finds("gpu"), address);
    assert!(!office.getent(&format!("tpu.{DOMAIN}")).succeeded());
    assert_eq!(office.finds("gpu.example"), "192.0.2.53");
    for how in ["+notcp", "+tcp"] {
        let question = format!("@{} {how} gpu.example A", desk.ipv4());
        assert_eq!(dig(office.desk(), &question), "192.0.2.53");
    }
    ssh::works_by_name(office.desk(), gpu.host(), gpu.ipv4().into(), "gpu", SHOW);
    let asked = office.server.asked();
    assert!(asked.iter().any(|name| name == "gpu.example"), "{asked:?}");
    assert!(!asked.iter().any(|name| name.contains("hive")), "{asked:?}");
    desk.interrupt();
    office.is_as_before("Ctrl-C");
}

/// A network of which `desk` is the founder and stands in front.
fn founded(name: &str, prefix: &str) -> String {
    format!(
        "[network]\nname = \"{name}\"\nipv4_prefix = \"{prefix}\"\n[node]\nname = \"desk\"\n\
         [names]\nsearch = true\nresolv_conf = true\n"
    )
}

#[test]
fn networks_of_one_daemon_stand_side_by_side_and_know_nothing_of_each_other() {
    let office = Office::new();
    let host = office.desk();
    host.write_private("home.toml", &founded("home", "10.77.0.0/16"));
    host.write_private("work.toml", &founded("work", "10.78.0.0/16"));
    let line = ["sh", "-c", SHOW, "sh", HIVEVPN, "--state", "nets"];
    let mut daemon = host.spawn(&[&line[..], &["up", "home.toml", "work.toml"]].concat());
    let ask = |net, command: &[&str]| host.run(&[&line[..], &["--net", net], command].concat());
    let server = |net| {
        eventually(SOON, "programs find the network", || {
            let names: Value = serde_json::from_str(&ask(net, &["names", "--json"]).stdout).ok()?;
            let server = names["servers"][0].as_str()?.to_owned();
            (names["through"] == "resolv.conf").then_some(server)
        })
    };
    let (home, work) = (server("home"), server("work"));
    assert_eq!(office.finds("desk.home.hive.internal"), home);
    assert_eq!(office.finds("desk.work.hive.internal"), work);
    assert_eq!(office.finds("gpu.example"), "192.0.2.53");
    assert!(!office.getent("desk.other.hive.internal").succeeded());

    ask("home", &["down"]).ok();
    assert!(!office.getent("desk.home.hive.internal").succeeded());
    assert_eq!(office.finds("desk.work.hive.internal"), work);
    assert_eq!(office.finds("gpu.example"), "192.0.2.53");
    ask("work", &["down"]).ok();
    daemon.ends(STOP).ok();
    office.is_as_before("both networks");
    let asked = office.server.asked();
    assert!(!asked.iter().any(|name| name.contains("hive")), "{asked:?}");
}

#[test]
fn however_a_node_ends_resolv_conf_is_put_back_byte_for_byte() {
    let office = Office::new();
    let desk = office.up(&[]);
    office.is_as_before("a start that was not asked to change it");
    desk.interrupt();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let desk = office.up(&IN_FRONT);
        assert_ne!(office.file(), office.before);
        desk.end(signal);
        office.is_as_before(signal.as_str());
    }
    let desk = office.up(&IN_FRONT);
    office.desk().hivevpn_after(SHOW, &["down"]).ok();
    desk.ended().ok();
    office.is_as_before("down");

    office.up(&IN_FRONT).kill9();
    assert_ne!(office.file(), office.before);
    assert_eq!(
        office.finds("gpu.example"),
        "192.0.2.53",
        "the next server is asked"
    );
    office.desk().hivevpn_after(SHOW, &["down"]).ok();
    office.is_as_before("kill -9 and down");

    office.up(&IN_FRONT).kill9();
    let desk = office.up(&[]);
    office.is_as_before("kill -9 and a start");
    desk.interrupt();

    office.up(&IN_FRONT).kill9();
    office.up(&SEARCHED).interrupt();
    office.is_as_before("kill -9, a start in front again, and Ctrl-C");
}

#[test]
fn a_file_that_somebody_else_has_changed_is_left_alone() {
    let office = Office::new();
    let desk = office.up(&IN_FRONT);
    let changed = format!("{}options rotate\n", office.file());
    std::fs::write(office.desk().directory().join("resolv.conf"), &changed).unwrap();
    let pid = desk.pid();
    office.desk().run(&["kill", &pid.to_string()]).ok();
    let ended = desk.ended();
    assert!(
        ended.stderr.contains("somebody else has changed"),
        "{ended}"
    );
    assert_eq!(office.file(), changed);

    let told = office.desk().hivevpn_after(SHOW, &["down"]);
    assert!(told.stderr.contains("somebody else has changed"), "{told}");
    assert_eq!(office.file(), changed);
}

#[test]
fn a_daemon_that_has_become_another_user_puts_it_back_all_the_same() {
    if is_alone() {
        return;
    }
    let office = Office::new();
    // Where the control socket lies.
    let everybody = Permissions::from_mode(0o777);
    std::fs::set_permissions(office.desk().directory(), everybody).unwrap();
    let user = ["--user", "nobody"];
    office.up(&[&user[..], &IN_FRONT].concat()).interrupt();
    office.is_as_before("Ctrl-C");
    office.up(&[&user[..], &IN_FRONT].concat()).kill9();
    assert_ne!(office.file(), office.before);
    office.up(&user).interrupt();
    office.is_as_before("kill -9 and a start");
}
