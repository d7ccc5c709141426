//! What a spec depends on of the node, read once at start by `container/facts.rs`.

use std::collections::BTreeSet;

use oci_spec::runtime::PosixRlimitType;

use crate::config::CgroupDriver;

/// The node, as far as a container's spec is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub cgroup_v2: bool,
    pub cgroup_driver: CgroupDriver,
    /// Whether systemd's scopes have a policy for when memory runs out.
    pub scopes_have_oom_policy: bool,
    /// The capabilities that we hold and may hand on, bit n for capability n.
    pub capabilities: u64,
    /// Where `oom_score_adj` cannot be lowered: the value below which nothing can go.
    pub oom_score_adj_floor: Option<i32>,
    /// Whether cgroups limit swap.
    pub swap_limits: bool,
    /// Page sizes that can be limited, as the CRI writes them (`2MB`); empty without a hugetlb controller.
    pub hugepage_sizes: BTreeSet<String>,
    /// Options of the host's cgroup2 mount that a container in the host's cgroup namespace must repeat, since
    /// mounting cgroup2 there sets them for the one shared superblock.
    pub cgroup2_options: Vec<String>,
    pub apparmor: bool,
    /// Whether devices asked for belong to the container's user, not to whom the host's belong.
    pub devices_of_container: bool,
    /// Our own hard limits, where we cannot raise them; what is not here has none.
    pub hard_limits: Vec<(PosixRlimitType, u64)>,
}
