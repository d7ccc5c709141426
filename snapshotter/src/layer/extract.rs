//! From a tar stream to a tree: each entry made where it belongs, in the order in which they come.
//!
//! A later entry takes the place of an earlier one. Directories get their times, set-gid bits and
//! attributes at the end, since what is made in them would change the first and inherit the others.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::dangling::Dangling;
use super::entry::{Entry, Kind, Owned};
use super::file::{self, Contents, Masked};
use super::index::{self, Record, Type};
use super::marks::{OPAQUE, PREFIX, RESERVED};
use super::parents::{Parent, Parents};
use super::stream::Stream;
use super::{About, Extracted, Limits, Look, Marks, lean, split};
use crate::walk::{join, open_dir, open_root};
use crate::{Error, Result, Snapshotter, Usage, trash};

const SETGID: u32 = 0o2000;
/// What a file system allocates at once, for the estimate of a layer's size.
const BLOCK: u64 = 4096;

/// Bytes of the names of files both removed and made; who removes what is below a file of the same name has no
/// need to.
const MAX_HIDDEN: usize = 16 << 20;

/// What an entry displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Displaced {
    Nothing,
    Entry,
}

/// One run over one stream.
pub(super) struct Extraction<'a, R> {
    layer: &'a Path,
    stream: Stream<R>,
    limits: Limits,
    parents: Parents,
    marks: Marks,
    masked: Masked,
    index: index::Writer,
    trash: OwnedFd,
    usage: Usage,
    entries: u64,
    skipped_xattrs: u64,
    links: Dangling,
    /// Files with a whiteout of their own name, which matters if a directory takes their place.
    hidden: HashSet<Vec<u8>>,
    hidden_bytes: usize,
}

impl<'a, R: Read> Extraction<'a, R> {
    pub(super) fn new(
        snapshotter: &Snapshotter,
        layer: &'a Path,
        limits: Limits,
        source: R,
    ) -> Result<Self> {
        let tree = layer.join("fs");
        std::fs::create_dir(&tree).map_err(Error::io("create", &tree))?;
        let root = open_root(&tree)?;
        rustix::fs::fchmod(&root, Mode::from(0o755)).map_err(Error::io("chmod", &tree))?;
        let marks = snapshotter.marks();
        Ok(Extraction {
            layer,
            stream: Stream::new(source, limits),
            limits,
            parents: Parents::new(root, marks),
            marks,
            masked: Masked::new(),
            index: index::Writer::create(layer)?,
            trash: open_root(&snapshotter.root.join("trash"))?,
            usage: Usage { bytes: 0, inodes: 1 },
            entries: 0,
            skipped_xattrs: 0,
            links: Dangling::default(),
            hidden: HashSet::new(),
            hidden_bytes: 0,
        })
    }

    pub(super) fn run(mut self) -> Result<(About, Extracted)> {
        while let Some(entry) = self.stream.next()? {
            self.entries += 1;
            self.skipped_xattrs += entry.refused_xattrs;
            self.apply(entry)?;
            // After it: the directories that lead to one entry count too.
            if self.entries + self.parents.made > self.limits.max_inodes {
                return Err(Error::Limit { what: "files", limit: self.limits.max_inodes });
            }
        }
        let diff_id = self.stream.finish()?;
        let (entries, replaced) = (self.index.entries, self.index.replaced);
        self.index.finish()?;
        self.skipped_xattrs += finish_directories(self.layer, self.parents.root())?;
        self.usage.inodes += self.parents.made;
        // An entry for the root is rare, and a made-up root like the default is what all have.
        let made_up = self.parents.into_made_up();
        let links = self.links.into_ordered();
        let leans = !links.is_empty() || made_up.len() > 1;
        lean::write(self.layer, &made_up, &links)?;
        let about = About { usage: self.usage, entries, replaced };
        let (usage, skipped_xattrs) = (self.usage, self.skipped_xattrs);
        Ok((about, Extracted { diff_id, usage, leans, skipped_xattrs }))
    }

    fn apply(&mut self, mut entry: Entry) -> Result<()> {
        if entry.path.is_empty() {
            return self.root(entry);
        }
        let (dir, name) = split(&entry.path);
        let (dir, name) = (dir.to_vec(), name.to_vec());
        if dir.split(|&byte| byte == b'/').any(|part| part.starts_with(PREFIX)) {
            if dir.split(|&byte| byte == b'/').any(|part| part.starts_with(RESERVED)) {
                return self.stream.content(entry.size, |_| Ok(()));
            }
            return Err(Error::archive(&entry.path, "an entry inside a whiteout"));
        }
        if name.starts_with(PREFIX) {
            self.stream.content(entry.size, |_| Ok(()))?;
            return self.whiteout(&dir, &name, &entry.path);
        }
        let parent = self.parents.get(&dir)?;
        let path = join(&parent.path, &name);
        let kind = entry.kind.clone();
        if matches!(kind, Kind::Character(0, 0)) {
            return self.hide(&parent, &name, path);
        }
        let to_itself = matches!(&kind, Kind::HardLink(target) if *target == path);
        let replaces_link = !to_itself && self.links.remove(&path);
        let mut record = Record::of(&mut entry, path);
        let displaced = match &kind {
            Kind::File => self.file(&parent, &name, &mut record, entry.size, &[])?,
            Kind::Sparse(map, _) => self.file(&parent, &name, &mut record, entry.size, map)?,
            Kind::Directory => self.directory(&parent, &name, &record)?,
            Kind::HardLink(target) => match self.hard_link(&parent, &name, &record, target)? {
                Some(displaced) => displaced,
                None => return Ok(()),
            },
            Kind::Symlink(target) => {
                let make = || rustix::fs::symlinkat(target, &parent.fd, &name);
                let ((), displaced) = self.put(&parent, &name, &record.path, make)?;
                self.finish_at(&parent, &name, &record, None)?;
                displaced
            }
            Kind::Character(..) | Kind::Block(..) | Kind::Fifo => {
                let kind = match kind {
                    Kind::Character(..) => FileType::CharacterDevice,
                    Kind::Block(..) => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let (mode, device) = (Mode::from(record.owned.mode), record.size);
                let make = || rustix::fs::mknodat(&parent.fd, &name, kind, mode, device);
                let ((), displaced) = self.put(&parent, &name, &record.path, make)?;
                self.finish_at(&parent, &name, &record, Some(self.masked))?;
                displaced
            }
        };
        record.replaces = replaces_link || displaced == Displaced::Entry;
        self.index.write(&record)
    }

    fn root(&mut self, mut entry: Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(Error::archive(b"/", "the root is not a directory"));
        }
        let mut record = Record::of(&mut entry, Vec::new());
        record.replaces = true;
        self.parents.is_told(b"");
        own_again(self.parents.root(), b".", &record.owned).map_err(Error::at("own", b"/"))?;
        self.index.write(&record)
    }

    fn file(
        &mut self,
        parent: &Rc<Parent>,
        name: &[u8],
        record: &mut Record,
        size: u64,
        regions: &[tar_core::SparseEntry],
    ) -> Result<Displaced> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::from(record.owned.mode & 0o777);
        let make = || rustix::fs::openat(&parent.fd, name, flags | OFlags::CLOEXEC, mode);
        let (file, displaced) = self.put(parent, name, &record.path, make)?;
        if record.size > size {
            rustix::fs::ftruncate(&file, record.size)
                .map_err(Error::at("set the size of", &record.path))?;
        }
        let mut contents = Contents::new(&file, size, regions);
        self.stream.content(size, |bytes| {
            contents.write(bytes).map_err(Error::at("write", &record.path))
        })?;
        record.checksum = contents.checksum();
        self.usage.bytes += size.next_multiple_of(BLOCK);
        self.skipped_xattrs += file::finish(&file, &record.owned, &record.xattrs, self.masked)
            .map_err(Error::at("set the attributes of", &record.path))?;
        Ok(displaced)
    }

    fn directory(
        &mut self,
        parent: &Rc<Parent>,
        name: &[u8],
        record: &Record,
    ) -> Result<Displaced> {
        let owned = Owned { mode: record.owned.mode & !SETGID, ..record.owned };
        let make = || rustix::fs::mkdirat(&parent.fd, name, Mode::from(owned.mode & 0o1777));
        self.parents.is_told(&record.path);
        let fd = parent.fd.as_fd();
        if is_directory(parent, name) {
            own_again(fd, name, &owned).map_err(Error::at("own", &record.path))?;
            return Ok(Displaced::Entry);
        }
        let ((), displaced) = self.put(parent, name, &record.path, make)?;
        if self.hidden.contains(&record.path) {
            self.marks.make_opaque(fd, name).map_err(Error::at("make opaque", &record.path))?;
        }
        file::own(fd, name, &owned, Some(self.masked)).map_err(Error::at("own", &record.path))?;
        Ok(displaced)
    }

    /// `None` for a link to itself. One to what is not in this layer is remembered.
    fn hard_link(
        &mut self,
        parent: &Rc<Parent>,
        name: &[u8],
        record: &Record,
        target: &[u8],
    ) -> Result<Option<Displaced>> {
        let bad = |reason: &str| Error::archive(&record.path, reason);
        let (target_dir, target_name) = split(target);
        if target_name.is_empty() || target_name.starts_with(PREFIX) {
            return Err(bad("a hard link to what is no file"));
        }
        let found = self.parents.find(target_dir)?;
        if let Some(from) = &found {
            if from.path == parent.path && target_name == name {
                return Ok(None);
            }
            match self.marks.look(&from.fd, target_name).map_err(Error::at("look at", target))? {
                Look::Entry { stat, .. }
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory =>
                {
                    return Err(bad("a hard link to a directory"));
                }
                Look::Hidden => return Err(bad("a hard link to what the layer removes")),
                Look::Entry { .. } | Look::Nothing => {}
            }
            let flags = AtFlags::empty();
            let make = || rustix::fs::linkat(&from.fd, target_name, &parent.fd, name, flags);
            match self.put(parent, name, &record.path, make) {
                Ok(((), displaced)) => {
                    self.usage.inodes -= 1;
                    return Ok(Some(displaced));
                }
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(err) => return Err(err),
            }
        }
        let there = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        let displaced =
            if there { self.displace(parent, name, &record.path)? } else { Displaced::Nothing };
        self.links.add(record.path.clone(), target.to_vec())?;
        Ok(Some(displaced))
    }

    fn whiteout(&mut self, dir: &[u8], name: &[u8], path: &[u8]) -> Result<()> {
        if name == OPAQUE {
            let parent = self.parents.get(dir)?;
            self.marks
                .make_opaque(parent.fd.as_fd(), b"")
                .map_err(Error::at("make opaque", &parent.path))?;
            return self.index.write(&Record::new(parent.path.clone(), Type::Opaque));
        }
        if name.starts_with(RESERVED) {
            return Ok(());
        }
        let name = &name[PREFIX.len()..];
        if matches!(name, b"" | b"." | b"..") {
            return Err(Error::archive(path, "a whiteout of nothing"));
        }
        let parent = self.parents.get(dir)?;
        let path = join(&parent.path, name);
        self.hide(&parent, name, path)
    }

    /// What lower layers have at `path` is gone. What this layer has there stays, whichever of the
    /// two came first.
    fn hide(&mut self, parent: &Rc<Parent>, name: &[u8], path: Vec<u8>) -> Result<()> {
        if self.links.has(&path) {
            return Ok(());
        }
        let fd = parent.fd.as_fd();
        if is_directory(parent, name) {
            self.parents.is_told(&path);
        }
        match self.marks.hide(fd, name) {
            Ok(()) => self.usage.inodes += 1,
            Err(Errno::EXIST) if is_directory(parent, name) => {
                self.marks.make_opaque(fd, name).map_err(Error::at("make opaque", &path))?;
            }
            Err(Errno::EXIST) => self.note_hidden(&path)?,
            Err(errno) => return Err(Error::at("create the whiteout", &path)(errno)),
        }
        self.index.write(&Record::new(path, Type::Whiteout))
    }

    /// There is a whiteout of `path`, though the tree does not show it.
    fn note_hidden(&mut self, path: &[u8]) -> Result<()> {
        if self.hidden.insert(path.to_vec()) {
            self.hidden_bytes += path.len() + 64;
        }
        if self.hidden_bytes <= MAX_HIDDEN {
            return Ok(());
        }
        Err(Error::Limit { what: "bytes of files removed and made", limit: MAX_HIDDEN as u64 })
    }

    /// Makes something new, in the place of what is there.
    fn put<T>(
        &mut self,
        parent: &Parent,
        name: &[u8],
        path: &[u8],
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<(T, Displaced)> {
        self.usage.inodes += 1;
        let (made, displaced) = match make() {
            Err(Errno::EXIST) => {
                let displaced = self.displace(parent, name, path)?;
                (make(), displaced)
            }
            other => (other, Displaced::Nothing),
        };
        Ok((made.map_err(Error::at("create", path))?, displaced))
    }

    fn displace(&mut self, parent: &Parent, name: &[u8], path: &[u8]) -> Result<Displaced> {
        let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::at("stat", path))?;
        self.usage.inodes = self.usage.inodes.saturating_sub(1);
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let opaque = self.marks.is_opaque(parent.fd.as_fd(), name);
            if opaque.map_err(Error::at("look at", path))? {
                self.note_hidden(path)?;
            }
            rustix::fs::renameat(&parent.fd, name, &self.trash, trash::unique())
                .map_err(Error::at("replace", path))?;
        } else {
            rustix::fs::unlinkat(&parent.fd, name, AtFlags::empty())
                .map_err(Error::at("replace", path))?;
        }
        if matches!(kind, FileType::Directory | FileType::Symlink) {
            self.parents.is_gone(path);
            self.links.remove_below(&join(path, b""));
        }
        if self.marks.is_whiteout(&stat) {
            self.note_hidden(path)?;
            return Ok(Displaced::Nothing);
        }
        Ok(Displaced::Entry)
    }

    fn finish_at(
        &mut self,
        parent: &Parent,
        name: &[u8],
        record: &Record,
        masked: Option<Masked>,
    ) -> Result<()> {
        let fd = parent.fd.as_fd();
        self.skipped_xattrs += file::finish_at(fd, name, &record.owned, &record.xattrs, masked)
            .map_err(Error::at("set the attributes of", &record.path))?;
        Ok(())
    }
}

fn is_directory(parent: &Parent, name: &[u8]) -> bool {
    rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Owner and mode of a directory that may have had others.
fn own_again(parent: BorrowedFd<'_>, name: &[u8], owned: &Owned) -> rustix::io::Result<()> {
    use rustix::fs::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(owned.uid), Gid::from_raw(owned.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(parent, name, Mode::from(owned.mode & !SETGID), AtFlags::empty())
}

/// What directories get last, from the index, so that no list of them is kept.
fn finish_directories(layer: &Path, root: BorrowedFd<'_>) -> Result<u64> {
    let mut skipped = 0;
    let mut reader = index::Reader::open(layer)?;
    while let Some(record) = reader.next()? {
        if record.kind != Type::Directory {
            continue;
        }
        // It may have made way for something else since.
        let Ok(dir) = open_dir(root, &record.path) else { continue };
        let finish = || -> rustix::io::Result<u64> {
            if record.owned.mode & SETGID != 0 || record.replaces {
                rustix::fs::fchmod(&dir, Mode::from(record.owned.mode))?;
            }
            let skipped = file::set_xattrs(dir.as_fd(), b".", &record.xattrs)?;
            rustix::fs::futimens(&dir, &file::times(&record.owned))?;
            Ok(skipped)
        };
        skipped += finish().map_err(Error::at("set the attributes of", &record.path))?;
    }
    Ok(skipped)
}
