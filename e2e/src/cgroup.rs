//! The cgroups of a world: its containers', by either driver, and that of its own processes where no pid namespace
//! tells them from others.
//!
//! systemd takes processes into scopes by the numbers that it is told, so worlds on that driver share its pid
//! namespace, and are ended through the cgroup that they begin in.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::poll::eventually;
use crate::world::World;

const ROOT: &str = "/sys/fs/cgroup";
/// Every world's cgroup begins so; the pid of its test follows.
pub(crate) const PREFIX: &str = "podwright-e2e-";
/// How deep a container's cgroup lies below its world's at most.
const DEPTH: usize = 4;

/// Who makes containers' cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

impl Driver {
    /// `PODWRIGHT_CGROUP_DRIVER`; systemd only where the machine, and so its systemd, belongs to the tests.
    pub fn of_tests() -> Self {
        match std::env::var("PODWRIGHT_CGROUP_DRIVER") {
            Ok(driver) if driver == "systemd" && World::owns_machine() => Self::Systemd,
            _ => Self::Cgroupfs,
        }
    }

    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroupfs => "cgroupfs",
            Self::Systemd => "systemd",
        }
    }

    /// The parent of a world's cgroups, relative to each hierarchy's root.
    pub(crate) fn parent(self, number: u32) -> String {
        let pid = std::process::id();
        match self {
            Self::Cgroupfs => format!("{PREFIX}{pid}-{number}"),
            Self::Systemd => format!("podwright_e2e_{pid}_{number}.slice"),
        }
    }

    /// A pod's below it, as the kubelet names them.
    pub(crate) fn of_pod(self, parent: &str, uid: &str) -> String {
        match self {
            Self::Cgroupfs => format!("/{parent}/pod{uid}"),
            Self::Systemd => {
                let stem = parent.trim_end_matches(".slice");
                format!("{stem}-pod{}.slice", uid.replace('-', "_"))
            }
        }
    }
}

/// Where the processes of a world without a pid namespace begin.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Below the cgroup of the test, which is its own to divide.
    pub(crate) fn of(driver: Driver, number: u32) -> Option<Self> {
        if driver == Driver::Cgroupfs {
            return None;
        }
        let own = std::fs::read_to_string("/proc/self/cgroup").expect("proc is mounted");
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("cgroup v2");
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        Some(Self(Path::new(ROOT).join(own).join(name)))
    }

    /// `program`, which begins in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        std::fs::create_dir_all(&self.0).expect("a cgroup can be made");
        let mut command = Command::new("sh");
        command.args(["-c", "echo 0 >\"$0\" && exec \"$@\""]);
        command.arg(self.0.join("cgroup.procs")).arg(program);
        command
    }

    /// Kills everybody in it, and removes it.
    pub(crate) fn end(&self) {
        end(&self.0);
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut found = Vec::new();
        pids(&self.0, DEPTH, &mut found);
        found
    }
}

/// Kills everybody in a cgroup of v2, and removes it.
fn end(dir: &Path) {
    eventually("a cgroup to go", || {
        let _ = std::fs::write(dir.join("cgroup.kill"), "1");
        remove(dir);
        (!dir.exists()).then_some(())
    });
}

fn remove(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = std::fs::remove_dir(dir);
}

fn pids(dir: &Path, depth: usize, found: &mut Vec<u32>) {
    let listed = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids(&entry.path(), depth - 1, found);
        }
    }
}

/// The directories of a cgroup in every hierarchy.
pub(crate) fn roots(cgroup: &str) -> Vec<PathBuf> {
    let mut roots = vec![Path::new(ROOT).join(cgroup)];
    if let Ok(entries) = std::fs::read_dir(ROOT) {
        roots.extend(entries.flatten().map(|entry| entry.path().join(cgroup)));
    }
    roots.retain(|root| root.is_dir());
    roots
}

/// Removes a world's, in which nothing lives any more.
pub(crate) fn remove_all(driver: Driver, cgroup: &str) {
    if driver == Driver::Systemd {
        roots(cgroup).iter().for_each(|root| drop(std::fs::write(root.join("cgroup.kill"), "1")));
        let _ = Command::new("systemctl").args(["stop", cgroup]).output();
    }
    for root in roots(cgroup) {
        // The kernel takes a moment to take its dead out of a cgroup.
        eventually("a cgroup to go", || {
            remove(&root);
            (!root.exists()).then_some(())
        });
    }
}

/// Scopes that systemd knows in a world's slice, dead ones too.
pub(crate) fn scopes(slice: &str) -> Vec<String> {
    let asked = ["show", "podwright-*.scope", "--property=Id,Slice,ActiveState"];
    let told = Command::new("systemctl").args(asked).output().expect("systemctl is installed");
    let stem = slice.trim_end_matches(".slice");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.split("\n\n")
        .filter(|unit| {
            ["-", ".slice"].iter().any(|after| unit.contains(&format!("Slice={stem}{after}")))
        })
        .map(|unit| unit.trim().replace('\n', " "))
        .collect()
}

impl World {
    pub fn driver(&self) -> Driver {
        self.options.driver
    }

    /// The directories of a container's cgroup, one in each hierarchy.
    pub fn cgroups_of(&self, id: &str) -> Vec<PathBuf> {
        fn find(dir: &Path, id: &str, depth: usize) -> Option<PathBuf> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            let mut dirs = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
            dirs.find_map(|path| match path.to_string_lossy().contains(id) {
                true => Some(path),
                false if depth > 0 => find(&path, id, depth - 1),
                false => None,
            })
        }
        roots(&self.cgroup).iter().filter_map(|root| find(root, id, DEPTH)).collect()
    }

    /// The world's processes, as the host numbers them.
    pub fn pids(&self) -> Vec<u32> {
        let Some(home) = &self.home else {
            let entries = std::fs::read_dir(self.seen("/proc")).into_iter().flatten().flatten();
            return entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        };
        let mut found = home.pids();
        roots(&self.cgroup).iter().for_each(|root| pids(root, DEPTH, &mut found));
        found
    }
}
