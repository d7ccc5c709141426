//! A cgroup by its OCI `cgroupsPath`: where it is in the file system, who is in it, how it ends.
//!
//! Works on cgroup v2 and on v1's separate hierarchies. Used as the last resort, when a shim or an OCI runtime
//! did not end what they started: the kernel's own list of processes is believed over anybody's record.

pub(crate) mod moves;
mod saved;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub(crate) use saved::Saved;

pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to leave.
const LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// The directory below each hierarchy's root that `cgroupsPath` stands for; systemd's `slice:prefix:name` form
/// is expanded as systemd nests slices.
pub(crate) fn relative(cgroups_path: &str) -> PathBuf {
    let Some((slice, rest)) = cgroups_path.split_once(':') else {
        return PathBuf::from(cgroups_path.trim_start_matches('/'));
    };
    let name = rest.replace(':', "-");
    let scope = if name.ends_with(".scope") { name } else { format!("{name}.scope") };
    expand_slice(slice).join(scope)
}

/// How a cgroup is called that lies there: by an absolute path, as in `/proc/<pid>/cgroup`.
pub(crate) fn shown(relative: &Path) -> String {
    Path::new("/").join(relative).to_string_lossy().into_owned()
}

/// `a-b.slice` lies in `a.slice`.
fn expand_slice(slice: &str) -> PathBuf {
    let base = Path::new(slice).file_name().map_or("", |name| name.to_str().unwrap_or(""));
    let stem = base.strip_suffix(".slice").unwrap_or(base);
    let mut path = PathBuf::new();
    for (at, _) in stem.match_indices('-') {
        path.push(format!("{}.slice", &stem[..at]));
    }
    path.join(format!("{stem}.slice"))
}

/// The directories of that cgroup that exist: one on v2, one for each hierarchy on v1.
fn directories(relative: &Path) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from(ROOT)];
    if let Ok(entries) = std::fs::read_dir(ROOT) {
        // On v1 each hierarchy is a directory here; on v2 these are cgroups, where nothing of that path lies.
        roots.extend(
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()),
        );
    }
    let mut found: Vec<PathBuf> = roots.into_iter().map(|root| root.join(relative)).collect();
    found.retain(|dir| dir.join("cgroup.procs").exists());
    // Where v2 was unmounted beside v1, crun writes its v2 files into the directory that lay below.
    let (cgroups, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|dir| is_cgroup(dir));
    for dir in others {
        std::fs::remove_dir_all(dir).ok();
    }
    cgroups
}

fn is_cgroup(dir: &Path) -> bool {
    /// CGROUP_SUPER_MAGIC and CGROUP2_SUPER_MAGIC of linux/magic.h.
    const MAGICS: [i64; 2] = [0x0027_e0eb, 0x6367_7270];
    rustix::fs::statfs(dir).is_ok_and(|fs| MAGICS.contains(&fs.f_type))
}

/// Everybody in the cgroup, not in those below it.
pub(crate) fn processes(cgroups_path: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    directories(&relative(cgroups_path)).iter().for_each(|dir| members(dir, &mut pids));
    each_once(pids)
}

fn members(dir: &Path, pids: &mut Vec<i32>) {
    let text = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
}

/// Everybody in the cgroup at `dir` and in those below it.
fn everybody(dir: &Path, pids: &mut Vec<i32>) {
    members(dir, pids);
    children(dir).for_each(|child| everybody(&child, pids));
}

/// A process is in a cgroup of each hierarchy.
fn each_once(mut pids: Vec<i32>) -> Vec<i32> {
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir())
}

/// Kills everybody in the cgroup and in those below it, and removes them. No error if there is none. Blocks for five
/// seconds at most.
///
/// # Errors
/// A text that says who would not die.
pub(crate) fn end(cgroups_path: &str) -> Result<(), String> {
    let until = Instant::now() + LIMIT;
    let relative = relative(cgroups_path);
    if relative.as_os_str().is_empty() {
        return Ok(());
    }
    loop {
        let dirs = directories(&relative);
        if dirs.is_empty() {
            return Ok(());
        }
        for dir in &dirs {
            std::fs::write(dir.join("cgroup.kill"), "1").ok();
        }
        let mut pids = Vec::new();
        dirs.iter().for_each(|dir| everybody(dir, &mut pids));
        let pids = each_once(pids);
        for pid in pids.iter().copied().filter_map(Pid::from_raw) {
            kill_process(pid, Signal::KILL).ok();
        }
        for dir in &dirs {
            remove_tree(dir);
        }
        if Instant::now() > until {
            return Err(format!("cgroup {cgroups_path}: processes {pids:?} do not end"));
        }
        std::thread::sleep(POLL);
    }
}

/// Removes a cgroup in which there is nothing, not even another cgroup.
pub(crate) fn remove_if_empty(cgroups_path: &str) {
    let relative = relative(cgroups_path);
    if !relative.as_os_str().is_empty() {
        for dir in directories(&relative) {
            std::fs::remove_dir(dir).ok();
        }
    }
}

/// Removes the cgroups below `dir`, deepest first, then itself; what is busy stays.
fn remove_tree(dir: &Path) {
    for child in children(dir) {
        std::fs::write(child.join("cgroup.kill"), "1").ok();
        remove_tree(&child);
    }
    std::fs::remove_dir(dir).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_found_however_deep() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(dir.path().join("cgroup.procs"), "1\n2\n").unwrap();
        std::fs::write(inner.join("cgroup.procs"), "3\n").unwrap();
        let mut pids = Vec::new();
        everybody(dir.path(), &mut pids);
        assert_eq!(pids, [1, 2, 3]);
    }

    #[test]
    fn paths_of_both_drivers() {
        for (given, expected) in [
            ("/kubepods/burstable/podX/abc", "kubepods/burstable/podX/abc"),
            (
                "kubepods-burstable-podX.slice:podwright:abc",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podX.slice/podwright-abc.scope",
            ),
            ("system.slice:podwright:abc", "system.slice/podwright-abc.scope"),
        ] {
            assert_eq!(relative(given), Path::new(expected));
        }
    }

    #[test]
    fn ending_a_cgroup_that_is_not_there_is_no_error() {
        assert_eq!(end("/podwright-test-none/abc"), Ok(()));
    }
}
