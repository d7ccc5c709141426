//! What of a cgroup only dashboards ask for.

use std::sync::OnceLock;

/// Beyond a usage. What the kernel does not tell is 0, or not in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// Nanoseconds in programs and in the kernel.
    pub user: u64,
    pub system: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled: u64,
    /// Bytes of the kernel for this cgroup.
    pub kernel_memory: u64,
    /// The most that was ever used, in bytes.
    pub peak_memory: u64,
    /// How often the limit was run into.
    pub limit_hits: u64,
    /// Processes that were killed for want of memory.
    pub oom_kills: u64,
    /// Bytes that are kept for it while memory is short.
    pub reservation: u64,
    /// How many tasks it may have.
    pub tasks_limit: Option<u64>,
    pub io: Vec<DeviceIo>,
    pub huge: Vec<Huge>,
}

/// What went to and came from one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    pub read: Work,
    pub write: Work,
}

/// Of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub bytes: u64,
    pub requests: u64,
}

/// Huge pages of one size, as `2MB`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Huge {
    pub size: String,
    /// Bytes.
    pub usage: u64,
    pub peak: u64,
}

/// The sizes of huge pages that this kernel has, as cgroups name them. They do not change while it runs.
pub(super) fn huge_sizes() -> &'static [String] {
    static SIZES: OnceLock<Vec<String>> = OnceLock::new();
    SIZES.get_or_init(read_huge_sizes)
}

fn read_huge_sizes() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let mut sizes: Vec<String> =
        entries.filter_map(|entry| size_name(entry.ok()?.file_name().to_str()?)).collect();
    sizes.sort();
    sizes
}

/// `hugepages-2048kB` is `2MB`.
fn size_name(directory: &str) -> Option<String> {
    const UNITS: [(&str, u64); 2] = [("GB", 1 << 20), ("MB", 1 << 10)];
    let kilobytes: u64 = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    let unit = UNITS.iter().find(|(_, size)| kilobytes >= *size && kilobytes.is_multiple_of(*size));
    Some(
        unit.map_or(format!("{kilobytes}KB"), |(name, size)| format!("{}{name}", kilobytes / size)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_pages_as_cgroups_name_them() {
        for (directory, name) in [
            ("hugepages-64kB", Some("64KB")),
            ("hugepages-2048kB", Some("2MB")),
            ("hugepages-1048576kB", Some("1GB")),
            ("other", None),
        ] {
            assert_eq!(size_name(directory).as_deref(), name);
        }
    }
}
