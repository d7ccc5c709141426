//! Device nodes of the host.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crate::container::config::Device;
use crate::container::spec::{DeviceKind, DeviceNode};
use crate::error::{Error, Result};

/// Directories of /dev that hold no devices of the host, or only the host's own terminals.
const SKIPPED_DIRS: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
/// The container's own, if it has a terminal.
const CONSOLE: &str = "console";
/// Deep enough for any /dev; links are not followed, so only a mount could go on for ever.
const MAX_DEPTH: usize = 16;

/// The devices that a request names; a directory stands for all devices in it.
pub(super) fn asked(devices: &[Device]) -> Result<Vec<DeviceNode>> {
    let mut nodes = Vec::new();
    for (i, device) in devices.iter().enumerate() {
        let wrong = |reason: String| {
            let field = format!("devices[{i}].host_path");
            Error::invalid(field, format!("{}: {reason}", device.host_path))
        };
        let path =
            std::fs::canonicalize(&device.host_path).map_err(|err| wrong(err.to_string()))?;
        if path.is_dir() {
            walk(&path, &device.container_path, &device.permissions, 0, &mut nodes);
        } else {
            let node = node(&path, device.container_path.clone(), &device.permissions);
            nodes.push(node.ok_or_else(|| wrong("is no device".into()))?);
        }
    }
    Ok(nodes)
}

/// Every device of the host, where it is there.
pub(super) fn of_host() -> Vec<DeviceNode> {
    let mut nodes = Vec::new();
    walk(Path::new("/dev"), "/dev", "rwm", 0, &mut nodes);
    nodes
}

/// Devices come and go: what cannot be read any more is not there.
fn walk(dir: &Path, target: &str, access: &str, depth: usize, nodes: &mut Vec<DeviceNode>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut names: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort();
    for name in names {
        // The spec is JSON; no device has another name.
        let Some(name) = name.to_str() else { continue };
        let (path, target) = (dir.join(name), format!("{}/{name}", target.trim_end_matches('/')));
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                if depth < MAX_DEPTH && !SKIPPED_DIRS.contains(&name) {
                    walk(&path, &target, access, depth + 1, nodes);
                }
            }
            Ok(_) if name == CONSOLE => {}
            Ok(_) => nodes.extend(node(&path, target, access)),
            Err(_) => {}
        }
    }
}

/// The device at `path`.
pub(super) fn one(path: &Path) -> std::io::Result<DeviceNode> {
    let path = std::fs::canonicalize(path)?;
    node(&path, path.to_string_lossy().into_owned(), "rwm")
        .ok_or_else(|| std::io::Error::other("is no device"))
}

fn node(path: &Path, target: String, access: &str) -> Option<DeviceNode> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let kind = if meta.file_type().is_block_device() {
        DeviceKind::Block
    } else if meta.file_type().is_char_device() {
        DeviceKind::Char
    } else {
        return None;
    };
    Some(DeviceNode {
        path: target,
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        access: access.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, container: &str) -> Device {
        Device {
            container_path: container.into(),
            host_path: host.into(),
            permissions: "rw".into(),
        }
    }

    #[test]
    fn a_device_keeps_its_number_under_another_name() {
        let nodes = asked(&[device("/dev/null", "/dev/nothing")]).unwrap();
        let [node] = &nodes[..] else { panic!("{nodes:?}") };
        assert_eq!((node.major, node.minor, node.kind), (1, 3, DeviceKind::Char));
        assert_eq!((node.path.as_str(), node.access.as_str()), ("/dev/nothing", "rw"));
    }

    #[test]
    fn directories_are_walked_and_others_refused() {
        let all = of_host();
        assert!(all.iter().any(|node| node.path == "/dev/null"));
        assert!(!all.iter().any(|node| node.path.starts_with("/dev/pts/")));
        let moved = asked(&[device("/dev", "/devices/")]).unwrap();
        assert!(moved.iter().any(|node| node.path == "/devices/null"));
        let err = asked(&[device("/etc/passwd", "/x")]).unwrap_err().to_string();
        assert_eq!(err, "devices[0].host_path: /etc/passwd: is no device");
        assert!(asked(&[device("/dev/nowhere", "/x")]).is_err());
    }
}
