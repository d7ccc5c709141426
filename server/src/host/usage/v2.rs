//! cgroup v2: one directory holds it all.

use super::details::{Details, DeviceIo, Huge, huge_sizes};
use super::files::Files;
use super::text::{found, number, pressure, the_number, values};
use super::{Memory, Usage};

const NANOS_PER_MICRO: u64 = 1000;

pub(super) fn usage(dir: &Files) -> Option<Usage> {
    let [cpu] = values(&dir.read("cpu.stat")?, ["usage_usec"]);
    Some(Usage {
        at: 0,
        cpu: cpu.saturating_mul(NANOS_PER_MICRO),
        memory: memory(dir),
        tasks: number(dir, "pids.current"),
        cpu_pressure: dir.read("cpu.pressure").and_then(|text| pressure(&text)),
        memory_pressure: dir.read("memory.pressure").and_then(|text| pressure(&text)),
        io_pressure: dir.read("io.pressure").and_then(|text| pressure(&text)),
    })
}

fn memory(dir: &Files) -> Memory {
    let Some(stat) = dir.read("memory.stat") else { return Memory::default() };
    let [anon, file, file_mapped, inactive_file, pgfault, pgmajfault] =
        values(&stat, ["anon", "file", "file_mapped", "inactive_file", "pgfault", "pgmajfault"]);
    Memory {
        usage: number(dir, "memory.current").unwrap_or_default(),
        limit: number(dir, "memory.max"),
        inactive_file,
        rss: anon,
        cache: file,
        mapped_file: file_mapped,
        faults: pgfault,
        major_faults: pgmajfault,
        swap: number(dir, "memory.swap.current"),
        swap_limit: number(dir, "memory.swap.max"),
    }
}

pub(super) fn details(dir: &Files) -> Details {
    let text = |name: &'static str| dir.read(name).unwrap_or_default();
    let [user, system, periods, throttled_periods, throttled] = values(
        &text("cpu.stat"),
        ["user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec"],
    );
    let [limit_hits, oom_kills] = values(&text("memory.events"), ["max", "oom_kill"]);
    let [kernel_memory] = values(&text("memory.stat"), ["kernel"]);
    Details {
        user: user.saturating_mul(NANOS_PER_MICRO),
        system: system.saturating_mul(NANOS_PER_MICRO),
        periods,
        throttled_periods,
        throttled: throttled.saturating_mul(NANOS_PER_MICRO),
        kernel_memory,
        peak_memory: number(dir, "memory.peak").unwrap_or_default(),
        limit_hits,
        oom_kills,
        reservation: number(dir, "memory.low").unwrap_or_default(),
        tasks_limit: number(dir, "pids.max"),
        io: text("io.stat").lines().filter_map(device).collect(),
        huge: huge_sizes()
            .iter()
            .filter_map(|size| {
                let usage = the_number(&dir.read_once(&format!("hugetlb.{size}.current"))?)?;
                // v2 keeps no peak.
                Some(Huge { usage, peak: usage, size: size.clone() })
            })
            .collect(),
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`
fn device(line: &str) -> Option<DeviceIo> {
    let (device, fields) = line.split_once(' ')?;
    let (major, minor) = device.split_once(':')?;
    let fields = fields.replace(' ', "\n").replace('=', " ");
    let [rbytes, wbytes, rios, wios] = found(&fields, ["rbytes", "wbytes", "rios", "wios"]);
    let mut io =
        DeviceIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..DeviceIo::default() };
    io.read = super::Work { bytes: rbytes?, requests: rios.unwrap_or_default() };
    io.write = super::Work { bytes: wbytes?, requests: wios.unwrap_or_default() };
    Some(io)
}

#[cfg(test)]
mod tests {
    use super::super::Work;
    use super::*;

    /// A directory as cgroup v2 would show it.
    fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let opened = super::super::directory(dir.path()).unwrap();
        (dir, opened)
    }

    #[test]
    fn a_limited_container() {
        let (_dir, cgroup) = cgroup(&[
            (
                "cpu.stat",
                "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 30\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.max", "4096\n"),
            (
                "memory.stat",
                "anon 300\nfile 600\nkernel 50\nfile_mapped 8\ninactive_file 400\npgfault 11\npgmajfault 2\n",
            ),
            ("memory.swap.current", "7\n"),
            ("memory.swap.max", "max\n"),
            ("memory.peak", "2000\n"),
            ("memory.events", "low 0\nhigh 0\nmax 5\noom 1\noom_kill 1\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            (
                "io.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
            ),
            ("io.stat", "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n253:1\n"),
        ]);
        let usage = usage(&cgroup).unwrap();
        assert_eq!((usage.cpu, usage.tasks), (1_500_000, Some(3)));
        assert_eq!((usage.memory.working_set(), usage.memory.available()), (600, Some(3496)));
        assert_eq!((usage.memory.swap, usage.memory.swap_limit), (Some(7), None));
        assert_eq!(
            (usage.memory.rss, usage.memory.faults, usage.memory.major_faults),
            (300, 11, 2)
        );
        assert_eq!(usage.io_pressure.unwrap().some.total, 9000);
        assert_eq!(usage.cpu_pressure, None);
        let details = details(&cgroup);
        assert_eq!((details.user, details.system, details.throttled), (1_000_000, 500_000, 30_000));
        assert_eq!((details.periods, details.throttled_periods), (4, 2));
        assert_eq!((details.kernel_memory, details.peak_memory), (50, 2000));
        assert_eq!((details.limit_hits, details.oom_kills, details.tasks_limit), (5, 1, None));
        let [io] = &details.io[..] else { panic!("{:?}", details.io) };
        assert_eq!((io.major, io.minor), (8, 0));
        assert_eq!(io.read, Work { bytes: 10, requests: 3 });
        assert_eq!(io.write, Work { bytes: 20, requests: 4 });
    }

    #[test]
    fn a_cgroup_that_went_has_no_usage() {
        assert_eq!(usage(&cgroup(&[]).1), None);
    }
}
