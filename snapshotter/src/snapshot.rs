//! Snapshots: an ordered list of layers and, for a writable one, a directory that takes the changes.
//!
//! A snapshot is complete from the moment it has its name: it is made in `ingest/` and renamed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::copy::Target;
use crate::id::check_key;
use crate::mount::{self, MAX_LAYERS, Mount};
use crate::{Error, Kind, LayerId, Result, Snapshotter, Usage, probe, walk};

/// What may be done with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Write,
    Read,
}

/// The list of a snapshot's layers, bottom first.
#[derive(Debug, PartialEq, Eq)]
struct Recipe {
    access: Access,
    layers: Vec<LayerId>,
}

impl Snapshotter {
    /// Makes the writable snapshot `key` of `layers`, the bottom one first, and returns how to mount
    /// it; nothing is mounted. A second call with the same arguments returns the same.
    pub fn prepare(&self, key: &str, layers: &[LayerId]) -> Result<Vec<Mount>> {
        self.make(key, &Recipe::new(Access::Write, layers)?)
    }

    /// Makes the read-only snapshot `key` of `layers`, the bottom one first.
    pub fn view(&self, key: &str, layers: &[LayerId]) -> Result<Vec<Mount>> {
        self.make(key, &Recipe::new(Access::Read, layers)?)
    }

    /// How to mount the snapshot `key`; `None` if there is none.
    pub fn mounts(&self, key: &str) -> Result<Option<Vec<Mount>>> {
        let recipe = Recipe::read(&self.snapshot(key)?)?;
        recipe.map(|recipe| self.describe(key, &recipe)).transpose()
    }

    /// Removes the snapshot `key`. That it is not there is no error.
    pub fn remove(&self, key: &str) -> Result<()> {
        self.discard(&self.snapshot(key)?)
    }

    /// The keys of all snapshots.
    pub fn list(&self) -> Result<Vec<String>> {
        self.names("snapshots")
    }

    /// What the snapshot's own directory takes on the disk: what was written to an overlay, the
    /// whole copy of a native one.
    pub fn usage(&self, key: &str) -> Result<Usage> {
        let path = self.snapshot(key)?.join("fs");
        if !path.exists() {
            return Ok(Usage::default());
        }
        let mut usage = Usage { bytes: 0, inodes: 1 };
        let mut linked = std::collections::HashSet::new();
        walk::walk(walk::open_root(&path)?, |found| {
            let many = found.stat.st_nlink > 1 && found.kind() != FileType::Directory;
            if !many || linked.insert(found.stat.st_ino) {
                usage.inodes += 1;
                usage.bytes += found.stat.st_blocks as u64 * 512;
            }
            Ok(())
        })?;
        Ok(usage)
    }

    fn snapshot(&self, key: &str) -> Result<PathBuf> {
        Ok(self.root.join("snapshots").join(check_key(key)?))
    }

    fn make(&self, key: &str, recipe: &Recipe) -> Result<Vec<Mount>> {
        let path = self.snapshot(key)?;
        if let Some(missing) = recipe.layers.iter().find(|layer| !self.has(layer)) {
            return Err(Error::MissingLayer(missing.to_string()));
        }
        if Recipe::read(&path)?.is_none() {
            let scratch = self.scratch()?;
            let made = self.fill(&scratch, recipe).and_then(|()| self.publish(&scratch, &path));
            if !matches!(made, Ok(true)) {
                self.discard(&scratch)?;
            }
            made?;
        }
        match Recipe::read(&path)? {
            Some(found) if found == *recipe => self.describe(key, recipe),
            _ => Err(Error::KeyInUse(key.to_owned())),
        }
    }

    fn fill(&self, scratch: &Path, recipe: &Recipe) -> Result<()> {
        recipe.write(scratch)?;
        let upper = scratch.join("fs");
        match (self.kind, recipe.access) {
            (Kind::Native, _) => {
                make_root(&upper, &self.top(recipe))?;
                let root = walk::open_root(&upper)?;
                let trash = walk::open_root(&self.root.join("trash"))?;
                let target = Target { root: &root, trash: &trash, link: None };
                let mut trees = recipe.layers.iter().map(|layer| self.tree(layer));
                trees.try_for_each(|tree| target.apply(&walk::open_root(&tree)?))
            }
            (_, Access::Write) => {
                let work = scratch.join("work");
                let mut private = fs::DirBuilder::new();
                private.mode(0o700).create(&work).map_err(Error::io("create", &work))?;
                make_root(&upper, &self.top(recipe))
            }
            (_, Access::Read) => Ok(()),
        }
    }

    /// The directory whose owner and mode the merged root has.
    fn top(&self, recipe: &Recipe) -> PathBuf {
        match recipe.layers.last() {
            Some(layer) => self.tree(layer),
            None => self.empty(),
        }
    }

    fn describe(&self, key: &str, recipe: &Recipe) -> Result<Vec<Mount>> {
        let path = self.snapshot(key)?;
        let read_only = recipe.access == Access::Read;
        if self.kind == Kind::Native {
            return Ok(vec![Mount::bind(path.join("fs"), read_only)]);
        }
        let trees = recipe.layers.iter().rev().map(|layer| self.tree(layer));
        let mut layers: Vec<PathBuf> = trees.collect();
        if read_only && layers.is_empty() {
            return Ok(vec![Mount::bind(self.empty(), true)]);
        }
        // An overlay needs a layer below a writable one, and two if all are read-only.
        if layers.len() < if read_only { 2 } else { 1 } {
            layers.push(self.empty());
        }
        let own = |name| (!read_only).then(|| path.join(name));
        Ok(vec![Mount {
            kind: mount::Kind::Overlay,
            layers,
            upper: own("fs"),
            work: own("work"),
            options: if read_only { Vec::new() } else { probe::options() },
            ..Mount::bind("", read_only)
        }])
    }
}

/// The layers that the snapshot `key` stands on; none if it vanished meanwhile.
pub(crate) fn layers_of(snapshotter: &Snapshotter, key: &str) -> Result<Vec<LayerId>> {
    let recipe = Recipe::read(&snapshotter.snapshot(key)?)?;
    Ok(recipe.map(|recipe| recipe.layers).unwrap_or_default())
}

fn make_root(path: &Path, like: &Path) -> Result<()> {
    fs::create_dir(path).map_err(Error::io("create", path))?;
    let like = fs::metadata(like).map_err(Error::io("stat", like))?;
    chown(path, Some(like.uid()), Some(like.gid())).map_err(Error::io("chown", path))?;
    let mode = fs::Permissions::from_mode(like.mode() & 0o7777);
    fs::set_permissions(path, mode).map_err(Error::io("chmod", path))
}

impl Recipe {
    /// A layer that occurs twice counts where it is topmost: there it hides what it would have
    /// brought further down.
    fn new(access: Access, layers: &[LayerId]) -> Result<Self> {
        let again = |n: usize| layers[n + 1..].contains(&layers[n]);
        let layers: Vec<_> =
            (0..layers.len()).filter(|&n| !again(n)).map(|n| layers[n].clone()).collect();
        if layers.len() > MAX_LAYERS {
            return Err(Error::TooManyLayers { count: layers.len(), limit: MAX_LAYERS });
        }
        Ok(Recipe { access, layers })
    }

    fn write(&self, snapshot: &Path) -> Result<()> {
        let mut text = match self.access {
            Access::Write => "rw\n".to_owned(),
            Access::Read => "ro\n".to_owned(),
        };
        for layer in &self.layers {
            let _ = writeln!(text, "{layer}");
        }
        let path = snapshot.join("layers");
        fs::write(&path, text).map_err(Error::io("write", &path))
    }

    /// `None` if there is no snapshot. One whose list a crash truncated is as good as none to
    /// everyone but [`Snapshotter::remove`]: it has no layers.
    fn read(snapshot: &Path) -> Result<Option<Self>> {
        let path = snapshot.join("layers");
        let text = match fs::read_to_string(&path) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("read", &path))?,
        };
        let mut lines = text.lines();
        let access = if lines.next() == Some("ro") { Access::Read } else { Access::Write };
        Ok(Some(Recipe { access, layers: lines.filter_map(|line| line.parse().ok()).collect() }))
    }
}
