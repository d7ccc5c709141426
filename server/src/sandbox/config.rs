//! What a pod sandbox was asked to be: CRI's PodSandboxConfig, parsed once at the edge.
//!
//! Field names follow the CRI so that the JSON form is what users know from `crictl inspectp`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::config::{GroupsPolicy, SecurityProfile, SelinuxOption, UsernsOptions};

/// A checked PodSandboxConfig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SandboxConfig {
    pub metadata: SandboxMetadata,
    /// Empty: derived from the id, or the node's own name for a pod in the host's network.
    pub hostname: String,
    /// Empty: containers of this pod are not logged.
    pub log_directory: String,
    /// `None`: the host's resolv.conf.
    pub dns_config: Option<DnsConfig>,
    pub port_mappings: Vec<PortMapping>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
    pub privileged: bool,
    pub namespaces: PodNamespaces,
    pub security: SandboxSecurity,
    /// Stored for status and for shims that size a VM by it.
    pub overhead: Option<crate::container::config::Resources>,
    /// Sum over the pod's containers, stored likewise.
    pub resources: Option<crate::container::config::Resources>,
}

/// What every pod with a network of its own gets unless it says otherwise, as from the field's runtimes: any
/// user in it may serve port 80 and send pings.
const DEFAULT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

impl SandboxConfig {
    /// The sysctls to set in the pod's namespaces: those asked for, and the defaults.
    pub(crate) fn effective_sysctls(&self) -> BTreeMap<String, String> {
        let mut sysctls = BTreeMap::new();
        // In a user namespace the range of groups would have to be mapped.
        if self.namespaces.network == PodOrHost::Pod && self.security.userns.is_none() {
            sysctls.extend(DEFAULT_SYSCTLS.map(|(name, value)| (name.into(), value.into())));
        }
        sysctls.extend(self.sysctls.clone());
        sysctls
    }
}

/// The rest of LinuxSandboxSecurityContext. A pod made of namespaces has no process of its own that would run
/// as this user; sandboxes that have one (VMs, gVisor) read it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SandboxSecurity {
    pub selinux: Option<SelinuxOption>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub readonly_rootfs: bool,
    pub supplemental_groups: Vec<i64>,
    pub supplemental_groups_policy: GroupsPolicy,
    pub seccomp: Option<SecurityProfile>,
    pub apparmor: Option<SecurityProfile>,
    /// Set when the pod has a user namespace.
    pub userns: Option<UsernsOptions>,
}

/// (namespace, uid, name, attempt) names a sandbox instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SandboxMetadata {
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub attempt: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DnsConfig {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub host_port: u16,
    pub host_ip: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// Which namespaces the pod shares with whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodNamespaces {
    pub network: PodOrHost,
    pub ipc: PodOrHost,
    pub pid: PodPid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PodOrHost {
    Pod,
    Host,
}

/// CRI's pid mode at the level of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PodPid {
    /// One for each container.
    Container,
    /// One for the pod: shareProcessNamespace.
    Pod,
    Host,
}
