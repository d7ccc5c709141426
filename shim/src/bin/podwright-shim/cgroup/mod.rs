//! A container's control group: who is in it, and how to end them all.
//!
//! The runtime makes and removes cgroups; the shim only looks, and signals. Where a cgroup is
//! follows from what the kernel says about the container's first process, and from the
//! convention that hierarchies are mounted under `/sys/fs/cgroup`.

mod leaf;
mod oom;

pub(crate) use leaf::Leaf;
pub(crate) use oom::OomWatch;

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys;

const ROOT: &str = "/sys/fs/cgroup";
/// A fork bomb may outrun one sweep, but not many of them once each process gets a signal.
const SWEEPS: usize = 64;
/// How deep a container may nest cgroups and still have them listed.
const MAX_DEPTH: usize = 16;

/// Whether the unified hierarchy is all there is.
pub(crate) fn unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The cgroup of one container.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    /// Where its processes are listed.
    dir: PathBuf,
    /// Where its memory is accounted, if it is.
    memory: Option<PathBuf>,
    unified: bool,
}

impl Cgroup {
    /// The cgroup that a process is in; `None` if it shares ours or the root, which are not the
    /// container's to be judged by, nor to be killed.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let theirs = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let ours = fs::read_to_string("/proc/self/cgroup").ok()?;
        let unified = unified();
        let find = |wanted: &str| {
            let own = parse(&ours).find(|(controllers, _)| has(controllers, wanted))?.1;
            let (controllers, path) = parse(&theirs).find(|(list, _)| has(list, wanted))?;
            let dir = if unified { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controllers) };
            let relative = path.strip_prefix('/')?;
            (path != own && !relative.is_empty() && !relative.contains(".."))
                .then(|| dir.join(relative))
        };
        if unified {
            let dir = find("")?;
            return Some(Self { memory: Some(dir.clone()), dir, unified });
        }
        let memory = find("memory");
        let dir = ["pids", "devices", "freezer"].into_iter().find_map(find);
        Some(Self { dir: dir.or_else(|| memory.clone())?, memory, unified })
    }

    /// Everything in it and below.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mut found = Vec::new();
        collect(&self.dir, MAX_DEPTH, &mut found);
        found
    }

    /// Sends a signal to everything in it.
    pub(crate) fn signal_all(&self, signal: u32) {
        if signal == libc::SIGKILL as u32 {
            return self.kill_all();
        }
        for pid in self.processes() {
            let _ = sys::kill(pid, signal);
        }
    }

    /// Kills everything in it, and what that starts meanwhile.
    pub(crate) fn kill_all(&self) {
        if self.unified && fs::write(self.dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for _ in 0..SWEEPS {
            let left = self.processes();
            // Zombies stay listed on v1 until they are reaped: only the living count.
            if !left
                .into_iter()
                .any(|pid| alive(pid) && sys::kill(pid, libc::SIGKILL as u32).is_ok())
            {
                return;
            }
        }
    }
}

/// `(controllers, path)` of each hierarchy in `/proc/<pid>/cgroup`.
fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':')
    })
}

fn has(controllers: &str, wanted: &str) -> bool {
    controllers.split(',').any(|controller| controller == wanted)
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
}

fn collect(dir: &Path, depth: usize, found: &mut Vec<u32>) {
    if let Ok(text) = fs::read_to_string(dir.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_membership_are_read() {
        let text = "5:cpu,cpuacct:/a/b\n4:name=systemd:/s\n0::/u:1\n";
        let parsed: Vec<_> = parse(text).collect();
        assert_eq!(parsed, [("cpu,cpuacct", "/a/b"), ("name=systemd", "/s"), ("", "/u:1")]);
        assert!(has("cpu,cpuacct", "cpuacct") && !has("cpu,cpuacct", ""));
    }

    #[test]
    fn our_own_cgroup_is_never_a_container_s() {
        assert!(Cgroup::of(std::process::id()).is_none());
    }
}
