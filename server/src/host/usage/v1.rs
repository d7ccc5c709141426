//! cgroup v1: a directory in each controller's hierarchy, which may be mounted together or not at all.

use std::path::Path;

use super::details::{Details, DeviceIo, Huge, huge_sizes};
use super::files::Files;
use super::text::{bounded, found, number, the_number, values};
use super::{Memory, Usage, Work, directory};

/// USER_HZ: cpuacct.stat counts in it on every architecture.
const NANOS_PER_TICK: u64 = 10_000_000;

/// The cgroup's directory in each hierarchy that has it.
#[derive(Debug)]
pub(super) struct Directories {
    cpuacct: Option<Files>,
    cpu: Option<Files>,
    memory: Option<Files>,
    pids: Option<Files>,
    blkio: Option<Files>,
    hugetlb: Option<Files>,
}

impl Directories {
    /// `None` if no hierarchy has it.
    pub(super) fn open(root: &Path, relative: &Path) -> Option<Self> {
        let open = |controller: &str| directory(&root.join(controller).join(relative));
        let dirs = Self {
            cpuacct: open("cpuacct"),
            cpu: open("cpu"),
            memory: open("memory"),
            pids: open("pids"),
            blkio: open("blkio"),
            hugetlb: open("hugetlb"),
        };
        dirs.any().is_some().then_some(dirs)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Files> {
        let all = [&self.pids, &self.cpuacct, &self.memory, &self.cpu, &self.blkio, &self.hugetlb];
        all.into_iter().flatten()
    }

    /// One of them: the processes are the same in all.
    pub(super) fn any(&self) -> Option<&Files> {
        self.all().next()
    }
}

pub(super) fn usage(dirs: &Directories) -> Option<Usage> {
    Some(Usage {
        cpu: number(dirs.cpuacct.as_ref()?, "cpuacct.usage")?,
        memory: dirs.memory.as_ref().and_then(memory).unwrap_or_default(),
        tasks: dirs.pids.as_ref().and_then(|dir| number(dir, "pids.current")),
        ..Usage::default()
    })
}

fn memory(dir: &Files) -> Option<Memory> {
    let stat = dir.read("memory.stat")?;
    let [rss, cache, mapped_file, inactive_file, faults, major_faults] = values(
        &stat,
        [
            "total_rss",
            "total_cache",
            "total_mapped_file",
            "total_inactive_file",
            "total_pgfault",
            "total_pgmajfault",
        ],
    );
    let [limit, with_swap, swap] =
        found(&stat, ["hierarchical_memory_limit", "hierarchical_memsw_limit", "total_swap"]);
    let limit = limit.and_then(bounded);
    Some(Memory {
        usage: number(dir, "memory.usage_in_bytes")?,
        limit,
        inactive_file,
        rss,
        cache,
        mapped_file,
        faults,
        major_faults,
        swap,
        // One limit is of memory, the other of both together.
        swap_limit: with_swap
            .and_then(bounded)
            .zip(limit)
            .map(|(both, one)| both.saturating_sub(one)),
    })
}

pub(super) fn details(dirs: &Directories) -> Details {
    let text = |dir: &Option<Files>, name: &'static str| {
        dir.as_ref().and_then(|dir| dir.read(name)).unwrap_or_default()
    };
    let count = |dir: &Option<Files>, name: &'static str| {
        dir.as_ref().and_then(|dir| number(dir, name)).unwrap_or_default()
    };
    let [user, system] = values(&text(&dirs.cpuacct, "cpuacct.stat"), ["user", "system"]);
    let [periods, throttled_periods, throttled] =
        values(&text(&dirs.cpu, "cpu.stat"), ["nr_periods", "nr_throttled", "throttled_time"]);
    let [oom_kills] = values(&text(&dirs.memory, "memory.oom_control"), ["oom_kill"]);
    Details {
        user: user.saturating_mul(NANOS_PER_TICK),
        system: system.saturating_mul(NANOS_PER_TICK),
        periods,
        throttled_periods,
        throttled,
        kernel_memory: count(&dirs.memory, "memory.kmem.usage_in_bytes"),
        peak_memory: count(&dirs.memory, "memory.max_usage_in_bytes"),
        limit_hits: count(&dirs.memory, "memory.failcnt"),
        oom_kills,
        reservation: count(&dirs.memory, "memory.soft_limit_in_bytes"),
        tasks_limit: dirs.pids.as_ref().and_then(|dir| number(dir, "pids.max")),
        io: devices(
            &text(&dirs.blkio, "blkio.throttle.io_service_bytes"),
            &text(&dirs.blkio, "blkio.throttle.io_serviced"),
        ),
        huge: dirs.hugetlb.as_ref().map(huge).unwrap_or_default(),
    }
}

fn huge(dir: &Files) -> Vec<Huge> {
    let of = |size: &String| {
        let of = |what| {
            let text = dir.read_once(&format!("hugetlb.{size}.{what}_in_bytes"));
            text.and_then(|text| the_number(&text))
        };
        let usage = of("usage")?;
        let peak = of("max_usage").unwrap_or(usage);
        Some(Huge { size: size.clone(), usage, peak })
    };
    huge_sizes().iter().filter_map(of).collect()
}

/// Lines are `8:0 Read 10`.
fn devices(bytes: &str, requests: &str) -> Vec<DeviceIo> {
    let mut devices: Vec<DeviceIo> = Vec::new();
    let fields: [fn(&mut Work) -> &mut u64; 2] =
        [|work| &mut work.bytes, |work| &mut work.requests];
    for (text, field) in [bytes, requests].into_iter().zip(fields) {
        for (device, operation, value) in text.lines().filter_map(line) {
            let (major, minor) = device;
            let known = devices.iter().position(|io| (io.major, io.minor) == device);
            let at = known.unwrap_or_else(|| {
                devices.push(DeviceIo { major, minor, ..DeviceIo::default() });
                devices.len() - 1
            });
            match operation {
                "Read" => *field(&mut devices[at].read) = value,
                "Write" => *field(&mut devices[at].write) = value,
                _ => {}
            }
        }
    }
    devices
}

fn line(line: &str) -> Option<((u32, u32), &str, u64)> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let device = (major.parse().ok()?, minor.parse().ok()?);
    Some((device, words.next()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchies(files: &[(&str, &str)]) -> (tempfile::TempDir, Directories) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let (controller, file) = name.split_once('/').unwrap();
            let cgroup = dir.path().join(controller).join("a/b");
            std::fs::create_dir_all(&cgroup).unwrap();
            std::fs::write(cgroup.join(file), text).unwrap();
        }
        let dirs = Directories::open(dir.path(), Path::new("a/b")).unwrap();
        (dir, dirs)
    }

    #[test]
    fn a_limited_container() {
        let (_dir, dirs) = hierarchies(&[
            ("cpuacct/cpuacct.usage", "1500\n"),
            ("cpuacct/cpuacct.stat", "user 3\nsystem 4\n"),
            ("cpu/cpu.stat", "nr_periods 4\nnr_throttled 2\nthrottled_time 30\n"),
            ("memory/memory.usage_in_bytes", "1000\n"),
            (
                "memory/memory.stat",
                "rss 1\nhierarchical_memory_limit 4096\nhierarchical_memsw_limit 5000\ntotal_rss 300\n\
                 total_cache 600\ntotal_mapped_file 8\ntotal_inactive_file 400\ntotal_pgfault 11\n\
                 total_pgmajfault 2\ntotal_swap 7\n",
            ),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("memory/memory.failcnt", "5\n"),
            ("memory/memory.soft_limit_in_bytes", "9223372036854771712\n"),
            ("pids/pids.current", "3\n"),
            ("pids/pids.max", "max\n"),
            (
                "blkio/blkio.throttle.io_service_bytes",
                "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
            ),
            ("blkio/blkio.throttle.io_serviced", "8:0 Read 3\n8:0 Write 4\nTotal 7\n"),
        ]);
        let usage = usage(&dirs).unwrap();
        assert_eq!((usage.cpu, usage.tasks, usage.io_pressure), (1500, Some(3), None));
        assert_eq!((usage.memory.working_set(), usage.memory.available()), (600, Some(3496)));
        assert_eq!((usage.memory.swap, usage.memory.swap_limit), (Some(7), Some(904)));
        let details = details(&dirs);
        assert_eq!((details.user, details.system), (30_000_000, 40_000_000));
        assert_eq!((details.periods, details.throttled_periods, details.throttled), (4, 2, 30));
        assert_eq!((details.limit_hits, details.oom_kills, details.reservation), (5, 1, 0));
        let [io] = &details.io[..] else { panic!("{:?}", details.io) };
        assert_eq!(io.read, Work { bytes: 10, requests: 3 });
        assert_eq!(io.write, Work { bytes: 20, requests: 4 });
    }

    #[test]
    fn without_swap_accounting_and_limits() {
        let stat = "hierarchical_memory_limit 9223372036854771712\ntotal_rss 1\n";
        let (_dir, dirs) = hierarchies(&[
            ("cpuacct/cpuacct.usage", "1\n"),
            ("memory/memory.usage_in_bytes", "1\n"),
            ("memory/memory.stat", stat),
        ]);
        let memory = usage(&dirs).unwrap().memory;
        assert_eq!((memory.limit, memory.swap, memory.swap_limit), (None, None, None));
    }
}
