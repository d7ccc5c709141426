//! What is attached: a container's interface, and what the runtime wants of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Engines;
use crate::error::{Error, Result};

/// No interface name in Linux is longer.
const MAX_IFNAME: usize = 15;

/// Whether Linux has an interface of that name.
pub(crate) fn is_ifname(name: &str) -> bool {
    let odd = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    !name.is_empty()
        && name.len() <= MAX_IFNAME
        && name != "."
        && name != ".."
        && !name.contains(odd)
}

/// One interface of one container. Serializable, so that a caller can record it with its network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The id of the sandbox, `CNI_CONTAINERID`.
    pub container_id: String,
    /// Its network namespace. DEL works without: after a reboot there is none.
    pub netns: Option<PathBuf>,
    /// The name that the interface gets in it, `eth0` as a rule.
    pub ifname: String,
    /// `CNI_ARGS`, in this order.
    pub args: Vec<(String, String)>,
    /// What goes to the plugins that declare it.
    pub capabilities: Capabilities,
    /// Who writes its rules, and takes them away. Where it is not recorded, DEL looks for them everywhere.
    #[serde(default)]
    pub engines: Engines,
}

impl Attachment {
    /// The interface `eth0` of a Kubernetes pod, with the arguments that plugins expect for one.
    pub fn for_pod(container_id: &str, namespace: &str, name: &str, uid: &str) -> Self {
        let args = [
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAMESPACE", namespace),
            ("K8S_POD_NAME", name),
            ("K8S_POD_INFRA_CONTAINER_ID", container_id),
            ("K8S_POD_UID", uid),
        ];
        Self {
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
            args: args.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            ..Self::default()
        }
    }

    /// Checks what ends up in file names and in the plugins' environment, as libcni does.
    pub(crate) fn validate(&self) -> Result<()> {
        if !is_valid_name(&self.container_id) {
            return Err(Error::invalid(format!("{:?} is not a container id", self.container_id)));
        }
        let name = &self.ifname;
        if !is_ifname(name) {
            return Err(Error::invalid(format!("{name:?} is not a name for an interface")));
        }
        for (key, value) in &self.args {
            if key.is_empty() || key.contains(['=', ';', '\0']) || value.contains([';', '\0']) {
                return Err(Error::invalid(format!(
                    "{key}={value:?} cannot be passed in CNI_ARGS"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn args_variable(&self) -> String {
        let pairs: Vec<_> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }
}

/// What the runtime asks of plugins at run time. Each reaches only the plugins that declare it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Ports of the host that lead to the pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// Limits on the pod's traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// The pod's resolver configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
    /// Addresses to choose from: one address per inner list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_ranges: Vec<Vec<IpRange>>,
    /// Addresses that the pod is to have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    /// The hardware address that the interface is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The pod's cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// The pod's annotations.
    #[serde(
        rename = "io.kubernetes.cri.pod-annotations",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub pod_annotations: BTreeMap<String, String>,
    /// Any others, by name.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Capabilities {
    /// By the names that plugins declare.
    pub(crate) fn by_name(&self) -> BTreeMap<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// One port of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`; plugins want it in lower case.
    pub protocol: String,
    /// The host's address; all if empty.
    #[serde(rename = "hostIP", default, skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// Rates in bits per second, bursts in bits; zero means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Into the pod.
    pub ingress_rate: u64,
    /// Into the pod.
    pub ingress_burst: u64,
    /// Out of the pod.
    pub egress_rate: u64,
    /// Out of the pod.
    pub egress_burst: u64,
}

/// A resolver configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// A range of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IpRange {
    /// The subnet in CIDR notation.
    pub subnet: String,
    /// The first address, if not the subnet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_start: Option<String>,
    /// The last address, if not the subnet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range_end: Option<String>,
    /// The gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

/// Names of networks and containers: a letter or digit, then letters, digits, `_`, `.` and `-`.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let rest = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.iter().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_or_variable_are_refused() {
        let good = Attachment::for_pod("0123abc", "default", "web", "uid-1");
        good.validate().unwrap();
        for id in ["", "../x", "a/b", "-a", "a b", "a\n"] {
            assert!(
                Attachment { container_id: id.into(), ..good.clone() }.validate().is_err(),
                "{id:?}"
            );
        }
        for name in ["", ".", "..", "a/b", "a:b", "a b", "0123456789abcdef"] {
            assert!(
                Attachment { ifname: name.into(), ..good.clone() }.validate().is_err(),
                "{name:?}"
            );
        }
        for (key, value) in [("", "x"), ("a=b", "x"), ("a;b", "x"), ("a", "x;K8S_POD_NAME=other")] {
            let args = vec![(key.to_owned(), value.to_owned())];
            assert!(Attachment { args, ..good.clone() }.validate().is_err(), "{key:?}");
        }
        let args = good.args_variable();
        assert!(
            args.starts_with("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;"),
            "{args}"
        );
    }

    #[test]
    fn capabilities_have_the_names_of_the_conventions() {
        let capabilities = Capabilities {
            port_mappings: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: "tcp".into(),
                host_ip: String::new(),
            }],
            bandwidth: Some(Bandwidth { ingress_rate: 1, ..Bandwidth::default() }),
            ip_ranges: vec![vec![IpRange { subnet: "10.0.0.0/24".into(), ..IpRange::default() }]],
            cgroup_path: Some("/kubepods/x".into()),
            pod_annotations: BTreeMap::from([("a".into(), "b".into())]),
            other: BTreeMap::from([("deviceID".into(), "0000:01".into())]),
            ..Capabilities::default()
        };
        let expected = serde_json::json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 1, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
            "ipRanges": [[{"subnet": "10.0.0.0/24"}]],
            "cgroupPath": "/kubepods/x",
            "io.kubernetes.cri.pod-annotations": {"a": "b"},
            "deviceID": "0000:01",
        });
        assert_eq!(serde_json::to_value(capabilities.by_name()).unwrap(), expected);
        assert_eq!(serde_json::from_value::<Capabilities>(expected).unwrap(), capabilities);
        assert!(Capabilities::default().by_name().is_empty());
    }
}
