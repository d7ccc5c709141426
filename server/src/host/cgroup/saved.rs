//! The limits of a cgroup and of who is in it, as the kernel has them: a change that went half way is taken back
//! with these, whatever the OCI runtime had got to.

use std::path::{Path, PathBuf};

use super::{directories, processes, relative};

/// Files of limits that hold one value: those of cgroup v2, then v1's.
const FILES: [&str; 15] = [
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.max",
    "memory.swap.max",
    "memory.low",
    "memory.high",
    "pids.max",
    "cpu.shares",
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "memory.soft_limit_in_bytes",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
];

/// What files of a cgroup, and of its processes, said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved(Vec<(PathBuf, String)>);

impl Saved {
    /// Reads the limits of a cgroup, and its files in `more`. What is not there is not restored.
    pub(crate) fn limits<'a>(cgroups_path: &str, more: impl Iterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = FILES.into_iter().chain(more).collect();
        let dirs = directories(&relative(cgroups_path));
        let paths = dirs.iter().flat_map(|dir| {
            let hugepages = listed(dir).filter(|name| is_hugepage_limit(name));
            let names = names.iter().map(|name| (*name).to_owned()).chain(hugepages);
            names.map(|name| dir.join(name)).collect::<Vec<_>>()
        });
        Self::of(paths)
    }

    /// Reads the `oom_score_adj` of everybody in a cgroup.
    pub(crate) fn oom_scores(cgroups_path: &str) -> Self {
        let pids = processes(cgroups_path).into_iter();
        Self::of(pids.map(|pid| PathBuf::from(format!("/proc/{pid}/oom_score_adj"))))
    }

    fn of(paths: impl Iterator<Item = PathBuf>) -> Self {
        let read = |path: PathBuf| Some((std::fs::read_to_string(&path).ok()?, path));
        Self(paths.filter_map(read).map(|(text, path)| (path, text)).collect())
    }

    /// Writes `value` into all of them. Who is gone needs none.
    ///
    /// # Errors
    /// What the kernel said first, with the file.
    pub(crate) fn write(&self, value: &str) -> Result<(), (PathBuf, std::io::Error)> {
        for (path, _) in &self.0 {
            match std::fs::write(path, value) {
                Err(err) if !is_gone(&err) => return Err((path.clone(), err)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes back what has changed; the files that keep another value.
    pub(crate) fn restore(&self) -> Vec<PathBuf> {
        // Some bound others, as memory with swap does memory: in one of the two orders all go back.
        for _ in 0..2 {
            self.changed().for_each(|(path, text)| drop(std::fs::write(path, text)));
            self.changed().rev().for_each(|(path, text)| drop(std::fs::write(path, text)));
        }
        self.changed().map(|(path, _)| path.clone()).collect()
    }

    fn changed(&self) -> impl DoubleEndedIterator<Item = &(PathBuf, String)> {
        let changed = |(path, text): &&(PathBuf, String)| {
            std::fs::read_to_string(path).is_ok_and(|now| now != *text)
        };
        self.0.iter().filter(changed)
    }
}

fn is_gone(err: &std::io::Error) -> bool {
    err.kind() == std::io::ErrorKind::NotFound
        || err.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn listed(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

/// `hugetlb.2MB.max`, `hugetlb.2MB.limit_in_bytes`, and those of reservations.
fn is_hugepage_limit(name: &str) -> bool {
    name.starts_with("hugetlb.") && (name.ends_with(".max") || name.ends_with(".limit_in_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_written_back_and_what_went_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a", "b", "c"] {
            std::fs::write(path(name), format!("{name} before\n")).unwrap();
        }
        let saved = Saved::of(["a", "none", "b", "c"].into_iter().map(path));
        assert_eq!(saved.0.len(), 3);
        std::fs::remove_file(path("c")).unwrap();
        std::fs::write(path("a"), "7").unwrap();
        assert_eq!(saved.restore(), Vec::<PathBuf>::new());
        assert_eq!(std::fs::read_to_string(path("a")).unwrap(), "a before\n");
        assert!(!path("c").exists());
        assert!(is_hugepage_limit("hugetlb.2MB.max") && !is_hugepage_limit("hugetlb.2MB.current"));
    }
}
