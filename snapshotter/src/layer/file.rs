//! Contents and attributes of what an entry made.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar_core::SparseEntry;

use super::entry::Owned;
use crate::walk::{Xattr, via_proc};

/// The bits of `mode` that open(2) and its like leave away, for this process's umask: they need a
/// chmod(2). Set-id bits do as well, since changing the owner or the contents takes them off again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Masked(u32);

impl Masked {
    pub(super) fn new() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
        Masked(umask.unwrap_or(0o777) | 0o6000)
    }

    fn takes(self, mode: u32) -> bool {
        mode & self.0 != 0
    }
}

/// What is new belongs to root; only another owner needs a call.
fn foreign(owned: &Owned) -> Option<(Option<Uid>, Option<Gid>)> {
    let ours = owned.uid == 0 && owned.gid == 0;
    (!ours).then(|| (Some(Uid::from_raw(owned.uid)), Some(Gid::from_raw(owned.gid))))
}

pub(super) fn times(owned: &Owned) -> Timestamps {
    let time = Timespec { tv_sec: owned.seconds, tv_nsec: owned.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Gives a new regular file its owner, mode, attributes and times, in the order that keeps each.
/// Returns how many attributes the file system does not take.
pub(super) fn finish(
    file: &OwnedFd,
    owned: &Owned,
    xattrs: &[Xattr],
    masked: Masked,
) -> rustix::io::Result<u64> {
    if let Some((uid, gid)) = foreign(owned) {
        rustix::fs::fchown(file, uid, gid)?;
    }
    if masked.takes(owned.mode) {
        rustix::fs::fchmod(file, Mode::from(owned.mode))?;
    }
    let mut refused = 0;
    for (name, value) in xattrs {
        let set = rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty());
        refused += taken(set)?;
    }
    rustix::fs::futimens(file, &times(owned))?;
    Ok(refused)
}

/// The same by name, for what cannot be opened; nothing is followed.
pub(super) fn finish_at(
    parent: BorrowedFd<'_>,
    name: &[u8],
    owned: &Owned,
    xattrs: &[Xattr],
    masked: Option<Masked>,
) -> rustix::io::Result<u64> {
    own(parent, name, owned, masked)?;
    let refused = set_xattrs(parent, name, xattrs)?;
    rustix::fs::utimensat(parent, name, &times(owned), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(refused)
}

/// Owner and mode. A symlink has no mode: `masked` is `None`.
pub(super) fn own(
    parent: BorrowedFd<'_>,
    name: &[u8],
    owned: &Owned,
    masked: Option<Masked>,
) -> rustix::io::Result<()> {
    if let Some((uid, gid)) = foreign(owned) {
        rustix::fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    match masked {
        // Never of a symlink: it was made, or found to be no symlink, by the caller a moment ago,
        // in a tree that is nobody else's.
        Some(masked) if masked.takes(owned.mode) => {
            rustix::fs::chmodat(parent, name, Mode::from(owned.mode), AtFlags::empty())
        }
        _ => Ok(()),
    }
}

pub(super) fn set_xattrs(
    parent: BorrowedFd<'_>,
    name: &[u8],
    xattrs: &[Xattr],
) -> rustix::io::Result<u64> {
    let mut refused = 0;
    for (key, value) in xattrs {
        let path = via_proc(parent, name);
        let set = rustix::fs::lsetxattr(path, key.as_slice(), value, XattrFlags::empty());
        refused += taken(set)?;
    }
    Ok(refused)
}

/// A file system without such attributes is no reason to refuse an image.
fn taken(set: rustix::io::Result<()>) -> rustix::io::Result<u64> {
    match set {
        Ok(()) => Ok(0),
        Err(Errno::OPNOTSUPP) => Ok(1),
        Err(errno) => Err(errno),
    }
}

/// Writes a file's bytes where they belong, and sums them up.
pub(super) struct Contents<'a> {
    file: BorrowedFd<'a>,
    checksum: crc32fast::Hasher,
    regions: std::slice::Iter<'a, SparseEntry>,
    /// Where the next byte goes, and how many go there before the next region.
    offset: u64,
    left: u64,
}

impl<'a> Contents<'a> {
    /// `regions` is empty for a file without holes.
    pub(super) fn new(file: &'a OwnedFd, size: u64, regions: &'a [SparseEntry]) -> Self {
        let left = if regions.is_empty() { size } else { 0 };
        let (file, checksum) = (file.as_fd(), crc32fast::Hasher::new());
        Contents { file, checksum, regions: regions.iter(), offset: 0, left }
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> rustix::io::Result<()> {
        self.checksum.update(bytes);
        while !bytes.is_empty() {
            while self.left == 0 {
                let region = self.regions.next().ok_or(Errno::INVAL)?;
                (self.offset, self.left) = (region.offset, region.length);
            }
            let piece = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let written = match rustix::io::pwrite(self.file, &bytes[..piece], self.offset) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            self.offset += written as u64;
            self.left -= written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    pub(super) fn checksum(self) -> u32 {
        self.checksum.finalize()
    }
}
