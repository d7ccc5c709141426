//! Layers that lean on those below them, put into place. No archive is needed for it.
//!
//! A layer is unpacked before anyone knows what it will lie on. Three things in it may then turn out
//! to mean something else:
//!
//! - A directory that no entry describes has the default owner and mode, but in the merged view it
//!   is to have those of the directory below. Mostly they are the same. If not, one more layer goes
//!   on top, of nothing but the directories concerned, and all others stay shared.
//! - A directory that no entry describes is a symlink below: `lib/x` means `usr/lib/x`.
//! - A hard link leads to a file below.
//!
//! For the last two, a layer is derived from this one: a tree of links to its files, in their right
//! places. It shares all data with the original.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::lean;
use super::merged::{Merged, Tree, What};
use super::{About, Look, index, split};
use crate::copy::{self, Target};
use crate::walk::{join, open_dir, open_root};
use crate::{Error, LayerId, Result, Snapshotter};

/// Where subtrees of a layer go instead, by their old paths.
type Moves = BTreeMap<Vec<u8>, Vec<u8>>;

/// What moves may come to lie under another symlink, but not forever.
const MAX_ROUNDS: usize = 40;

impl Snapshotter {
    /// What to mount for the layers `diff_ids` of an image, the bottom one first, all of which must
    /// be stored: the same, unless one leans on those below. Layers that this makes are named after
    /// what they are made of, so that they are made once.
    pub fn settle(&self, diff_ids: &[LayerId]) -> Result<Vec<LayerId>> {
        if let Some(missing) = diff_ids.iter().find(|layer| !self.has(layer)) {
            return Err(Error::MissingLayer(missing.to_string()));
        }
        let mut merged = Merged::new(self.marks());
        let mut settled: Vec<LayerId> = Vec::with_capacity(diff_ids.len() + 1);
        for layer in diff_ids {
            let tree = Tree::open(self, layer)?;
            // overlayfs asks every directory but the root whether it hides what is below.
            if self.marks().is_opaque(tree.root.as_fd(), b"").map_err(Error::at("look at", b"/"))? {
                merged = Merged::new(self.marks());
                settled.clear();
            }
            merged.add(tree)?;
            settled.push(layer.clone());
            self.place_top(&mut merged, &mut settled)?;
        }
        let faces = wrong_faces(&mut merged)?;
        if !faces.is_empty() {
            let derived = LayerId::derived("podwright: directories of", &settled);
            if !self.has(&derived) {
                self.mend(&derived, &mut merged, &faces)?;
            }
            settled.push(derived);
        }
        Ok(settled)
    }

    /// Derives layers from the topmost one until everything in it is where it belongs.
    fn place_top(&self, merged: &mut Merged, settled: &mut [LayerId]) -> Result<()> {
        let top = settled.len() - 1;
        for _ in 0..MAX_ROUNDS {
            let moves = moves(merged)?;
            if moves.is_empty() && merged.trees[top].lean.links.is_empty() {
                return Ok(());
            }
            let derived = LayerId::derived("podwright: over the layers below", settled);
            if !self.has(&derived) {
                self.derive(&settled[top], &derived, merged, &moves)?;
            }
            merged.replace_top(Tree::open(self, &derived)?);
            settled[top] = derived;
        }
        Err(Error::archive(b"", "directories that keep leading through other symlinks"))
    }

    /// Makes `derived` out of the topmost layer: with `moves`, and its hard links made.
    fn derive(
        &self,
        layer: &LayerId,
        derived: &LayerId,
        merged: &mut Merged,
        moves: &Moves,
    ) -> Result<()> {
        let scratch = self.scratch()?;
        let filled = self.fill_derived(&scratch, layer, merged, moves);
        filled.and_then(|()| self.publish_layer(&scratch, derived)).or_else(|err| {
            self.discard(&scratch)?;
            Err(err)
        })
    }

    fn fill_derived(
        &self,
        scratch: &Path,
        layer: &LayerId,
        merged: &mut Merged,
        moves: &Moves,
    ) -> Result<()> {
        let top = merged.trees.len() - 1;
        let (root, trash) = (new_root(scratch)?, open_root(&self.root.join("trash"))?);
        let lean = merged.trees[top].lean.clone();
        let mut made_up: BTreeSet<_> = lean.made_up.iter().map(|path| moved(moves, path)).collect();
        for path in moves.values() {
            make_up(&root, path, |dir| {
                let told = open_dir(&merged.trees[top].root, dir).is_ok();
                if !told {
                    made_up.insert(dir.to_vec());
                }
            })?;
        }
        let target = Target { root: &root, trash: &trash, link: Some(self.marks()) };
        // What moves comes last: where both are, it wins.
        let mut times = Vec::new();
        for moving in [false, true] {
            times.extend(target.put(&merged.trees[top].root, |path| {
                let to = moved(moves, path);
                if (to != path) != moving || moves.contains_key(path) {
                    return None;
                }
                // What no entry describes has no say where something is already.
                let mute = moving && lean.made_up.contains(path) && open_dir(&root, &to).is_ok();
                (!mute).then_some(to)
            })?);
        }
        copy_root(&merged.trees[top].root, &root)?;
        for (path, to) in moves {
            self.carry_opaque(&merged.trees[top].root, path, &root, to)
                .map_err(Error::at("make opaque", to))?;
        }
        for (path, to) in &lean.links {
            let path = moved(moves, path);
            let (dir, name) = split(&path);
            make_up(&root, dir, |_| ())?;
            let into = open_dir(&root, dir).map_err(Error::at("open", dir))?;
            link(merged, &root, to, &into, name).and_then(|linked| match linked {
                Ok(()) => Ok(()),
                Err(Errno::NOENT) => Err(Error::archive(&path, "a hard link to what is not there")),
                Err(errno) => Err(Error::at("link", &path)(errno)),
            })?;
        }
        target.set_times(&times)?;
        lean::write(scratch, &made_up, &[])?;
        index::rewrite(&self.layer(layer), scratch, |path| moved(moves, path))?;
        About { replaced: true, ..About::read(&self.layer(layer))? }.write(scratch)
    }

    /// A directory that hides what is below does so where it has moved to.
    fn carry_opaque(
        &self,
        from: &OwnedFd,
        path: &[u8],
        root: &OwnedFd,
        to: &[u8],
    ) -> rustix::io::Result<()> {
        if self.marks().is_opaque(open_dir(from, path)?.as_fd(), b"")? {
            self.marks().make_opaque(open_dir(root, to)?.as_fd(), b"")?;
        }
        Ok(())
    }

    /// Makes `derived`: the directories `faces`, and those above them, as they should look.
    fn mend(
        &self,
        derived: &LayerId,
        merged: &mut Merged,
        faces: &BTreeSet<Vec<u8>>,
    ) -> Result<()> {
        let scratch = self.scratch()?;
        let root = new_root(&scratch)?;
        let mut paths = BTreeSet::from([Vec::new()]);
        for path in faces {
            let mut path = path.as_slice();
            while !path.is_empty() && paths.insert(path.to_vec()) {
                path = split(path).0;
            }
        }
        for path in &paths {
            if !path.is_empty() {
                let (dir, name) = split(path);
                open_dir(&root, dir)
                    .and_then(|parent| rustix::fs::mkdirat(parent, name, Mode::RWXU))
                    .map_err(Error::at("create", path))?;
            }
        }
        // Children first: a parent's times would change with them.
        for path in paths.iter().rev() {
            let Some(layer) = teller(merged, path)? else { continue };
            copy::face(&merged.trees[layer].root, &root, path).map_err(Error::at("copy", path))?;
        }
        lean::write(&scratch, &BTreeSet::new(), &[])?;
        index::Writer::create(&scratch)?.finish()?;
        let mut about = About::default();
        about.usage.inodes = paths.len() as u64;
        about.write(&scratch)?;
        self.publish_layer(&scratch, derived)
    }
}

/// The subtrees of the topmost layer that lie where a lower one has a symlink to elsewhere.
fn moves(merged: &mut Merged) -> Result<Moves> {
    let top = merged.trees.len() - 1;
    let made_up = merged.trees[top].lean.made_up.clone();
    let mut moves = Moves::new();
    for path in made_up.iter().filter(|path| !path.is_empty()) {
        if moved(&moves, path) != *path {
            continue;
        }
        let (dir, name) = split(path);
        let What::Directory(layers) = merged.look(top + 1, dir)? else { continue };
        let below: Vec<usize> = layers.iter().copied().filter(|&layer| layer < top).collect();
        if let What::Other(_, stat) = merged.among(&below, dir, name)?
            && FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
            && let to = merged.resolve(top, path)?
            && to != *path
        {
            if matches!(merged.look(top, &to)?, What::Other(..)) {
                return Err(Error::archive(path, "a symlink to a file is in its place"));
            }
            moves.insert(path.clone(), to);
        }
    }
    Ok(moves)
}

/// Where `path` is after `moves`.
fn moved(moves: &Moves, path: &[u8]) -> Vec<u8> {
    let mut prefix = path;
    while !moves.is_empty() && !prefix.is_empty() {
        if let Some(to) = moves.get(prefix) {
            let rest = path[prefix.len()..].strip_prefix(b"/").unwrap_or_default();
            return if rest.is_empty() { to.clone() } else { join(to, rest) };
        }
        prefix = split(prefix).0;
    }
    path.to_vec()
}

/// Links `name` in `into` to what `target` is: in the new tree `root` if it is there, else below.
fn link(
    merged: &mut Merged,
    root: &OwnedFd,
    target: &[u8],
    into: &OwnedFd,
    name: &[u8],
) -> Result<rustix::io::Result<()>> {
    let top = merged.trees.len() - 1;
    let (dir, last) = split(target);
    let dir = merged.resolve(top, dir)?;
    let from = |tree: &OwnedFd| {
        let parent = open_dir(tree, &dir)?;
        rustix::fs::linkat(parent, last, into, name, AtFlags::empty())
    };
    let own = open_dir(root, &dir).and_then(|parent| merged.marks.look(parent, last));
    match own {
        Ok(Look::Entry { .. }) => return Ok(from(root)),
        Ok(Look::Hidden) => return Ok(Err(Errno::NOENT)),
        Ok(Look::Nothing) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
        Err(errno) => return Ok(Err(errno)),
    }
    Ok(match merged.look(top, &join(&dir, last))? {
        What::Other(layer, _) => from(&merged.trees[layer].root),
        What::Directory(_) | What::Nothing => Err(Errno::NOENT),
    })
}

/// The layer that says what the merged directory `path` looks like: the topmost with an entry for
/// it, else the topmost that has it.
fn teller(merged: &mut Merged, path: &[u8]) -> Result<Option<usize>> {
    let height = merged.trees.len();
    let What::Directory(layers) = merged.look(height, path)? else { return Ok(None) };
    let told = layers.iter().find(|&&layer| !merged.trees[layer].lean.made_up.contains(path));
    Ok(told.or(layers.first()).copied())
}

/// The directories that do not look as they should, since a layer made them up over others.
fn wrong_faces(merged: &mut Merged) -> Result<BTreeSet<Vec<u8>>> {
    let height = merged.trees.len();
    let all: BTreeSet<Vec<u8>> =
        merged.trees.iter().flat_map(|tree| tree.lean.made_up.iter().cloned()).collect();
    let mut wrong = BTreeSet::new();
    for path in all {
        let What::Directory(layers) = merged.look(height, &path)? else { continue };
        let (Some(&shown), Some(teller)) = (layers.first(), teller(merged, &path)?) else {
            continue;
        };
        if shown == teller {
            continue;
        }
        let (is, ought) = (merged.trees[shown].face(&path)?, merged.trees[teller].face(&path)?);
        let owned = |stat: &rustix::fs::Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
        if owned(&is.0) != owned(&ought.0) || is.1 != ought.1 {
            wrong.insert(path);
        }
    }
    Ok(wrong)
}

fn new_root(scratch: &Path) -> Result<OwnedFd> {
    let tree = scratch.join("fs");
    std::fs::create_dir(&tree).map_err(Error::io("create", &tree))?;
    let root = open_root(&tree)?;
    rustix::fs::fchmod(&root, Mode::from(0o755)).map_err(Error::io("chmod", &tree))?;
    Ok(root)
}

fn copy_root(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    copy::face(from, to, b"").map_err(Error::at("copy", b"/"))
}

/// Makes the directory `path` and those above it, where they are not, and tells of each made.
fn make_up(root: &OwnedFd, path: &[u8], mut made: impl FnMut(&[u8])) -> Result<()> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
    for end in ends.chain([path.len()]).filter(|&end| end > 0) {
        let (dir, name) = split(&path[..end]);
        let parent = open_dir(root, dir).map_err(Error::at("open", dir))?;
        match rustix::fs::mkdirat(&parent, name, Mode::from(0o755)) {
            Ok(()) => made(&path[..end]),
            Err(Errno::EXIST) => continue,
            Err(errno) => return Err(Error::at("create", path)(errno)),
        }
        rustix::fs::chmodat(parent.as_fd(), name, Mode::from(0o755), AtFlags::empty())
            .map_err(Error::at("chmod", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_move_with_the_nearest_directory_above_them() {
        let moves =
            Moves::from([(b"lib".to_vec(), b"usr/lib".to_vec()), (b"a/b".to_vec(), Vec::new())]);
        let cases: [(&[u8], &[u8]); 6] = [
            (b"lib", b"usr/lib"),
            (b"lib/x/y", b"usr/lib/x/y"),
            (b"library", b"library"),
            (b"a", b"a"),
            (b"a/b/c", b"c"),
            (b"", b""),
        ];
        for (path, wanted) in cases {
            assert_eq!(moved(&moves, path), wanted, "{}", String::from_utf8_lossy(path));
        }
    }
}
