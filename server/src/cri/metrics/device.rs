//! Block devices by the names that dashboards show, and the disk on which containers write.

use std::path::Path;

use crate::host::usage::DeviceIo;

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// As `/dev/sda`; empty if it has no name.
    pub name: String,
    pub major: u32,
    pub minor: u32,
}

impl Device {
    pub(super) fn of(io: &DeviceIo) -> Self {
        Self::new(io.major, io.minor)
    }

    fn new(major: u32, minor: u32) -> Self {
        // The link ends with the device's name.
        let link = std::fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
        let name =
            link.ok().and_then(|path| path.file_name().map(|name| Path::new("/dev").join(name)));
        let name = name.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, major, minor }
    }
}

/// The disk under the root of the daemon.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    pub device: Device,
    pub bytes: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Disk {
    pub(super) fn read(path: &str) -> Self {
        use rustix::fs::{major, minor};
        let (major, minor) =
            rustix::fs::stat(path).map_or((0, 0), |stat| (major(stat.st_dev), minor(stat.st_dev)));
        let mut disk =
            Self { device: Device::new(major, minor), bytes: 0, inodes: 0, inodes_free: 0 };
        if let Ok(fs) = rustix::fs::statvfs(path) {
            disk.bytes = fs.f_blocks.saturating_mul(fs.f_frsize);
            disk.inodes = fs.f_files;
            disk.inodes_free = fs.f_ffree;
        }
        disk
    }
}
