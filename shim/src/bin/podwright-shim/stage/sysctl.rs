//! Kernel parameters of a pod. Only those that a namespace of the pod's own holds are written:
//! anything else would change the host.

use std::fs;
use std::path::Path;

/// Which namespaces are the pod's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owned {
    pub(super) ipc: bool,
    pub(super) uts: bool,
    pub(super) net: bool,
}

/// Sets one parameter in the namespaces that the process is in.
pub(super) fn write(name: &str, value: &str, owned: Owned) -> Result<(), String> {
    let path = path(name).ok_or_else(|| format!("sysctl {name:?} is not a name"))?;
    if !allowed(&path, owned) {
        return Err(format!("sysctl {name:?} does not belong to a namespace of the pod"));
    }
    fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(|error| format!("sysctl {name:?} = {value:?}: {error}"))
}

/// As sysctl(8) reads names: whichever of `.` and `/` comes first separates, the other is part
/// of a word (`net.ipv4.conf.eth0/100.forwarding`).
fn path(name: &str) -> Option<String> {
    let dots = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'.');
    let swapped = |c: char| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if dots { name.chars().map(swapped).collect() } else { name.to_owned() };
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    plain.then_some(path)
}

fn allowed(path: &str, owned: Owned) -> bool {
    if path.starts_with("net/") {
        return owned.net;
    }
    if path.starts_with("fs/mqueue/") {
        return owned.ipc;
    }
    match path.strip_prefix("kernel/") {
        Some("sem" | "msgmax" | "msgmnb" | "msgmni" | "msg_next_id" | "sem_next_id") => owned.ipc,
        Some("shmall" | "shmmax" | "shmmni" | "shm_rmid_forced" | "shm_next_id") => owned.ipc,
        Some("hostname" | "domainname") => owned.uts,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sysctl_does() {
        let path = |name| super::path(name);
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(path("net.ipv4.conf.a/b.x").as_deref(), Some("net/ipv4/conf/a.b/x"));
        assert_eq!(path("net/ipv4/conf/a.b/x").as_deref(), Some("net/ipv4/conf/a.b/x"));
        for bad in ["", "net/../kernel/core_pattern", "net.//.x", "/etc/passwd"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_host_s_parameters_stay() {
        let none = Owned { ipc: false, uts: false, net: false };
        let all = Owned { ipc: true, uts: true, net: true };
        for own in ["net/ipv4/ip_forward", "kernel/shmmax", "fs/mqueue/queues_max"] {
            assert!(allowed(own, all) && !allowed(own, none), "{own}");
        }
        for host in ["kernel/core_pattern", "vm/overcommit_memory", "fs/file-max", "kernel/shm"] {
            assert!(!allowed(host, all), "{host}");
        }
    }
}
