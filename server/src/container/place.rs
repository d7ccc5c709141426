//! Where a container lives: all that it needs to know of its sandbox, without naming it.
//!
//! The sandbox fills this in when it creates a container, so `container` never depends on `sandbox`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::{Resources, UsernsOptions};
use crate::host::selinux::Labels;

/// The pod's side of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub sandbox_id: String,
    pub sandbox_name: String,
    pub sandbox_namespace: String,
    pub sandbox_uid: String,
    pub sandbox_annotations: BTreeMap<String, String>,
    /// Sum over the pod's containers, where the kubelet tells it.
    #[serde(default)]
    pub sandbox_resources: Option<Resources>,
    /// Where the pod's log files are; empty: none.
    pub log_directory: String,
    /// The pod's parent cgroup as the kubelet named it; empty: the default.
    pub cgroup_parent: String,
    pub privileged: bool,
    pub hostname: String,
    pub host_network: bool,
    pub host_ipc: bool,
    pub host_pid: bool,
    /// Namespace paths to join; `None`: the host's.
    pub netns: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    /// The pod's shared pid namespace, where it has one.
    pub pid: Option<PathBuf>,
    /// The SELinux labels of the pod, where the node has it.
    #[serde(default)]
    pub selinux: Option<Labels>,
    #[serde(default)]
    pub user: Option<PathBuf>,
    /// What ids of that namespace are outside of it.
    #[serde(default)]
    pub users: Option<UsernsOptions>,
    /// The pod's directory: `shm`, `hostname`, `hosts`, `resolv.conf`.
    pub dir: PathBuf,
}
