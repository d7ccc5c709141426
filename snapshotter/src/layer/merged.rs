//! What layers are together, found out without mounting them: overlayfs's rules for one name at a
//! time.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Stat};

use super::lean::{self, Lean};
use super::parents::components;
use super::{Look, Marks, split};
use crate::walk::{Xattr, join, open_dir, open_root, xattrs};
use crate::{Error, LayerId, Result, Snapshotter};

/// Symlinks followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;

/// What the open ends of all layers of an image may take in memory.
const MAX_LEAN: usize = 64 << 20;
/// Paths remembered.
const MAX_KNOWN: usize = 1 << 16;

/// A stored layer.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: OwnedFd,
    pub(super) lean: Lean,
}

impl Tree {
    pub(super) fn open(snapshotter: &Snapshotter, layer: &LayerId) -> Result<Self> {
        let root = open_root(&snapshotter.tree(layer))?;
        Ok(Tree { root, lean: lean::read(&snapshotter.layer(layer))? })
    }

    /// What a merged directory shows of this layer's: owner, mode and attributes.
    pub(super) fn face(&self, path: &[u8]) -> Result<(Stat, Vec<Xattr>)> {
        let (dir, name) = split(path);
        let name = if name.is_empty() { b"." } else { name };
        let read = || {
            let parent = open_dir(&self.root, dir)?;
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let mut xattrs = xattrs(parent.as_fd(), name)?;
            xattrs.retain(|(key, _)| !key.starts_with(b"trusted.overlay."));
            xattrs.sort();
            Ok((stat, xattrs))
        };
        read().map_err(|errno: rustix::io::Errno| Error::at("stat", path)(errno))
    }
}

/// What a path is in the merged view. Layers are numbered from the bottom.
#[derive(Clone, Debug)]
pub(super) enum What {
    Nothing,
    /// A directory, and the layers whose contents it shows, topmost first.
    Directory(Rc<[usize]>),
    /// Anything else, of one layer.
    Other(usize, Stat),
}

/// Layers on top of each other.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) trees: Vec<Tree>,
    pub(super) marks: Marks,
    lean_bytes: usize,
    /// Of all layers below a number, what a path is.
    known: HashMap<(usize, Vec<u8>), What>,
}

impl Merged {
    pub(super) fn new(marks: Marks) -> Self {
        Merged { trees: Vec::new(), marks, lean_bytes: 0, known: HashMap::new() }
    }

    /// Puts `tree` on top.
    pub(super) fn add(&mut self, tree: Tree) -> Result<()> {
        self.lean_bytes += tree.lean.bytes();
        self.trees.push(tree);
        if self.lean_bytes > MAX_LEAN {
            let what = "bytes of directories without an entry and of links between layers";
            return Err(Error::Limit { what, limit: MAX_LEAN as u64 });
        }
        Ok(())
    }

    /// Puts `tree` in the place of the topmost layer.
    pub(super) fn replace_top(&mut self, tree: Tree) {
        self.trees.pop();
        self.trees.push(tree);
        let height = self.trees.len();
        self.known.retain(|(known, _), _| *known < height);
    }

    /// What `path` is in the lowest `height` layers; no symlink is followed.
    pub(super) fn look(&mut self, height: usize, path: &[u8]) -> Result<What> {
        if path.is_empty() {
            return Ok(What::Directory((0..height).rev().collect()));
        }
        let key = (height, path.to_vec());
        if let Some(what) = self.known.get(&key) {
            return Ok(what.clone());
        }
        let (dir, name) = split(path);
        let what = match self.look(height, dir)? {
            What::Directory(layers) => self.among(&layers, dir, name)?,
            _ => What::Nothing,
        };
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(key, what.clone());
        Ok(what)
    }

    /// What `name` is in the directory `dir`, to which `layers` contribute.
    pub(super) fn among(&self, layers: &[usize], dir: &[u8], name: &[u8]) -> Result<What> {
        let mut found = Vec::new();
        for &layer in layers {
            let looked = open_dir(&self.trees[layer].root, dir)
                .and_then(|parent| self.marks.look(parent.as_fd(), name));
            match looked.map_err(Error::at("look into", dir))? {
                Look::Nothing => {}
                Look::Hidden => break,
                Look::Entry { stat, last } => {
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                        found.push(layer);
                    } else if found.is_empty() {
                        return Ok(What::Other(layer, stat));
                    }
                    if last {
                        break;
                    }
                }
            }
        }
        Ok(if found.is_empty() { What::Nothing } else { What::Directory(found.into()) })
    }

    /// Where `path` leads in the lowest `height` layers, symlinks followed to the last. What is not
    /// there leads where it would be.
    pub(super) fn resolve(&mut self, height: usize, path: &[u8]) -> Result<Vec<u8>> {
        let mut todo: VecDeque<Vec<u8>> = components(path).collect();
        let mut at: Vec<Vec<u8>> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                at.pop();
                continue;
            }
            let dir = at.join(&b'/');
            let layer = match self.look(height, &join(&dir, &name))? {
                What::Other(layer, stat)
                    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink =>
                {
                    layer
                }
                _ => {
                    at.push(name);
                    continue;
                }
            };
            links += 1;
            if links > MAX_LINKS {
                return Err(Error::archive(path, "too many symlinks on the way"));
            }
            let target = open_dir(&self.trees[layer].root, &dir)
                .and_then(|parent| rustix::fs::readlinkat(parent, &name, Vec::new()))
                .map_err(Error::at("read the link", path))?;
            if target.to_bytes().starts_with(b"/") {
                at.clear();
            }
            for part in components(target.to_bytes()).rev() {
                todo.push_front(part);
            }
        }
        Ok(at.join(&b'/'))
    }
}
