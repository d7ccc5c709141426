//! The directories that entries go into, by descriptor.
//!
//! A path is resolved inside the layer's root, symlinks included: a layer may ship `lib ->
//! usr/lib` and then `lib/x`. Directories that no entry has made are made on the way, and marked as
//! made up: their owner and mode are those of a lower layer's directory, if there is one.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::entry::MAX_DEPTH;
use super::{Look, Marks};
use crate::walk::join;
use crate::{Error, Result};

/// Directories kept open.
const OPEN: usize = 64;
/// Symlinks followed on the way to one directory, as in the kernel.
const MAX_LINKS: usize = 40;
/// Bytes of the names of made-up directories; a layer of a million entries has few of them.
const MAX_MADE_UP: usize = 16 << 20;

/// A directory of the layer.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) fd: OwnedFd,
    /// Its path, without symlinks.
    pub(super) path: Vec<u8>,
}

/// All directories of the layer.
#[derive(Debug)]
pub(super) struct Parents {
    root: OwnedFd,
    marks: Marks,
    open: HashMap<Vec<u8>, (Rc<Parent>, u64)>,
    clock: u64,
    made_up: BTreeSet<Vec<u8>>,
    made_up_bytes: usize,
    /// How many directories were made up, ever.
    pub(super) made: u64,
}

impl Parents {
    pub(super) fn new(root: OwnedFd, marks: Marks) -> Self {
        let made_up = BTreeSet::from([Vec::new()]);
        let open = HashMap::new();
        Parents { root, marks, open, clock: 0, made_up, made_up_bytes: 0, made: 0 }
    }

    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The directory `path`, made if need be.
    pub(super) fn get(&mut self, path: &[u8]) -> Result<Rc<Parent>> {
        self.clock += 1;
        if let Some((parent, used)) = self.open.get_mut(path) {
            *used = self.clock;
            return Ok(parent.clone());
        }
        let parent = match self.open(path) {
            Ok(fd) => Parent { fd, path: path.to_vec() },
            Err(_) => self.resolve(path, true)?,
        };
        let parent = Rc::new(parent);
        if self.open.len() >= OPEN {
            let oldest = self.open.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(path) = oldest.map(|(path, _)| path.clone()) {
                self.open.remove(&path);
            }
        }
        self.open.insert(path.to_vec(), (parent.clone(), self.clock));
        Ok(parent)
    }

    /// The directory `path` if it is there.
    pub(super) fn find(&mut self, path: &[u8]) -> Result<Option<Parent>> {
        if let Ok(fd) = self.open(path) {
            return Ok(Some(Parent { fd, path: path.to_vec() }));
        }
        match self.resolve(path, false) {
            Ok(parent) => Ok(Some(parent)),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(err) => Err(err),
        }
    }

    /// The directory `path`, which has no symlink in it.
    pub(super) fn open(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)
    }

    /// One component at a time. Nobody else changes the tree, and no step leaves it: each goes from
    /// one directory's descriptor to a name in it, and `..` goes to where we came from.
    fn resolve(&mut self, path: &[u8], make: bool) -> Result<Parent> {
        let mut todo: VecDeque<Vec<u8>> = components(path).collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut fd = self.open(b"").map_err(Error::at("open", path))?;
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                at.pop();
                fd = self.open(&at.join(&b'/')).map_err(Error::at("open", path))?;
                continue;
            }
            let stat = match rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !self.marks.is_whiteout(&stat) => Some(stat),
                Ok(_) | Err(Errno::NOENT) => None,
                Err(errno) => return Err(Error::at("stat", path)(errno)),
            };
            match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Some(FileType::Directory) => {}
                Some(FileType::Symlink) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::archive(path, "too many symlinks on the way"));
                    }
                    let target = rustix::fs::readlinkat(&fd, &name, Vec::new())
                        .map_err(Error::at("read the link", path))?;
                    if target.to_bytes().starts_with(b"/") {
                        at.clear();
                        fd = self.open(b"").map_err(Error::at("open", path))?;
                    }
                    for part in components(target.to_bytes()).rev() {
                        todo.push_front(part);
                    }
                    continue;
                }
                Some(_) => return Err(Error::archive(path, "its parent is not a directory")),
                None if make => self.make_up(fd.as_fd(), &at, &name)?,
                None => return Err(Error::at("find", path)(Errno::NOENT)),
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            fd = rustix::fs::openat(&fd, &name, flags, Mode::empty())
                .map_err(Error::at("open", path))?;
            at.push(name);
            // Symlinks can add up to what no path of an entry could say.
            if at.len() > MAX_DEPTH {
                return Err(Error::archive(path, "a path too deep"));
            }
        }
        Ok(Parent { fd, path: at.join(&b'/') })
    }

    fn make_up(&mut self, parent: BorrowedFd<'_>, at: &[Vec<u8>], name: &[u8]) -> Result<()> {
        let path = join(&at.join(&b'/'), name);
        let make = || rustix::fs::mkdirat(parent, name, Mode::from(0o755));
        // What the layer removes below has no say in what it makes anew.
        let hidden = match self.marks.look(parent, name).map_err(Error::at("look at", &path))? {
            Look::Hidden => true,
            Look::Nothing | Look::Entry { .. } => false,
        };
        let made = match make() {
            Err(Errno::EXIST) => rustix::fs::unlinkat(parent, name, AtFlags::empty())
                .and_then(|()| make())
                .and_then(|()| self.marks.make_opaque(parent, name)),
            other => other,
        };
        made.and_then(|()| rustix::fs::chmodat(parent, name, Mode::from(0o755), AtFlags::empty()))
            .map_err(Error::at("create", &path))?;
        self.made += 1;
        self.made_up_bytes += path.len() + 64;
        if self.made_up_bytes > MAX_MADE_UP {
            let limit = MAX_MADE_UP as u64;
            return Err(Error::Limit { what: "bytes of directories without an entry", limit });
        }
        if !hidden {
            self.made_up.insert(path);
        }
        Ok(())
    }

    /// An entry has given `path` an owner and a mode after all.
    pub(super) fn is_told(&mut self, path: &[u8]) {
        self.made_up.remove(path);
    }

    /// What was at `path` is gone, and what was below it. Anything kept open may have led there.
    pub(super) fn is_gone(&mut self, path: &[u8]) {
        self.open.clear();
        let below = join(path, b"");
        self.made_up.remove(path);
        while let Some(inner) = self.made_up.range(below.clone()..).next() {
            if !inner.starts_with(&below) {
                break;
            }
            let inner = inner.clone();
            self.made_up.remove(&inner);
        }
    }

    /// The directories that no entry has described; the root is one like any other.
    pub(super) fn into_made_up(self) -> BTreeSet<Vec<u8>> {
        self.made_up
    }
}

/// The components of a path that matter.
pub(super) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}
