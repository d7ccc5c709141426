//! LinuxContainerResources.

use api::cri::v1;

use super::{no_nul, required};
use crate::container::config::{HugepageLimit, Resources};
use crate::error::{Error, Result};

/// Limits of a container or a pod; zero means not set.
///
/// # Errors
/// `Invalid` for values that no kernel takes.
pub(in crate::cri) fn resources(limits: v1::LinuxContainerResources) -> Result<Resources> {
    at_least("cpu_period", limits.cpu_period, 0)?;
    at_least("cpu_quota", limits.cpu_quota, -1)?;
    at_least("cpu_shares", limits.cpu_shares, 0)?;
    at_least("memory_limit_in_bytes", limits.memory_limit_in_bytes, -1)?;
    at_least("memory_swap_limit_in_bytes", limits.memory_swap_limit_in_bytes, -1)?;
    if !(-1000..=1000).contains(&limits.oom_score_adj) {
        let reason = format!("{} is not from -1000 to 1000", limits.oom_score_adj);
        return Err(Error::invalid("oom_score_adj", reason));
    }
    cpuset("cpuset_cpus", &limits.cpuset_cpus)?;
    cpuset("cpuset_mems", &limits.cpuset_mems)?;
    for (file, value) in &limits.unified {
        let field = format!("unified[{file:?}]");
        required(&field, file)?;
        no_nul(&field, value)?;
        // A slash would reach another cgroup's file (CVE-2023-6476 and its kind).
        if file.starts_with('.') || file.contains(|c: char| c == '/' || c.is_control()) {
            return Err(Error::invalid(field, "must be the name of a cgroup file"));
        }
    }
    let hugepage_limits = limits
        .hugepage_limits
        .into_iter()
        .enumerate()
        .map(|(i, limit)| {
            page_size(&format!("hugepage_limits[{i}].page_size"), &limit.page_size)?;
            Ok(HugepageLimit { page_size: limit.page_size, limit: limit.limit })
        })
        .collect::<Result<_>>()?;
    Ok(Resources {
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory_limit_in_bytes,
        oom_score_adj: limits.oom_score_adj,
        cpuset_cpus: limits.cpuset_cpus,
        cpuset_mems: limits.cpuset_mems,
        hugepage_limits,
        unified: limits.unified,
        memory_swap_limit_in_bytes: limits.memory_swap_limit_in_bytes,
    })
}

fn at_least(field: &str, value: i64, least: i64) -> Result<()> {
    if value < least {
        return Err(Error::invalid(field, format!("{value} is less than {least}")));
    }
    Ok(())
}

/// `0-2,7`.
fn cpuset(field: &str, list: &str) -> Result<()> {
    if list.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-')) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{list:?} is no list of numbers and ranges")))
}

/// `64KB`, `2MB`, `1GB`.
fn page_size(field: &str, size: &str) -> Result<()> {
    let digits = size.strip_suffix('B').and_then(|size| size.strip_suffix(['K', 'M', 'G']));
    if digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())) {
        return Ok(());
    }
    Err(Error::invalid(field, format!("{size:?} is no page size such as 2MB")))
}
