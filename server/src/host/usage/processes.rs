//! What the processes of a cgroup have open. The kernel keeps no sums of these, so they are counted, up to a limit.

use std::path::PathBuf;

/// Processes that are looked at: more would make a reading expensive, and the sums are then of these.
const MAX_LOOKED_AT: usize = 64;

/// Counts over the processes of a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Processes {
    pub count: u64,
    pub descriptors: u64,
    pub sockets: u64,
    /// The soft limit of open files, of the first of them.
    pub open_files_limit: Option<u64>,
}

impl Processes {
    pub(super) fn of(pids: impl Iterator<Item = i32>) -> Self {
        let mut processes = Self::default();
        for pid in pids {
            processes.count += 1;
            if processes.count > MAX_LOOKED_AT as u64 {
                continue;
            }
            if processes.count == 1 {
                processes.open_files_limit = open_files_limit(pid);
            }
            let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            for entry in entries.flatten() {
                processes.descriptors += 1;
                processes.sockets += u64::from(is_socket(&entry.path()));
            }
        }
        processes
    }
}

fn is_socket(descriptor: &PathBuf) -> bool {
    std::fs::read_link(descriptor)
        .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
}

fn open_files_limit(pid: i32) -> Option<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ourselves() {
        let _socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let processes = Processes::of([std::process::id().cast_signed()].into_iter());
        assert_eq!(processes.count, 1);
        assert!(processes.descriptors > processes.sockets && processes.sockets > 0);
        assert!(processes.open_files_limit.is_some());
    }
}
