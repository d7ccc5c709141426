//! Walking a tree that someone else may change meanwhile: no symlink is followed, and two
//! descriptors are open at a time however deep the tree is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use rustix::path::Arg;

use crate::{Error, Result};

/// One entry of a tree.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// The directory that holds it.
    pub(crate) parent: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) name: &'a [u8],
    /// Its path from the tree's root.
    pub(crate) path: &'a [u8],
    /// What it is.
    pub(crate) stat: Stat,
}

impl Found<'_> {
    /// What kind of file it is.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// The directory at `path` of the tree `root`, no symlink followed.
pub(crate) fn open_dir(root: impl AsFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path: &[u8] = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// A directory of the host's, by a path that is our own.
pub(crate) fn open_root(path: &std::path::Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::io("open", path))
}

/// Calls `visit` for everything below `root`, a directory before what it holds. What vanishes
/// meanwhile is passed over, as is what lies too deep to be named.
pub(crate) fn walk(root: impl AsFd, mut visit: impl FnMut(&Found<'_>) -> Result<()>) -> Result<()> {
    let mut pending = vec![Vec::new()];
    while let Some(base) = pending.pop() {
        let dir = match open_dir(&root, &base) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => continue,
            Err(errno) => return Err(Error::at("open", &base)(errno)),
        };
        for entry in Dir::read_from(&dir).map_err(Error::at("read", &base))? {
            let entry = entry.map_err(Error::at("read", &base))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let path = join(&base, name);
            let stat = match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(Error::at("stat", &path)(errno)),
            };
            let found = Found { parent: dir.as_fd(), name, path: &path, stat };
            visit(&found)?;
            if found.kind() == FileType::Directory {
                pending.push(path);
            }
        }
    }
    Ok(())
}

/// `base/name`, where an empty base is the root.
pub(crate) fn join(base: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(base.len() + 1 + name.len());
    if !base.is_empty() {
        path.extend_from_slice(base);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// A path for calls that know neither descriptors nor `AT_EMPTY_PATH`. The last component is
/// whatever the call makes of it; those before it are fixed by the descriptor.
pub(crate) fn via_proc(parent: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    use std::os::fd::AsRawFd as _;
    join(format!("/proc/self/fd/{}", parent.as_raw_fd()).as_bytes(), name)
}

/// All extended attributes of `name` in `parent`, a symlink's own if it is one.
pub(crate) fn xattrs(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<Xattr>> {
    let path = via_proc(parent, name);
    let mut names = [0u8; 65536];
    let length = match rustix::fs::llistxattr(path.as_slice(), &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    let mut value = vec![0u8; if length == 0 { 0 } else { 65536 }];
    for key in names[..length].split(|&byte| byte == 0).filter(|key| !key.is_empty()) {
        match rustix::fs::lgetxattr(path.as_slice(), key.as_cow_c_str()?.as_ref(), &mut value[..]) {
            Ok(length) => found.push((key.to_vec(), value[..length].to_vec())),
            Err(Errno::NODATA) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// An extended attribute: its name and its value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);
