//! What an ADD made, in one shape for all versions of the specification that we speak.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::version::SpecVersion;

/// The result of an attachment.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CniResult {
    /// The version of the specification that it is written in.
    pub cni_version: String,
    /// What was made, on the host and in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub ips: Vec<Ip>,
    /// The routes in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub routes: Vec<Route>,
    /// The resolver configuration that the network recommends.
    #[serde(default, deserialize_with = "or_default")]
    pub dns: ResultDns,
    /// The whole of it as the last plugin said it, fields that we do not know included.
    #[serde(skip)]
    pub raw: Value,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// Its MTU; 0 if the plugin does not say (before CNI 1.1).
    pub mtu: u32,
    /// The network namespace that it is in; empty on the host.
    pub sandbox: String,
    /// The socket of a userspace interface.
    pub socket_path: String,
    /// The address of the PCI device that it is.
    #[serde(rename = "pciID")]
    pub pci_id: String,
}

/// An address of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// With the length of its subnet's prefix.
    pub address: IpNet,
    /// The gateway of the subnet.
    #[serde(default, deserialize_with = "address_or_none")]
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route in the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub dst: IpNet,
    /// By way of; the subnet's gateway if none.
    #[serde(default, deserialize_with = "address_or_none")]
    pub gw: Option<IpAddr>,
    /// MTU along the path.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Maximum segment size to advertise.
    #[serde(default)]
    pub advmss: Option<u32>,
    /// Lower is preferred.
    #[serde(default)]
    pub priority: Option<u32>,
    /// Routing table.
    #[serde(default)]
    pub table: Option<u32>,
    /// Scope of the destinations.
    #[serde(default)]
    pub scope: Option<u32>,
}

/// A resolver configuration as results have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultDns {
    /// Name servers.
    #[serde(default, deserialize_with = "or_default")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, deserialize_with = "or_default")]
    pub domain: String,
    /// Search domains.
    #[serde(default, deserialize_with = "or_default")]
    pub search: Vec<String>,
    /// Resolver options.
    #[serde(default, deserialize_with = "or_default")]
    pub options: Vec<String>,
}

/// An address and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNet {
    /// The address, not masked.
    pub addr: IpAddr,
    /// Bits of the network.
    pub prefix: u8,
}

impl CniResult {
    /// Parses what a plugin printed. A result without a version is one of the version it was asked for.
    pub(crate) fn parse(json: &[u8], asked: &str) -> Result<Self, String> {
        let value = serde_json::from_slice(json).map_err(|e| format!("not JSON: {e}"))?;
        Self::from_value(value, asked)
    }

    /// The same for a result that was recorded as [`CniResult::raw`].
    pub fn from_value(mut raw: Value, asked: &str) -> Result<Self, String> {
        let Value::Object(fields) = &mut raw else { return Err("not a JSON object".to_owned()) };
        fields.entry("cniVersion").or_insert_with(|| asked.into());
        let result = CniResult::deserialize(&raw).map_err(|e| format!("not a result: {e}"))?;
        let version = SpecVersion::parse(&result.cni_version).map_err(|e| e.to_string())?;
        if version < SpecVersion::OLDEST {
            return Err(format!("a result of version {version} although asked for {asked}"));
        }
        let known = |ip: &Ip| ip.interface.is_none_or(|index| index < result.interfaces.len());
        match result.ips.iter().find(|ip| !known(ip)) {
            Some(ip) => Err(format!("the address {} belongs to no interface", ip.address)),
            None => Ok(Self { raw, ..result }),
        }
    }

    /// The addresses of the interface `ifname`: those that say so, and those that name no interface.
    pub fn addresses(&self, ifname: &str) -> Vec<IpAddr> {
        let belongs = |ip: &&Ip| match ip.interface {
            Some(index) => self.interfaces.get(index).is_some_and(|i| i.name == ifname),
            None => true,
        };
        self.ips.iter().filter(belongs).map(|ip| ip.address.addr).collect()
    }

    /// As a plugin that is spoken to in another version reads it.
    pub(crate) fn in_version(&self, text: &str, version: SpecVersion) -> Value {
        let mut value = self.raw.clone();
        if self.cni_version == text {
            return value;
        }
        value["cniVersion"] = text.into();
        if let Some(Value::Array(ips)) = value.get_mut("ips") {
            for (raw, ip) in ips.iter_mut().zip(&self.ips) {
                let Value::Object(fields) = raw else { continue };
                if version < SpecVersion::V1_0 {
                    let family = if ip.address.addr.is_ipv4() { "4" } else { "6" };
                    fields.insert("version".to_owned(), family.into());
                } else {
                    fields.remove("version");
                }
            }
        }
        value
    }
}

/// Go writes an absent list as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

/// Go reads an empty string as no address.
fn address_or_none<'de, D: Deserializer<'de>>(d: D) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(d)?.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(serde::de::Error::custom),
    }
}

impl IpNet {
    /// The network of one address.
    pub(crate) fn alone(addr: IpAddr) -> Self {
        Self { addr, prefix: if addr.is_ipv4() { 32 } else { 128 } }
    }

    /// The network that the address is in.
    pub(crate) fn network(&self) -> Self {
        let addr = match self.addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4((addr.to_bits() & mask).into())
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((addr.to_bits() & mask).into())
            }
        };
        Self { addr, ..*self }
    }

    /// Is the address in the network?
    pub(crate) fn contains(&self, addr: IpAddr) -> bool {
        let other = Self { addr, ..*self };
        self.addr.is_ipv4() == addr.is_ipv4() && other.network() == self.network()
    }
}

impl FromStr for IpNet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address with a prefix length");
        let (addr, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let addr: IpAddr = addr.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(wrong()) } else { Ok(Self { addr, prefix }) }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl Serialize for IpNet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IpNet {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "result_tests.rs"]
mod tests;
