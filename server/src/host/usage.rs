//! What a cgroup has used, read from the kernel's own files on cgroup v2 and on v1's hierarchies.
//!
//! A [`Meter`] keeps the cgroup's directories open, and its files while somebody asks, so that a reading costs no walk
//! from the root and can never be that of another cgroup which got the same name. It holds nothing else: a reading is
//! made when it is asked for, and costs nobody anything in between. A cgroup that is gone has no reading.

mod details;
mod files;
mod processes;
mod sampler;
mod text;
mod v1;
mod v2;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::cgroup;
pub(crate) use details::{Details, DeviceIo, Work};
use files::Files;
pub(crate) use processes::Processes;
pub(crate) use sampler::{Sample, Sampler};

/// What is asked of a container or pod every few seconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Usage {
    /// Nanoseconds since 1970, when the reading began.
    pub at: i64,
    /// Nanoseconds of all cores.
    pub cpu: u64,
    pub memory: Memory,
    /// Tasks, where the kernel counts them.
    pub tasks: Option<u64>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// Bytes, but for the faults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub usage: u64,
    /// The least of its own and its parents' limits, where the kernel says; `None`: no limit.
    pub limit: Option<u64>,
    pub inactive_file: u64,
    pub rss: u64,
    pub cache: u64,
    pub mapped_file: u64,
    pub faults: u64,
    pub major_faults: u64,
    /// `None` where the kernel does not count it.
    pub swap: Option<u64>,
    /// Of swap alone. `None`: no limit.
    pub swap_limit: Option<u64>,
}

impl Memory {
    /// What cannot easily be reclaimed.
    pub(crate) fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }

    /// What is left below the limit, if there is one.
    pub(crate) fn available(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.working_set()))
    }
}

/// Stalls for want of a resource, as of the kernel's pressure files.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Pressure {
    /// At least one task waited.
    pub some: Stall,
    /// All did.
    pub full: Stall,
}

/// How much of the time was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// Nanoseconds since the cgroup was made.
    pub total: u64,
}

/// A cgroup that can be read.
#[derive(Debug)]
pub(crate) struct Meter(Version);

#[derive(Debug)]
enum Version {
    V1(Box<v1::Directories>),
    V2(Files),
}

impl Meter {
    /// Opens the cgroup of an OCI `cgroupsPath`; `None` if there is none.
    pub(crate) fn open(cgroups_path: &str) -> Option<Self> {
        Self::at(&cgroup::relative(cgroups_path))
    }

    /// Opens the cgroup in which that of an OCI `cgroupsPath` lies: a pod's, by one of its containers'.
    pub(crate) fn open_parent(cgroups_path: &str) -> Option<Self> {
        Self::at(cgroup::relative(cgroups_path).parent()?)
    }

    fn at(relative: &Path) -> Option<Self> {
        if relative.as_os_str().is_empty() {
            return None;
        }
        let unified = Path::new(cgroup::ROOT).join(relative);
        if unified.join("cgroup.controllers").exists() {
            return directory(&unified).map(|dir| Self(Version::V2(dir)));
        }
        v1::Directories::open(Path::new(cgroup::ROOT), relative)
            .map(|dirs| Self(Version::V1(Box::new(dirs))))
    }

    /// What it has used up to now; `None` once it is gone.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let at = now();
        let usage = match &self.0 {
            Version::V1(dirs) => v1::usage(dirs)?,
            Version::V2(dir) => v2::usage(dir)?,
        };
        Some(Usage { at, ..usage })
    }

    /// What only dashboards ask for. Costs about three times a usage.
    pub(crate) fn details(&self) -> Details {
        match &self.0 {
            Version::V1(dirs) => v1::details(dirs),
            Version::V2(dir) => v2::details(dir),
        }
    }

    /// Closes the files that nobody has asked for in a while.
    fn rest(&self) {
        match &self.0 {
            Version::V1(dirs) => dirs.all().for_each(Files::rest),
            Version::V2(dir) => dir.rest(),
        }
    }

    /// The processes in it, not in cgroups below it.
    pub(crate) fn processes(&self) -> Processes {
        let dir = match &self.0 {
            Version::V1(dirs) => dirs.any(),
            Version::V2(dir) => Some(dir),
        };
        let pids = dir.and_then(|dir| dir.read("cgroup.procs")).unwrap_or_default();
        Processes::of(pids.lines().filter_map(|line| line.parse().ok()))
    }
}

fn directory(path: &Path) -> Option<Files> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).ok().map(Files::of)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_never_less_than_nothing() {
        let memory = Memory { usage: 10, inactive_file: 20, limit: Some(5), ..Memory::default() };
        assert_eq!((memory.working_set(), memory.available()), (0, Some(5)));
        let over = Memory { usage: 10, limit: Some(5), ..Memory::default() };
        assert_eq!(over.available(), Some(0));
        assert_eq!(Memory::default().available(), None);
    }

    #[test]
    fn no_cgroup_has_no_meter() {
        assert!(Meter::open("").is_none());
        assert!(Meter::open("/podwright-test-none/abc").is_none());
        assert!(Meter::open_parent("").is_none());
        assert!(Meter::open_parent("/abc").is_none(), "the root is nobody's");
    }
}
