//! `network.toml`: every option, its default, its unit; and what the command line says on top of it.
//!
//! A file becomes a [`Config`] only when all of it is valid. An error names the file, the line and the option.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU64,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use hivevpn_core::{
    membership::{Bundle, Invite, address, genesis::DEFAULT_IPV4_PREFIX},
    policy::{Exposed, Mode},
    registry::Rules,
};
use ipnet::Ipv4Net;
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};

use crate::{
    cli::{NamesArg, UpArgs},
    control::Identity,
    names,
    password::{self, Password, PasswordSource},
    services,
};

/// The smallest MTU that IPv6 allows on a link (RFC 8200 §5).
const MIN_MTU: u16 = 1280;
/// Larger overlay packets would not fit one datagram with WireGuard's 32 bytes around them.
const MAX_MTU: u16 = 9000;
/// Linux allows 15 bytes for an interface name.
const MAX_INTERFACE_NAME: usize = 15;

/// The UDP and TCP port of a node that names none.
pub const DEFAULT_PORT: u16 = 7777;

mod administrators;

pub use administrators::Administrators;

pub use crate::swarm::{DhtMode, RelayMode};
pub use values::parse_span;

mod file;
mod models;
mod reading;
mod registry;
mod values;

use file::File;
use reading::{check_privacy, line_of, option_at, read, read_invite};
use values::{check_name, checked_member, parse, parse_rate, parse_reservation, worded};

/// Everything an operator may set, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the network to found.
    pub network: String,
    /// The invite to join with.
    pub invite: Option<Invite>,
    /// The network's password, to join with or to found with.
    pub password: Option<PasswordSource>,
    /// The admission to join with, which takes no invite.
    pub admission: Option<Bundle>,
    /// This node's name; the host name without.
    pub name: Option<String>,
    /// Overlay IPv4 address to ask for.
    pub address: Option<Ipv4Addr>,
    /// IPv4 network of the overlay to found.
    pub ipv4_prefix: Ipv4Net,
    /// What members of a network that we found may reach of each other, until a policy is set. Without, what the node
    /// publishes if the network has a password, else everything.
    pub policy: Option<Mode>,
    /// What everybody may reach here when the policy's mode is "published".
    pub publish: Exposed,
    /// Whether to keep records of the network for others.
    pub dht: DhtMode,
    /// What entries of the registry must obey here, beside what they must everywhere.
    pub registry: Rules,
    /// What the services of this node go by.
    pub services: services::Config,
    /// How programs of this machine find names of the network.
    pub names: names::Config,
    /// The user that the daemon becomes when root starts it; `hivevpn` without, if there is one.
    pub user: Option<String>,
    /// UDP and TCP port; 0 takes any. Without, [`DEFAULT_PORT`], or the next that is free if a network of the same daemon
    /// has that.
    pub port: Option<u16>,
    /// Members to contact first.
    pub bootstrap: Vec<(PeerId, Multiaddr)>,
    /// Public addresses of this node.
    pub external: Vec<IpAddr>,
    /// Whether to ask the router to forward a port to this node.
    pub port_mapping: bool,
    /// Whether to relay.
    pub relay: RelayMode,
    /// How many bytes a second to relay at most; any number without.
    pub relay_rate: Option<NonZeroU64>,
    /// The members to relay for, by name or peer id; all without.
    pub relay_members: Option<Vec<String>>,
    /// How long a reservation with us lasts before it is renewed.
    pub relay_reservation: Duration,
    /// Who may act on this node from others.
    pub admin: Administrators,
    /// Overlay interface; the first free one of `hive0`, `hive1`, … without.
    pub interface: Option<String>,
    /// Overlay MTU in bytes.
    pub mtu: u16,
    /// Whether packets get a processor before other programs.
    pub realtime: bool,
    /// Whether to exchange bursts of packets and datagrams with the kernel.
    pub offload: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: "home".to_owned(),
            invite: None,
            password: None,
            admission: None,
            name: None,
            address: None,
            ipv4_prefix: DEFAULT_IPV4_PREFIX,
            policy: None,
            publish: Exposed::new(),
            dht: DhtMode::default(),
            registry: Rules::default(),
            services: services::Config::default(),
            names: names::Config::default(),
            user: None,
            port: None,
            bootstrap: Vec::new(),
            external: Vec::new(),
            port_mapping: true,
            relay: RelayMode::Auto,
            relay_rate: None,
            relay_members: None,
            relay_reservation: Duration::from_secs(60 * 60),
            admin: Administrators::default(),
            interface: None,
            mtu: 1420,
            realtime: true,
            offload: true,
        }
    }
}

/// A configuration that cannot be used: what, where, and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not TOML, an unknown option, or a value of the wrong type.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Everybody may read it, and it holds something secret.
    #[error(
        "{path} holds {what} and can be read by everybody (mode {mode:04o}): run `chmod 600 {path}`, and if somebody \
         else uses this machine, get a new one",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Such as `an invite`.
        what: &'static str,
        /// Its permission bits.
        mode: u32,
    },
    /// A value that cannot be.
    #[error("{place}: {option}: {message}")]
    Value {
        /// The file with the line, or "command line".
        place: String,
        /// The option's name.
        option: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl Config {
    /// Reads a file, if there is one, and puts the command line on top.
    pub fn load(path: Option<&Path>, args: &UpArgs) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = path {
            let (text, mode) = read(path).map_err(|error| ConfigError::Unreadable {
                path: path.to_owned(),
                error,
            })?;
            config = Self::of_text(path, &text)?;
            check_privacy(path, config.secret(), mode)?;
        }
        config.apply_arguments(args)?;
        config.admin.read()?;
        Ok(config)
    }

    /// What the text of a file says, which lies at `path`.
    pub fn of_text(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        config.apply_file(path, text)?;
        Ok(config)
    }

    /// What in it nobody else may know.
    fn secret(&self) -> Option<&'static str> {
        if self.invite.is_some() {
            Some("an invite")
        } else if self.admission.is_some() {
            Some("an admission")
        } else if matches!(self.password, Some(PasswordSource::Given(_))) {
            Some("the network's password")
        } else {
            None
        }
    }

    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let option =
                option_at(text, offset).map_or(String::new(), |option| format!("{option}: "));
            ConfigError::Syntax {
                path: path.to_owned(),
                line: line_of(text, offset),
                message: format!("{option}{}", error.message()),
            }
        })?;
        let place = |span: std::ops::Range<usize>| {
            format!("{}:{}", path.display(), line_of(text, span.start))
        };
        let File {
            network,
            node,
            underlay,
            admin,
            names,
            registry,
            interface,
            models,
            services,
        } = file;
        if let Some(name) = network.name {
            self.set_network(name.get_ref(), &place(name.span()))?;
        }
        if let Some(file) = network.password_file {
            self.password = Some(PasswordSource::File(file.into()));
        }
        if let Some(invite) = network.invite {
            self.set_invite(&invite.get_ref().0, &place(invite.span()))?;
        }
        if let Some(prefix) = network.ipv4_prefix {
            self.set_ipv4_prefix(prefix.get_ref(), &place(prefix.span()))?;
        }
        if let Some(user) = node.user {
            self.user = Some(user);
        }
        if let Some(name) = node.name {
            self.set_name(name.get_ref(), &place(name.span()))?;
        }
        if let Some(mode) = network.policy {
            let mode = worded(mode.get_ref(), "network.policy", &place(mode.span()))?;
            self.policy = Some(mode);
        }
        for service in node.publish {
            let place = place(service.span());
            let service = worded(service.get_ref(), "node.publish", &place)?;
            self.publish.insert(service);
        }
        if let Some(mode) = node.dht {
            self.dht = worded(mode.get_ref(), "node.dht", &place(mode.span()))?;
        }
        if let Some(address) = node.address {
            self.address = Some(parse(
                address.get_ref(),
                "node.address",
                &place(address.span()),
                "an IPv4 address such as 10.77.0.4",
            )?);
        }
        if let Some(port) = underlay.port {
            self.port = Some(port);
        }
        for address in underlay.bootstrap {
            self.add_bootstrap(address.get_ref(), &place(address.span()))?;
        }
        for address in underlay.external {
            self.add_external(address.get_ref(), &place(address.span()))?;
        }
        if let Some(port_mapping) = underlay.port_mapping {
            self.port_mapping = port_mapping;
        }
        if let Some(relay) = underlay.relay {
            self.relay = relay.0;
        }
        if let Some(rate) = underlay.relay_rate {
            self.relay_rate = Some(parse_rate(rate.get_ref(), &place(rate.span()))?);
        }
        if let Some(members) = underlay.relay_members {
            let members = members.into_iter().map(|member| {
                let place = place(member.span());
                checked_member(member.into_inner(), &place)
            });
            self.relay_members = Some(members.collect::<Result<_, _>>()?);
        }
        if let Some(span) = underlay.relay_reservation {
            self.relay_reservation = parse_reservation(span.get_ref(), &place(span.span()))?;
        }
        self.registry = registry.rules(place)?;
        models.apply_to(&mut self.services.models, place)?;
        self.services.limits = services.limits;
        admin.apply_to(&mut self.admin, place)?;
        names.apply_to(&mut self.names);
        if let Some(name) = interface.name {
            self.set_interface(name.get_ref(), &place(name.span()))?;
        }
        if let Some(mtu) = interface.mtu {
            self.set_mtu(*mtu.get_ref(), &place(mtu.span()))?;
        }
        if let Some(realtime) = interface.realtime {
            self.realtime = realtime;
        }
        if let Some(offload) = interface.offload {
            self.offload = offload;
        }
        Ok(())
    }

    fn apply_arguments(&mut self, args: &UpArgs) -> Result<(), ConfigError> {
        const PLACE: &str = "command line";
        if let Some(invite) = &args.join {
            if invite == "-" {
                self.set_invite(&read_invite()?, "standard input")?;
            } else {
                self.set_invite(invite, PLACE)?;
            }
        }
        if let Some(file) = &args.password_file {
            self.password = Some(PasswordSource::File(file.clone()));
        }
        if let Some(name) = &args.network {
            self.set_network(name.as_str(), PLACE)?;
        }
        if let Some(name) = &args.name {
            self.set_name(name, PLACE)?;
        }
        self.address = args.address.or(self.address);
        self.port = args.port.or(self.port);
        if let Some(prefix) = &args.prefix {
            self.set_ipv4_prefix(prefix, PLACE)?;
        }
        self.user = args.user.clone().or(self.user.take());
        for address in &args.external {
            self.add_external(address, PLACE)?;
        }
        for address in &args.bootstrap {
            self.add_bootstrap(address, PLACE)?;
        }
        self.relay = args.relay.unwrap_or(self.relay);
        self.names.resolver &= !args.names.contains(&NamesArg::Off);
        self.names.search |= args.names.contains(&NamesArg::Search);
        self.names.resolv_conf |= args.names.contains(&NamesArg::ResolvConf);
        if let Some(file) = &args.admin_file {
            self.admin.file = Some(file.clone());
        }
        if let Some(name) = &args.interface {
            self.set_interface(name, PLACE)?;
        }
        if let Some(mtu) = args.mtu {
            self.set_mtu(mtu, PLACE)?;
        }
        Ok(())
    }

    /// A name, or `name:password`.
    fn set_network(&mut self, text: &str, place: &str) -> Result<(), ConfigError> {
        let (name, password) = password::split(text);
        check_name(name, "network.name", place)?;
        self.network = name.to_owned();
        if password == Some("-") {
            self.password = Some(PasswordSource::File("-".into()));
        } else if let Some(password) = password {
            let password = Password::new(password).map_err(|message| ConfigError::Value {
                place: place.to_owned(),
                option: "network.name",
                message,
            })?;
            self.password = Some(PasswordSource::Given(password));
        }
        Ok(())
    }

    fn set_invite(&mut self, text: &str, place: &str) -> Result<(), ConfigError> {
        let wrong = |message| ConfigError::Value {
            place: place.to_owned(),
            option: "network.invite",
            message,
        };
        // What is said last counts.
        (self.invite, self.admission) = if Bundle::is_meant_by(text) {
            let bundle = Bundle::parse(text).map_err(|error| wrong(error.to_string()))?;
            (None, Some(bundle))
        } else {
            let invite = Invite::parse(text).map_err(|error| wrong(error.to_string()))?;
            (Some(invite), None)
        };
        Ok(())
    }

    fn set_ipv4_prefix(&mut self, text: &str, place: &str) -> Result<(), ConfigError> {
        let prefix = text.parse().ok().filter(|prefix: &Ipv4Net| {
            *prefix == prefix.trunc() && address::is_usable_prefix(*prefix)
        });
        self.ipv4_prefix = prefix.ok_or_else(|| ConfigError::Value {
            place: place.to_owned(),
            option: "network.ipv4_prefix",
            message: format!(
                "'{text}' is no network for an overlay: a private one (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or \
                 100.64.0.0/10) of at most 30 bits, such as 10.78.0.0/16"
            ),
        })?;
        Ok(())
    }

    fn set_name(&mut self, name: &str, place: &str) -> Result<(), ConfigError> {
        check_name(name, "node.name", place)?;
        self.name = Some(name.to_owned());
        Ok(())
    }

    /// A multiaddress, or the string that `hivevpn id --base64` prints.
    fn add_bootstrap(&mut self, text: &str, place: &str) -> Result<(), ConfigError> {
        const EXPECTED: &str = "a multiaddress such as /ip4/203.0.113.11/udp/7777/quic-v1/p2p/12D3…, nor what \
                                'hivevpn id --base64' prints";
        let identity = BASE64
            .decode(text)
            .ok()
            .and_then(|json| serde_json::from_slice::<Identity>(&json).ok());
        if let Some(identity) = identity
            .as_ref()
            .filter(|identity| identity.addresses.is_empty())
        {
            let message = format!(
                "the string of {} has no addresses: run 'hivevpn id --base64' there while that node is up",
                identity.id
            );
            return Err(ConfigError::Value {
                place: place.to_owned(),
                option: "underlay.bootstrap",
                message,
            });
        }
        let addresses =
            identity.map_or_else(|| vec![text.to_owned()], |identity| identity.addresses);
        for text in addresses {
            let address: Multiaddr = parse(&text, "underlay.bootstrap", place, EXPECTED)?;
            let Some(Protocol::P2p(peer)) = address.iter().last() else {
                let message = format!(
                    "'{text}' does not end in /p2p/<peer id>, so nobody could be held to it"
                );
                return Err(ConfigError::Value {
                    place: place.to_owned(),
                    option: "underlay.bootstrap",
                    message,
                });
            };
            self.bootstrap.push((peer, address));
        }
        Ok(())
    }

    fn add_external(&mut self, text: &str, place: &str) -> Result<(), ConfigError> {
        self.external.push(parse(
            text,
            "underlay.external",
            place,
            "an IP address such as 203.0.113.11",
        )?);
        Ok(())
    }

    fn set_interface(&mut self, name: &str, place: &str) -> Result<(), ConfigError> {
        let is_valid = (1..=MAX_INTERFACE_NAME).contains(&name.len())
            && name != "."
            && name != ".."
            && !name.contains(|c: char| {
                c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control()
            });
        if !is_valid {
            let message = format!(
                "'{name}' is no interface name: 1 to {MAX_INTERFACE_NAME} characters without space, '/', ':' and '%'"
            );
            return Err(ConfigError::Value {
                place: place.to_owned(),
                option: "interface.name",
                message,
            });
        }
        self.interface = Some(name.to_owned());
        Ok(())
    }

    fn set_mtu(&mut self, mtu: u16, place: &str) -> Result<(), ConfigError> {
        if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
            let message = format!(
                "{mtu} is out of range: {MIN_MTU} (the least that IPv6 allows) to {MAX_MTU} bytes"
            );
            return Err(ConfigError::Value {
                place: place.to_owned(),
                option: "interface.mtu",
                message,
            });
        }
        self.mtu = mtu;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
