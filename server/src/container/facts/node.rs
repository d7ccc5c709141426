//! What specs depend on of the node.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::runtime::PosixRlimitType;

use super::mountinfo;
use crate::config::Config;
use crate::container::spec::Node;
use crate::error::Result;
use crate::host::Host;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const HUGEPAGES: &str = "/sys/kernel/mm/hugepages";
/// Options of a cgroup2 mount that the host may depend on.
const CGROUP2_OPTIONS: [&str; 2] = ["nsdelegate", "memory_recursiveprot"];

/// Reads what the spec builder needs to know of the node; once, at start.
///
/// # Errors
/// When the table of mounts cannot be read.
pub(crate) fn node(config: &Config, host: &Host) -> Result<Node> {
    let cgroup2_options = mountinfo::read()?
        .into_iter()
        .filter(|mount| mount.fs_type == "cgroup2" && mount.point == Path::new(CGROUP_ROOT))
        .flat_map(|mount| mount.options.split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter(|option| CGROUP2_OPTIONS.contains(&option.as_str()))
        .collect();
    Ok(Node {
        cgroup_v2: host.cgroup_v2,
        cgroup_driver: host.cgroup_driver,
        scopes_have_oom_policy: host.scopes_have_oom_policy,
        capabilities: host.bounding,
        oom_score_adj_floor: (!host.sys_resource).then_some(host.oom_score_adj),
        swap_limits: swap_limits(host.cgroup_v2),
        hugepage_sizes: if has_hugetlb(host.cgroup_v2) {
            hugepage_sizes()
        } else {
            BTreeSet::new()
        },
        cgroup2_options,
        apparmor: host.apparmor.is_some(),
        devices_of_container: config.device_ownership_from_security_context,
        hard_limits: if host.sys_resource { Vec::new() } else { hard_limits() },
    })
}

/// On v2 the root cgroup has no limits, but each below it, where the memory controller is on.
fn swap_limits(cgroup_v2: bool) -> bool {
    let root = Path::new(CGROUP_ROOT);
    if !cgroup_v2 {
        return root.join("memory/memory.memsw.limit_in_bytes").exists();
    }
    std::fs::read_dir(root).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.path().join("memory.swap.max").exists()))
    })
}

fn has_hugetlb(cgroup_v2: bool) -> bool {
    let root = Path::new(CGROUP_ROOT);
    if !cgroup_v2 {
        return root.join("hugetlb").is_dir();
    }
    std::fs::read_to_string(root.join("cgroup.controllers"))
        .is_ok_and(|list| list.split_whitespace().any(|controller| controller == "hugetlb"))
}

fn hugepage_sizes() -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(HUGEPAGES) else { return BTreeSet::new() };
    entries.filter_map(|entry| page_size(entry.ok()?.file_name().to_str()?)).collect()
}

/// `hugepages-2048kB` is `2MB` to the CRI and to cgroups.
fn page_size(directory: &str) -> Option<String> {
    let kib: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        kib if kib >= 1 << 20 => format!("{}GB", kib >> 20),
        kib if kib >= 1 << 10 => format!("{}MB", kib >> 10),
        kib => format!("{kib}KB"),
    })
}

/// What setrlimit(2) would not let a runtime raise for a container.
fn hard_limits() -> Vec<(PosixRlimitType, u64)> {
    use PosixRlimitType as Kind;
    use rustix::process::{Resource, getrlimit};
    let all = [
        (Kind::RlimitCpu, Resource::Cpu),
        (Kind::RlimitFsize, Resource::Fsize),
        (Kind::RlimitData, Resource::Data),
        (Kind::RlimitStack, Resource::Stack),
        (Kind::RlimitCore, Resource::Core),
        (Kind::RlimitRss, Resource::Rss),
        (Kind::RlimitNproc, Resource::Nproc),
        (Kind::RlimitNofile, Resource::Nofile),
        (Kind::RlimitMemlock, Resource::Memlock),
        (Kind::RlimitAs, Resource::As),
        (Kind::RlimitLocks, Resource::Locks),
        (Kind::RlimitSigpending, Resource::Sigpending),
        (Kind::RlimitMsgqueue, Resource::Msgqueue),
        (Kind::RlimitNice, Resource::Nice),
        (Kind::RlimitRtprio, Resource::Rtprio),
        (Kind::RlimitRttime, Resource::Rttime),
    ];
    all.into_iter()
        .filter_map(|(kind, resource)| Some((kind, getrlimit(resource).maximum?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_sizes_as_the_kubelet_writes_them() {
        for (directory, size) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("hugepages-xkB", None),
            ("other", None),
        ] {
            assert_eq!(page_size(directory).as_deref(), size, "{directory}");
        }
    }
}
