//! How a layer says that something below it is gone.
//!
//! For the kernel's overlay: a character device 0:0, and the attribute `trusted.overlay.opaque`.
//! Where those cannot be made, which is one reason to copy layers instead: the files that stand for
//! them in a layer's archive, `.wh.<name>` and `.wh..wh..opq`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use crate::walk::{join, via_proc};

/// Starts the name of what hides its namesake in an archive.
pub(crate) const PREFIX: &[u8] = b".wh.";
/// Names that are no whiteouts but aufs's own start like this.
pub(crate) const RESERVED: &[u8] = b".wh..wh.";
/// Makes the directory it lies in opaque.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Makes a directory opaque for overlayfs.
pub(crate) const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// One of the two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// The kernel's.
    Overlay,
    /// The archive's.
    Files,
}

/// What a layer says about a name.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nothing: ask the layer below.
    Nothing,
    /// That there is none, whatever is below.
    Hidden,
    /// What it is, and for a directory whether that of the layer below shines through.
    Entry {
        /// What it is.
        stat: Stat,
        /// A directory that hides what is below, or no directory.
        last: bool,
    },
}

impl Marks {
    /// Whether `stat` is that of a whiteout, which is no file at all.
    pub(crate) fn is_whiteout(self, stat: &Stat) -> bool {
        self == Marks::Overlay
            && FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == 0
    }

    /// Hides `name`, which is not in `parent`.
    pub(crate) fn hide(self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Marks::Overlay => {
                let kind = FileType::CharacterDevice;
                rustix::fs::mknodat(parent, name, kind, Mode::empty(), 0)
            }
            Marks::Files => touch(parent, &[PREFIX, name].concat()),
        }
    }

    /// Hides whatever a lower layer has in the directory `name` of `parent`; an empty name is
    /// `parent` itself.
    pub(crate) fn make_opaque(self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Marks::Overlay => {
                let path = via_proc(parent, if name.is_empty() { b"." } else { name });
                rustix::fs::lsetxattr(path, OVERLAY_OPAQUE, b"y", XattrFlags::empty())
            }
            Marks::Files => touch(parent, &join(name, OPAQUE)),
        }
    }

    /// What `parent` says about `name`.
    pub(crate) fn look(self, parent: impl AsFd, name: &[u8]) -> rustix::io::Result<Look> {
        let parent = parent.as_fd();
        let hidden = self == Marks::Files && there(parent, &[PREFIX, name].concat())?;
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) if hidden => return Ok(Look::Hidden),
            Err(Errno::NOENT) => return Ok(Look::Nothing),
            other => other?,
        };
        if self.is_whiteout(&stat) {
            return Ok(Look::Hidden);
        }
        let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let last = hidden || !directory || self.is_opaque(parent, name)?;
        Ok(Look::Entry { stat, last })
    }

    /// Whether the directory `name` of `parent` hides what is below it; an empty name is `parent`.
    pub(crate) fn is_opaque(self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
        match self {
            Marks::Overlay => {
                let path = via_proc(parent, if name.is_empty() { b"." } else { name });
                let mut value = [0u8; 8];
                match rustix::fs::lgetxattr(path, OVERLAY_OPAQUE, &mut value[..]) {
                    Ok(length) => Ok(&value[..length] == b"y"),
                    Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
                    Err(errno) => Err(errno),
                }
            }
            Marks::Files => there(parent, &join(name, OPAQUE)),
        }
    }
}

fn there(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn touch(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty()).map(drop)
}
