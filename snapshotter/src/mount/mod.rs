//! A root file system as a description ([`Mount`]) and the act of mounting it.
//!
//! Nothing here keeps state or spawns anything. Paths are resolved, and the mount appears, in the
//! mount namespace of the calling thread, so a shim can mount in one that it made a moment ago.
//!
//! An overlay is assembled through fsopen(2) with one `lowerdir+` per layer. Kernels before 6.7
//! lack that option; there, mount(2) passes all layers in one string that must fit a page. Paths
//! that do not fit a limit of either call, or hold characters that overlayfs would interpret, are
//! given as `/proc/self/fd/<n>`.

mod options;
mod overlay;

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::{Error, Result};
use options::Parsed;

/// The most layers that overlayfs accepts (`OVL_MAX_STACK`).
pub const MAX_LAYERS: usize = 500;

/// One mount, described: what a snapshot hands to whoever starts the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The kind of file system.
    pub kind: Kind,
    /// What is mounted: the directory of a bind mount, the device of another kind. An overlay
    /// has none.
    pub source: PathBuf,
    /// Read-only layers of an overlay, topmost first.
    pub layers: Vec<PathBuf>,
    /// The writable layer of an overlay; without one the overlay is read-only.
    pub upper: Option<PathBuf>,
    /// The work directory of an overlay, on the file system of `upper`.
    pub work: Option<PathBuf>,
    /// Further options, as in mount(8): generic ones (`nosuid`, `rbind`, …) and the file
    /// system's own.
    pub options: Vec<String>,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// The kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Layers on top of each other.
    Overlay,
    /// A directory that appears a second time.
    Bind,
    /// Any other file system type, by its name in the kernel.
    Other(String),
}

impl Mount {
    /// A bind mount of `source`.
    pub fn bind(source: impl Into<PathBuf>, read_only: bool) -> Self {
        Mount {
            kind: Kind::Bind,
            source: source.into(),
            layers: Vec::new(),
            upper: None,
            work: None,
            options: Vec::new(),
            read_only,
        }
    }
}

/// Mounts `mount` at `target`, which must exist.
pub fn mount(mount: &Mount, target: &Path) -> Result<()> {
    let parsed = Parsed::new(&mount.options, mount.read_only);
    match &mount.kind {
        Kind::Overlay => overlay::mount(mount, &parsed, target),
        Kind::Bind => bind(&mount.source, &parsed, target),
        Kind::Other(fs) => {
            let data = options::c_string(parsed.data.join(","))?;
            rustix::mount::mount(&mount.source, target, fs.as_str(), parsed.flags, data.as_c_str())
                .map_err(|errno| refused(fs, target, errno))
        }
    }
}

/// [`mount`] for an overlay, through mount(2) alone, as on a kernel before 6.7.
pub fn classic(mount: &Mount, target: &Path) -> Result<()> {
    overlay::classic(mount, &Parsed::new(&mount.options, mount.read_only), target)
}

/// Has the kernel check the overlay `mount` without its appearing anywhere; where only mount(2) can
/// tell, it appears at `target` for a moment.
#[cfg(feature = "unpack")]
pub(crate) fn try_out(wanted: &Mount, target: &Path) -> Result<()> {
    let parsed = Parsed::new(&wanted.options, wanted.read_only);
    if overlay::detached(wanted, &parsed, target).is_ok() {
        return Ok(());
    }
    classic(wanted, target)?;
    umount(target)
}

/// Takes the mount at `target` away, lazily: whoever still uses it keeps it until then. That
/// nothing is mounted there, or nothing is there at all, is no error.
pub fn umount(target: &Path) -> Result<()> {
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::io("unmount", target)(errno)),
    }
}

fn bind(source: &Path, parsed: &Parsed<'_>, target: &Path) -> Result<()> {
    let recursive = if parsed.recursive { MountFlags::REC } else { MountFlags::empty() };
    rustix::mount::mount(source, target, c"", MountFlags::BIND | recursive, None)
        .map_err(|errno| refused("bind", target, errno))?;
    if parsed.flags.is_empty() {
        return Ok(());
    }
    // The first call ignores every flag but these two.
    rustix::mount::mount_remount(target, MountFlags::BIND | parsed.flags, c"").map_err(|errno| {
        let _ = umount(target);
        refused("bind", target, errno)
    })
}

fn refused(fs: &str, target: &Path, errno: Errno) -> Error {
    let (fs, target) = (fs.to_owned(), target.to_owned());
    Error::Mount { fs, target, log: String::new(), source: errno.into() }
}
