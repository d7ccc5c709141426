//! Moves of processes between cgroups, and what the kernel needs before the first of them.
//!
//! Whoever moves a process waits until all processors have noticed that somebody will: a grace period of the kernel's,
//! 5 to 25 ms, in which nothing is done. Moves within the next 20 ms or so need none. An OCI runtime moves what it creates
//! (with cgroup v1 always, with v2 where it or systemd does not make the process in its cgroup), so whoever is going to
//! call one has that time pass while there is other work. What is moved for it is this process, to where it is.
//!
//! Changes nothing, promises nothing: without it a runtime waits itself.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::ROOT;

/// Of the whole node, since the kernel's lock is one for all cgroups.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// The one who has the kernel get ready.
#[derive(Debug)]
pub(crate) struct Turn(());

/// `None` while somebody else is at it, which serves all.
pub(crate) fn turn() -> Option<Turn> {
    (!UNDER_WAY.swap(true, Ordering::AcqRel)).then_some(Turn(()))
}

impl Turn {
    /// Waits for the kernel. Blocks for the time above.
    pub(crate) fn make_ready(self) {
        let Ok(own) = std::fs::read_to_string("/proc/self/cgroup") else { return };
        let pid = std::process::id().to_string();
        // Where one is not mounted, or may not be written to, another does as well.
        let _ = processes_files(&own).any(|path| std::fs::write(path, &pid).is_ok());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.store(false, Ordering::Release);
    }
}

/// The files that list the processes of these cgroups. One outside of what we see has none.
fn processes_files(membership: &str) -> impl Iterator<Item = PathBuf> {
    membership.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let hierarchy = controllers.strip_prefix("name=").unwrap_or(controllers);
        let inside = path.strip_prefix('/').filter(|path| !path.contains(".."))?;
        Some(Path::new(ROOT).join(hierarchy).join(inside).join("cgroup.procs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_process_is_listed() {
        let files = |text| processes_files(text).collect::<Vec<_>>();
        let v1 = "9:name=systemd:/a\n4:cpu,cpuacct:/\n2:pids:/../b\nno line\n0::/c/d\n";
        let expected = ["systemd/a/cgroup.procs", "cpu,cpuacct/cgroup.procs", "c/d/cgroup.procs"];
        assert_eq!(files(v1), expected.map(|path| Path::new(ROOT).join(path)));
        assert_eq!(files(""), Vec::<PathBuf>::new());
    }

    #[test]
    fn one_at_a_time_and_nobody_is_moved() {
        let before = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let first = turn().expect("nobody else is at it");
        assert!(turn().is_none());
        first.make_ready();
        assert_eq!(std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(), before);
        assert!(turn().is_some());
    }
}
