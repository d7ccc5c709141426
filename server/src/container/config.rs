//! What a container was asked to be: CRI's ContainerConfig, parsed once at the edge.
//!
//! Field names follow the CRI so that the JSON form is what users know from `crictl inspect`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::selinux::Wish;

/// A checked ContainerConfig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContainerConfig {
    pub metadata: ContainerMetadata,
    pub image: ImageSpec,
    /// Replaces the image's entrypoint (and drops its command) when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    pub working_dir: String,
    pub envs: Vec<EnvVar>,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Below the sandbox's log directory; empty: not logged.
    pub log_path: String,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: Security,
    pub cdi_devices: Vec<String>,
    /// Signal number; `None`: the image's, else SIGTERM.
    pub stop_signal: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ContainerMetadata {
    pub name: String,
    pub attempt: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageSpec {
    /// As the client named it: the id that PullImage returned, or any other form of reference.
    pub image: String,
    pub annotations: BTreeMap<String, String>,
    pub user_specified_image: String,
    pub runtime_handler: String,
}

/// The value is bytes: a variable need not be UTF-8 (CRI KeyValue.value).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnvVar {
    pub key: String,
    #[serde(with = "text_or_bytes")]
    pub value: Vec<u8>,
}

/// Bytes that read as text where they are text.
mod text_or_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => to.serialize_str(text),
            Err(_) => bytes.serialize(to),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub container_path: String,
    pub host_path: String,
    pub readonly: bool,
    pub recursive_read_only: bool,
    pub selinux_relabel: bool,
    pub propagation: Propagation,
    /// Set for an image volume: a reference to the image to mount.
    pub image: Option<ImageSpec>,
    pub image_sub_path: String,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub mount_options: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMapping {
    pub host_id: u32,
    pub container_id: u32,
    pub length: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Propagation {
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Device {
    pub container_path: String,
    pub host_path: String,
    /// Any of `r`, `w`, `m`.
    pub permissions: String,
}

/// CRI LinuxContainerResources. Zero means "not set", as there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resources {
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds; −1: unlimited.
    pub cpu_quota: i64,
    pub cpu_shares: i64,
    /// Bytes.
    pub memory_limit_in_bytes: i64,
    pub oom_score_adj: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub hugepage_limits: Vec<HugepageLimit>,
    /// cgroup v2 files and their values, passed through.
    pub unified: BTreeMap<String, String>,
    /// Bytes; −1: unlimited.
    pub memory_swap_limit_in_bytes: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HugepageLimit {
    pub page_size: String,
    pub limit: u64,
}

/// CRI LinuxContainerSecurityContext.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Security {
    pub privileged: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub add_ambient_capabilities: Vec<String>,
    pub pid: PidMode,
    pub selinux: Option<SelinuxOption>,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_username: String,
    pub readonly_rootfs: bool,
    pub supplemental_groups: Vec<i64>,
    pub supplemental_groups_policy: GroupsPolicy,
    pub apparmor: Option<SecurityProfile>,
    pub seccomp: Option<SecurityProfile>,
    pub no_new_privs: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// Set only when the container asks for a user namespace of its pod.
    pub userns: Option<UsernsOptions>,
}

/// Where a container's pid namespace comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PidMode {
    #[default]
    Container,
    Pod,
    Host,
    /// That of another container of the same sandbox (ephemeral containers); a full id.
    Target(String),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GroupsPolicy {
    #[default]
    Merge,
    Strict,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelinuxOption {
    pub user: String,
    pub role: String,
    pub r#type: String,
    pub level: String,
}

impl SelinuxOption {
    /// What it asks for.
    pub(crate) fn wish(&self) -> Wish<'_> {
        Wish { user: &self.user, role: &self.role, kind: &self.r#type, level: &self.level }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SecurityProfile {
    RuntimeDefault,
    Unconfined,
    /// The profile's name (AppArmor) or absolute path (seccomp).
    Localhost(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsernsOptions {
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

impl UsernsOptions {
    /// What the host calls the namespace's root and its group.
    pub(crate) fn root(&self) -> (u32, u32) {
        let host = |mappings: &[IdMapping]| mappings.first().map_or(0, |mapping| mapping.host_id);
        (host(&self.uids), host(&self.gids))
    }
}
