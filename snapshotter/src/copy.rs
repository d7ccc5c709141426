//! Putting a tree on top of another: a copy of a layer onto a native snapshot, or links to a layer's
//! files in a layer derived from it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

use crate::layer::{Marks, OPAQUE, OVERLAY_OPAQUE, PREFIX};
use crate::walk::{Found, open_dir, via_proc, walk, xattrs};
use crate::{Error, Result, trash};

/// What one tree is put on top of.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    /// Its root.
    pub(crate) root: &'a OwnedFd,
    /// Where that goes which makes way.
    pub(crate) trash: &'a OwnedFd,
    /// If files are linked instead of copied, whiteouts too, and this is what they look like.
    pub(crate) link: Option<Marks>,
}

const CHUNK: usize = 256 << 10;

impl Target<'_> {
    /// Applies the whiteout files of the layer `from`, then copies the rest of it.
    pub(crate) fn apply(&self, from: &OwnedFd) -> Result<()> {
        walk(from, |found| self.hide(found))?;
        self.set_times(&self.put(from, |path| (!is_mark(path)).then(|| path.to_vec()))?)
    }

    /// Puts what is in `from` where `place` says; nowhere if that is `None`. Returns what times
    /// directories are to have once everything is in them.
    pub(crate) fn put(
        &self,
        from: &OwnedFd,
        place: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<Vec<(Vec<u8>, Timestamps)>> {
        let mut links = HashMap::new();
        let mut times = Vec::new();
        walk(from, |found| match place(found.path) {
            Some(path) => self.one(found, &path, &mut links, &mut times),
            None => Ok(()),
        })?;
        Ok(times)
    }

    /// Gives directories the times that [`Target::put`] returned.
    pub(crate) fn set_times(&self, times: &[(Vec<u8>, Timestamps)]) -> Result<()> {
        for (path, time) in times {
            // It may have made way for something else since.
            let Ok(dir) = open_dir(self.root, path) else { continue };
            rustix::fs::futimens(&dir, time).map_err(Error::at("set the times of", path))?;
        }
        Ok(())
    }

    fn one(
        &self,
        found: &Found<'_>,
        path: &[u8],
        links: &mut HashMap<u64, Vec<u8>>,
        times: &mut Vec<(Vec<u8>, Timestamps)>,
    ) -> Result<()> {
        let (dir, name) = crate::layer::split(path);
        let parent = open_dir(self.root, dir).map_err(Error::at("open", dir))?;
        let parent = parent.as_fd();
        if found.kind() == FileType::Directory {
            let fresh = self.directory(parent, name).map_err(Error::at("create", path))?;
            attributes(found, parent, name, fresh).map_err(Error::at("set attributes of", path))?;
            times.push((path.to_vec(), time(&found.stat)));
            return Ok(());
        }
        if self.link.is_some_and(|marks| marks.is_whiteout(&found.stat))
            && let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        {
            // It hides what is below, not what has come to its place.
            return match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.make_opaque(parent, name),
                _ => Ok(()),
            }
            .map_err(Error::at("make opaque", path));
        }
        self.clear(parent, name).map_err(Error::at("replace", path))?;
        if self.link.is_some() {
            let flags = AtFlags::empty();
            rustix::fs::linkat(found.parent, found.name, parent, name, flags)
                .map_err(Error::at("link", path))
        } else if let Some(first) = links.get(&found.stat.st_ino) {
            let (dir, first) = crate::layer::split(first);
            let dir = open_dir(self.root, dir).map_err(Error::at("open", dir))?;
            rustix::fs::linkat(&dir, first, parent, name, AtFlags::empty())
                .map_err(Error::at("link", path))
        } else {
            if found.stat.st_nlink > 1 {
                links.insert(found.stat.st_ino, path.to_vec());
            }
            file(found, parent, name)
                .and_then(|()| Ok(attributes(found, parent, name, true)?))
                .map_err(Error::at("copy", path))
        }
    }

    /// A directory at `name`, the one that is there or a new one; true if it is new.
    fn directory(&self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<bool> {
        let make = || rustix::fs::mkdirat(parent, name, Mode::RWXU);
        match make() {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Ok(false);
                }
                // A layer's own file is in the way of its own directory.
                if self.link.is_some_and(|marks| !marks.is_whiteout(&stat)) {
                    return Err(Errno::NOTDIR);
                }
                self.clear(parent, name)?;
                make()?;
                self.make_opaque(parent, name)?;
                Ok(true)
            }
            Err(errno) => Err(errno),
        }
    }

    fn make_opaque(&self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        self.link.map_or(Ok(()), |marks| marks.make_opaque(parent, name))
    }

    /// Takes away what is at `name`.
    fn clear(&self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => rustix::fs::renameat(parent, name, self.trash, trash::unique()),
            Err(errno) => Err(errno),
        }
    }

    fn hide(&self, found: &Found<'_>) -> Result<()> {
        if !found.name.starts_with(PREFIX) {
            return Ok(());
        }
        let (dir, _) = crate::layer::split(found.path);
        // Below what is no directory there is nothing to hide.
        let Ok(parent) = open_dir(self.root, dir) else { return Ok(()) };
        let hide = || {
            if found.name != OPAQUE {
                return self.clear(parent.as_fd(), &found.name[PREFIX.len()..]);
            }
            for entry in Dir::read_from(&parent)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    self.clear(parent.as_fd(), name)?;
                }
            }
            Ok(())
        };
        hide().map_err(Error::at("hide", found.path))
    }
}

/// Makes the directory `path` of `to` look like that of `from`; what it hides is left alone.
pub(crate) fn face(from: &OwnedFd, to: &OwnedFd, path: &[u8]) -> rustix::io::Result<()> {
    let (dir, name) = crate::layer::split(path);
    let name = if name.is_empty() { b"." } else { name };
    let (parent, target) = (open_dir(from, dir)?, open_dir(to, dir)?);
    let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let found = Found { parent: parent.as_fd(), name, path, stat };
    attributes(&found, target.as_fd(), name, true)?;
    match rustix::fs::lremovexattr(via_proc(target.as_fd(), name), OVERLAY_OPAQUE) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        done => done,
    }
}

fn is_mark(path: &[u8]) -> bool {
    crate::layer::split(path).1.starts_with(PREFIX)
}

fn time(stat: &Stat) -> Timestamps {
    let time =
        |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos.cast_signed() };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

/// Owner, mode, extended attributes and times of `found`, for `name`. A directory that was there
/// loses the attributes that it had.
fn attributes(
    found: &Found<'_>,
    parent: BorrowedFd<'_>,
    name: &[u8],
    fresh: bool,
) -> rustix::io::Result<()> {
    let stat = &found.stat;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if found.kind() != FileType::Symlink {
        rustix::fs::chmodat(parent, name, Mode::from(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    if !fresh {
        for (key, _) in xattrs(parent, name)? {
            if key == OVERLAY_OPAQUE.as_bytes() {
                continue;
            }
            rustix::fs::lremovexattr(via_proc(parent, name), key)?;
        }
    }
    for (key, value) in xattrs(found.parent, found.name)? {
        rustix::fs::lsetxattr(via_proc(parent, name), key, &value, XattrFlags::empty())?;
    }
    rustix::fs::utimensat(parent, name, &time(stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn file(found: &Found<'_>, parent: BorrowedFd<'_>, name: &[u8]) -> std::io::Result<()> {
    match found.kind() {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let from = rustix::fs::openat(found.parent, found.name, flags, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?;
            contents(&from.into(), &to.into(), found.stat.st_size.cast_unsigned())
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(found.parent, found.name, Vec::new())?;
            Ok(rustix::fs::symlinkat(target.as_c_str(), parent, name)?)
        }
        kind => Ok(rustix::fs::mknodat(parent, name, kind, Mode::RUSR, found.stat.st_rdev)?),
    }
}

/// Shares the blocks where the file system can, else copies what is no hole.
fn contents(from: &File, to: &File, size: u64) -> std::io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(size)?;
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(CHUNK).clamp(1, CHUNK)];
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(at))?;
        while at < end {
            let piece = buffer.len().min(usize::try_from(end - at).unwrap_or(CHUNK));
            let read = from.read_at(&mut buffer[..piece], at)?;
            if read == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}
