//! The shape of `network.toml`: which options there are, and of which type. What they mean is said one level up.

use serde::Deserialize;
use zeroize::Zeroizing;

use super::{
    RelayMode, administrators::AdminSection, models::ModelsSection, registry::RegistrySection,
};
use crate::{http::Limits, names};

pub(super) type Spanned<T> = toml::Spanned<T>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub network: NetworkSection,
    pub node: NodeSection,
    pub underlay: UnderlaySection,
    pub admin: AdminSection,
    pub names: NamesSection,
    pub registry: RegistrySection,
    pub interface: InterfaceSection,
    pub models: ModelsSection,
    pub services: ServicesSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NetworkSection {
    pub name: Option<Spanned<String>>,
    pub invite: Option<Spanned<Secret>>,
    pub password_file: Option<String>,
    pub ipv4_prefix: Option<Spanned<String>>,
    pub policy: Option<Spanned<String>>,
}

/// Wiped when it is dropped, and never shown.
pub(super) struct Secret(pub Zeroizing<String>);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodeSection {
    pub name: Option<Spanned<String>>,
    pub address: Option<Spanned<String>>,
    pub user: Option<String>,
    pub publish: Vec<Spanned<String>>,
    pub dht: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct UnderlaySection {
    pub port: Option<u16>,
    pub bootstrap: Vec<Spanned<String>>,
    pub external: Vec<Spanned<String>>,
    pub port_mapping: Option<bool>,
    pub relay: Option<RelayOption>,
    pub relay_rate: Option<Spanned<String>>,
    pub relay_members: Option<Vec<Spanned<String>>>,
    pub relay_reservation: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NamesSection {
    pub resolver: Option<bool>,
    pub search: Option<bool>,
    pub resolv_conf: Option<bool>,
}

impl NamesSection {
    pub(super) fn apply_to(self, names: &mut names::Config) {
        names.resolver = self.resolver.unwrap_or(names.resolver);
        names.search = self.search.unwrap_or(names.search);
        names.resolv_conf = self.resolv_conf.unwrap_or(names.resolv_conf);
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct InterfaceSection {
    pub name: Option<Spanned<String>>,
    pub mtu: Option<Spanned<u16>>,
    pub realtime: Option<bool>,
    pub offload: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ServicesSection {
    pub limits: Limits,
}

/// `true`, `false` or `"auto"`.
#[derive(Debug)]
pub(super) struct RelayOption(pub RelayMode);

impl<'de> Deserialize<'de> for RelayOption {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Shape {
            Bool(bool),
            Text(String),
        }
        match Shape::deserialize(deserializer) {
            Ok(Shape::Bool(true)) => Ok(Self(RelayMode::Always)),
            Ok(Shape::Bool(false)) => Ok(Self(RelayMode::Never)),
            Ok(Shape::Text(text)) if text == "auto" => Ok(Self(RelayMode::Auto)),
            Ok(Shape::Text(_)) | Err(_) => {
                Err(serde::de::Error::custom("relay is true, false or \"auto\""))
            }
        }
    }
}
