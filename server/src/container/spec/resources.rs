//! Limits: CRI's resources as the OCI spec writes them, and changes to them.

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use super::super::config::Resources;
use super::{Input, Node, devices};
use crate::error::{Error, Result};

/// For a new container.
pub(super) fn with_devices(input: &Input<'_>) -> Result<LinuxResources> {
    let mut all = limits(&input.config.resources, input.node)?;
    all.set_devices(Some(devices::cgroup_rules(input)));
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
    if !resources.unified.is_empty() {
        let unified = resources.unified.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        all.set_unified(Some(unified));
    }
    Ok(all)
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
