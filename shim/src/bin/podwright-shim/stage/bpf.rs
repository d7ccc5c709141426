//! What keeps a container's device rules from being lost when systemd reloads.
//!
//! Where BPF's file system is mounted crun pins its device program there and has systemd attach it, which detaches it
//! at the next `daemon-reload` and leaves the container every device. Where there is none crun names the devices to
//! systemd, which sees to them for good. So that file system is not shown to the OCI runtime, in its mount namespace
//! alone; a container that mounts it, or what it is in and may work with it, has to have it, and gets what crun does then.

use std::ffi::OsString;
use std::path::Path;

use rustix::mount::{UnmountFlags, unmount};
use serde_json::Value;

use super::mounts::seclude;

const BPF: &str = "/sys/fs/bpf";

/// For a runtime that asks systemd for cgroups. In a mount namespace of the caller's own.
pub(super) fn hide(line: &[OsString], spec: &Path) {
    /// BPF_FS_MAGIC of linux/magic.h.
    const MAGIC: i64 = 0xcafe_4a11;
    let systemd = line.iter().any(|word| word == "--systemd-cgroup");
    let there = || rustix::fs::statfs(BPF).is_ok_and(|fs| fs.f_type == MAGIC);
    // What lies above holds the mount: to the host nothing may happen.
    if systemd
        && there()
        && !is_wanted(spec)
        && Path::new(BPF).parent().is_some_and(|above| seclude(above).is_ok())
    {
        let _ = unmount(BPF, UnmountFlags::DETACH);
    }
}

/// Whether a container mounts that, or something that it is in and has a capability to use it. What cannot be read is
/// for the runtime to complain of.
fn is_wanted(spec: &Path) -> bool {
    let Ok(text) = std::fs::read(spec) else { return true };
    let Ok(spec) = serde_json::from_slice::<Value>(&text) else { return true };
    let capabilities = list(&spec["process"]["capabilities"]["bounding"]);
    let able =
        capabilities.iter().any(|one| matches!(one.as_str(), Some("CAP_BPF" | "CAP_SYS_ADMIN")));
    list(&spec["mounts"]).iter().filter_map(|mount| mount["source"].as_str()).any(|source| {
        let source = Path::new(source);
        source.starts_with(BPF) || able && Path::new(BPF).starts_with(source)
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_wanted_by_who_mounts_of_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let spec = dir.path().join("config.json");
        for (sources, capability, wanted) in [
            (
                &["proc", "sysfs", "/var/lib/x", "/system", "/sys/kernel"][..],
                "CAP_SYS_ADMIN",
                false,
            ),
            (&["proc", "/sys/fs/bpf"], "CAP_CHOWN", true),
            (&["/sys/fs/bpf/own"], "CAP_CHOWN", true),
            (&["/sys/fs"], "CAP_BPF", true),
            (&["/sys"], "CAP_SYS_ADMIN", true),
            (&["/"], "CAP_SYS_ADMIN", true),
            // An exporter of the node's metrics, and /sys of a pod with users of its own on the node's network.
            (&["/", "/sys"], "CAP_CHOWN", false),
        ] {
            let mounts: Vec<_> =
                sources.iter().map(|source| serde_json::json!({ "source": source })).collect();
            let text = serde_json::json!({
                "mounts": mounts,
                "process": {"capabilities": {"bounding": ["CAP_KILL", capability]}},
            });
            std::fs::write(&spec, text.to_string()).expect("written");
            assert_eq!(is_wanted(&spec), wanted, "{sources:?}");
        }
        assert!(is_wanted(&dir.path().join("none")));
    }
}
