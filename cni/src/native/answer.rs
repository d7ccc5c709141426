//! Writes results as executables print them.

use serde_json::{Map, Value, json};

use super::Job;
use crate::error::Result;
use crate::link::Link;
use crate::result::{CniResult, Interface, Ip, IpNet, Route};
use crate::version::SpecVersion;

/// What was made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) ips: Vec<Ip>,
    pub(crate) routes: Vec<Route>,
    /// The resolver configuration, as it is to be printed.
    pub(crate) dns: Option<Value>,
}

/// A link, in the network namespace at that path; on the node, where it is empty.
pub(crate) fn interface_of(link: &Link, sandbox: String) -> Interface {
    let (name, mac) = (link.name.clone(), link.mac.to_string());
    Interface { name, mac, sandbox, ..Interface::default() }
}

impl Made {
    /// In the version of the network.
    pub(crate) fn into_result(self, job: &Job<'_>) -> Result<CniResult> {
        let mut all = Map::new();
        all.insert("cniVersion".to_owned(), job.cni_version.into());
        let ip = |ip: &Ip| address(ip, job.version);
        for (key, values) in [
            ("interfaces", self.interfaces.iter().map(interface).collect::<Vec<_>>()),
            ("ips", self.ips.iter().map(ip).collect()),
            ("routes", self.routes.iter().map(route).collect()),
        ] {
            if !values.is_empty() {
                all.insert(key.to_owned(), values.into());
            }
        }
        // An empty one was always there once, and is left out since.
        let empty = (job.version < SpecVersion::V1_0).then(|| json!({}));
        if let Some(dns) = self.dns.filter(|dns| *dns != json!({})).or(empty) {
            all.insert("dns".to_owned(), dns);
        }
        CniResult::from_value(Value::Object(all), job.cni_version).map_err(|e| job.refused(e))
    }
}

fn interface(interface: &Interface) -> Value {
    let mut all = json!({ "name": interface.name });
    for (key, value) in [("mac", &interface.mac), ("sandbox", &interface.sandbox)] {
        if !value.is_empty() {
            all[key] = value.as_str().into();
        }
    }
    all
}

fn address(ip: &Ip, version: SpecVersion) -> Value {
    let mut all = json!({ "address": ip.address });
    if version < SpecVersion::V1_0 {
        all["version"] = if ip.address.addr.is_ipv4() { "4" } else { "6" }.into();
    }
    if let Some(index) = ip.interface {
        all["interface"] = index.into();
    }
    if let Some(gateway) = ip.gateway {
        all["gateway"] = gateway.to_string().into();
    }
    all
}

fn route(route: &Route) -> Value {
    let mut all = json!({ "dst": route.dst });
    if let Some(gateway) = route.gw {
        all["gw"] = gateway.to_string().into();
    }
    all
}

/// A route of the two things that all versions of the specification know.
pub(crate) fn plain_route(dst: IpNet, gw: Option<std::net::IpAddr>) -> Route {
    Route { dst, gw, mtu: None, advmss: None, priority: None, table: None, scope: None }
}
