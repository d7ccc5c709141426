//! Limits: CRI's resources as the OCI spec writes them, and changes to them.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

use super::super::config::Resources;
use super::{Input, Node, devices};
use crate::config::CgroupDriver;
use crate::error::{Error, Result};

const UNLIMITED: i64 = -1;
/// Microseconds; the kernel's own.
const PERIOD: i64 = 100_000;
/// More than there are.
const PROCESSORS: i64 = 1_000_000;

/// For a new container.
pub(super) fn with_devices(input: &Input<'_>) -> Result<LinuxResources> {
    let mut all = limits(&input.config.resources, input.node)?;
    all.set_devices(Some(devices::cgroup_rules(input)));
    // systemd would set a share of the node's as the limit of a scope for which none is named.
    if input.node.cgroup_driver == CgroupDriver::Systemd
        && !input.config.resources.unified.contains_key("pids.max")
    {
        let mut none = LinuxPids::default();
        none.set_limit(UNLIMITED);
        all.set_pids(Some(none));
    }
    all.set_block_io(input.facts.block_io.clone());
    Ok(all)
}

/// For a running container: limits only. A field that is zero in ours stays unset, which leaves it as it is.
///
/// # Errors
/// `Invalid` where the node's cgroups cannot do what is asked.
pub(crate) fn limits(resources: &Resources, node: &Node) -> Result<LinuxResources> {
    if !resources.unified.is_empty() && !node.cgroup_v2 {
        return Err(Error::invalid("linux.resources.unified", "needs cgroup v2, this node has v1"));
    }
    let mut all = LinuxResources::default();
    all.set_cpu(Some(cpu(resources))).set_memory(Some(memory(resources, node)));
    // The kubelet names every page size that the kernel has, limited or not.
    let hugepages: Vec<_> = resources
        .hugepage_limits
        .iter()
        .filter(|limit| node.hugepage_sizes.contains(&limit.page_size))
        .map(|asked| {
            let mut limit = LinuxHugepageLimit::default();
            limit
                .set_page_size(asked.page_size.clone())
                .set_limit(i64::try_from(asked.limit).unwrap_or(i64::MAX));
            limit
        })
        .collect();
    if !hugepages.is_empty() {
        all.set_hugepage_limits(Some(hugepages));
    }
    let mut unified: HashMap<String, String> =
        resources.unified.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    if node.cgroup_driver == CgroupDriver::Systemd && node.cgroup_v2 {
        tell_of_swap(&mut all, &mut unified);
    }
    if !unified.is_empty() {
        all.set_unified(Some(unified));
    }
    Ok(all)
}

/// As v2 has it, without the memory. Of the sum runc tells systemd nothing where no swap is left of it, and crun the sum:
/// systemd would then give the container swap as soon as it writes the scope's limits again.
fn tell_of_swap(all: &mut LinuxResources, unified: &mut HashMap<String, String>) {
    let Some(mut memory) = *all.memory() else { return };
    let Some(sum) = memory.swap() else { return };
    let swap = match (sum, memory.limit()) {
        (sum, Some(limit)) if sum >= 0 && limit >= 0 => (sum - limit).max(0).to_string(),
        (sum, _) if sum >= 0 => sum.to_string(),
        _ => "max".to_owned(),
    };
    memory.set_swap(None);
    all.set_memory(Some(memory));
    unified.entry("memory.swap.max".to_owned()).or_insert(swap);
}

/// The limits of a running container, to be told to systemd: crun has no word for a processor without a quota, so one
/// is named that is as good as none.
pub(crate) fn for_systemd(resources: &Resources) -> Resources {
    let cpu_period = if resources.cpu_period == 0 { PERIOD } else { resources.cpu_period };
    let cpu_quota =
        if resources.cpu_quota < 0 { cpu_period * PROCESSORS } else { resources.cpu_quota };
    Resources { cpu_quota, ..resources.clone() }
}

fn cpu(resources: &Resources) -> LinuxCpu {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(positive(resources.cpu_shares))
        .set_period(positive(resources.cpu_period))
        .set_quota(Some(resources.cpu_quota).filter(|quota| *quota != 0))
        .set_cpus(text(&resources.cpuset_cpus))
        .set_mems(text(&resources.cpuset_mems));
    cpu
}

/// Without a word on swap, none may be used beyond the memory limit.
fn memory(resources: &Resources, node: &Node) -> LinuxMemory {
    let limit = Some(resources.memory_limit_in_bytes).filter(|limit| *limit != 0);
    let swap = Some(resources.memory_swap_limit_in_bytes).filter(|swap| *swap != 0).or(limit);
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit).set_swap(swap.filter(|_| node.swap_limits));
    memory
}

fn positive(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value != 0)
}

/// A change back to `old`, for systemd, which keeps what it was told: what only `refused` sets is said to be unlimited.
pub(crate) fn undo(old: &Resources, refused: &Resources) -> Resources {
    const SHARES: i64 = 1024;
    let number = |old: i64, refused: i64, none: i64| match (old, refused) {
        (0, refused) if refused != 0 => none,
        _ => old,
    };
    Resources {
        cpu_period: number(old.cpu_period, refused.cpu_period, PERIOD),
        cpu_quota: number(old.cpu_quota, refused.cpu_quota, UNLIMITED),
        cpu_shares: number(old.cpu_shares, refused.cpu_shares, SHARES),
        memory_limit_in_bytes: number(
            old.memory_limit_in_bytes,
            refused.memory_limit_in_bytes,
            UNLIMITED,
        ),
        memory_swap_limit_in_bytes: number(
            old.memory_swap_limit_in_bytes,
            refused.memory_swap_limit_in_bytes,
            UNLIMITED,
        ),
        ..old.clone()
    }
}

/// `old` with what `update` sets; zero and empty mean unchanged. Files of `unified` are replaced one by one.
pub(crate) fn merge(old: &Resources, update: &Resources) -> Resources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &String, new: &String| if new.is_empty() { old.clone() } else { new.clone() };
    let mut unified = old.unified.clone();
    unified.extend(update.unified.iter().map(|(file, value)| (file.clone(), value.clone())));
    let mut hugepage_limits = old.hugepage_limits.clone();
    for new in &update.hugepage_limits {
        match hugepage_limits.iter_mut().find(|limit| limit.page_size == new.page_size) {
            Some(limit) => limit.limit = new.limit,
            None => hugepage_limits.push(new.clone()),
        }
    }
    // Where swap was bounded by the memory limit alone, it goes on being so.
    let follows = old.memory_swap_limit_in_bytes == old.memory_limit_in_bytes;
    let swap = match update.memory_swap_limit_in_bytes {
        0 if follows => update.memory_limit_in_bytes,
        said => said,
    };
    Resources {
        cpu_period: number(old.cpu_period, update.cpu_period),
        cpu_quota: number(old.cpu_quota, update.cpu_quota),
        cpu_shares: number(old.cpu_shares, update.cpu_shares),
        memory_limit_in_bytes: number(old.memory_limit_in_bytes, update.memory_limit_in_bytes),
        oom_score_adj: number(old.oom_score_adj, update.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &update.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &update.cpuset_mems),
        hugepage_limits,
        unified,
        memory_swap_limit_in_bytes: number(old.memory_swap_limit_in_bytes, swap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swap(limit: i64, sum: i64, unified: &str) -> (Option<i64>, String) {
        let mut all = LinuxResources::default();
        let mut memory = LinuxMemory::default();
        memory.set_limit(Some(limit).filter(|limit| *limit != 0)).set_swap(Some(sum));
        all.set_memory(Some(memory));
        let mut files = HashMap::new();
        if !unified.is_empty() {
            files.insert("memory.swap.max".to_owned(), unified.to_owned());
        }
        tell_of_swap(&mut all, &mut files);
        (all.memory().as_ref().unwrap().swap(), files.remove("memory.swap.max").unwrap())
    }

    #[test]
    fn systemd_is_told_of_swap_without_the_memory() {
        for (limit, sum, unified, told) in [
            (64, 64, "", "0"),
            (64, 100, "", "36"),
            (64, 60, "", "0"),
            (64, -1, "", "max"),
            (-1, -1, "", "max"),
            (0, 100, "", "100"),
            (64, 64, "7", "7"),
        ] {
            assert_eq!(swap(limit, sum, unified), (None, told.to_owned()), "{limit} {sum}");
        }
    }

    #[test]
    fn a_refused_change_is_undone_with_what_was_not_set_before() {
        let old = Resources { cpu_shares: 7, ..Resources::default() };
        let refused = Resources { cpu_shares: 9, cpu_quota: 5, ..Resources::default() };
        let back = undo(&old, &refused);
        assert_eq!((back.cpu_shares, back.cpu_quota, back.cpu_period), (7, UNLIMITED, 0));
        assert_eq!(back.memory_limit_in_bytes, 0, "nobody touched it");
        assert_eq!(for_systemd(&back).cpu_quota, PERIOD * PROCESSORS);
    }
}
