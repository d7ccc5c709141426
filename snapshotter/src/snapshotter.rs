//! The directory that holds everything, and the layers in it.
//!
//! ```text
//! kind                which snapshotter filled it
//! layers/<hex>/       fs/  index  about  [lean]  [synced]
//! proofs              layers that are as good as synced
//! snapshots/<key>/    layers  [fs/]  [work/]
//! ingest/             what is being made; swept at open
//! trash/              what is to be deleted
//! empty/              a layer of nothing
//! ```

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::layer::{About, Ingest, Limits, Marks};
use crate::proofs::Proofs;
use crate::{Error, LayerId, Result, Usage, mount, probe, snapshot, trash, walk};

/// How layers become a root file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Overlay where it works, else native.
    Auto,
    /// The kernel's overlayfs.
    Overlay,
    /// A copy of all layers for each snapshot.
    Native,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Auto => "auto",
            Kind::Overlay => "overlay",
            Kind::Native => "native",
        }
    }
}

/// Layers and snapshots in one directory. All methods block; they may be called from any thread.
#[derive(Debug)]
pub struct Snapshotter {
    pub(crate) root: PathBuf,
    /// Overlay or native.
    pub(crate) kind: Kind,
    /// Committed but perhaps not yet on the disk.
    fresh: Mutex<Vec<LayerId>>,
    proofs: Proofs,
}

impl Snapshotter {
    /// Opens the directory `root`, creates it if need be, finds out once what the kernel and the
    /// file system can do, and sweeps what an interrupted predecessor left: unfinished layers, and
    /// finished ones that were never synced.
    pub fn open(root: &Path, kind: Kind) -> Result<Self> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        for name in ["layers", "snapshots", "ingest", "trash", "empty"] {
            let path = root.join(name);
            private.create(&path).map_err(Error::io("create", &path))?;
        }
        spread(&root.join("ingest"));
        let empty = root.join("empty");
        let open_to_all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&empty, open_to_all).map_err(Error::io("chmod", &empty))?;

        let layers = root.join("layers");
        let (proofs, doubtful) = Proofs::open(root, &layers, &layers_in(&layers)?)?;
        let mut this = Snapshotter { root: root.to_owned(), kind, fresh: Mutex::default(), proofs };
        for name in this.names("ingest")? {
            let path = root.join("ingest").join(name);
            // The kernel may have been on trial there. A mount point cannot be deleted, nor can what comes after it.
            let _ = mount::umount(&path.join(probe::TARGET));
            this.discard(&path)?;
        }
        for layer in doubtful {
            this.discard(&this.layer(&layer))?;
        }
        this.kind = this.settle_kind(kind)?;
        Ok(this)
    }

    fn settle_kind(&self, asked: Kind) -> Result<Kind> {
        let path = self.root.join("kind");
        let stored = match fs::read_to_string(&path).map_err(Error::io("read", &path)) {
            Ok(text) => match text.trim() {
                "native" => Some(Kind::Native),
                "overlay" => Some(Kind::Overlay),
                // Cut short by a loss of power: nothing can have been stored yet.
                _ => None,
            },
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(err) => return Err(err),
        };
        let kind = match (asked, stored) {
            (Kind::Auto, Some(stored)) => stored,
            (Kind::Auto, None) if probe::overlay(self).is_ok() => Kind::Overlay,
            (Kind::Auto, None) => Kind::Native,
            (asked, Some(stored)) if asked != stored => {
                let (root, stored, asked) = (self.root.clone(), stored.name(), asked.name());
                return Err(Error::OtherKind { root, stored, asked });
            }
            (asked, _) => asked,
        };
        if kind == Kind::Overlay {
            probe::overlay(self).map_err(|source| Error::NoOverlay {
                root: self.root.clone(),
                source: Box::new(source),
            })?;
        }
        if stored.is_none() {
            // What is stored later means nothing without it.
            let write = || {
                let mut file = fs::File::create(&path)?;
                file.write_all(kind.name().as_bytes())?;
                file.sync_all()?;
                fs::File::open(&self.root)?.sync_all()
            };
            write().map_err(Error::io("write", &path))?;
        }
        Ok(kind)
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A directory with nothing in it, for overlays that have too few.
    pub fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Which kind was asked for or found to work; never [`Kind::Auto`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the layer is stored.
    pub fn has(&self, layer: &LayerId) -> bool {
        self.tree(layer).is_dir()
    }

    /// What the layer takes on the disk; `None` if it is not stored.
    pub fn layer_usage(&self, layer: &LayerId) -> Option<Usage> {
        About::read(&self.layer(layer)).ok().map(|about| about.usage)
    }

    /// All layers stored, those that [`Snapshotter::settle`] made included.
    pub fn layers(&self) -> Result<Vec<LayerId>> {
        layers_in(&self.root.join("layers"))
    }

    /// Starts a new layer.
    pub fn ingest(&self, limits: Limits) -> Result<Ingest<'_>> {
        Ingest::new(self, limits)
    }

    /// Makes all layers committed so far durable. Until then they are usable, but a crash loses
    /// them; so call it before anything durable says that they are there.
    pub fn sync(&self) -> Result<()> {
        // Held throughout: who shares a fresh layer must wait for whoever is syncing it.
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        let root = walk::open_root(&self.root)?;
        rustix::fs::syncfs(&root).map_err(Error::io("sync", &self.root))?;
        if fresh.is_empty() {
            return Ok(());
        }
        self.proofs.add(&self.root, &self.root.join("layers"), &fresh)?;
        fresh.clear();
        Ok(())
    }

    /// Removes a layer, unless a snapshot uses it. That it is not there is no error.
    pub fn remove_layer(&self, layer: &LayerId) -> Result<()> {
        for key in self.list()? {
            if snapshot::layers_of(self, &key)?.contains(layer) {
                return Err(Error::InUse { layer: layer.to_string(), key });
            }
        }
        self.discard(&self.layer(layer))
    }

    /// Removes all layers that [`Snapshotter::unused`] names; returns what it removed.
    pub fn gc(&self, keep: &HashSet<LayerId>) -> Result<Vec<LayerId>> {
        let unused = self.unused(keep)?;
        unused.iter().try_for_each(|layer| self.discard(&self.layer(layer)))?;
        Ok(unused)
    }

    /// All layers but those in `keep`, those that snapshots use and those not yet synced. Layers of
    /// pulls under way belong in `keep`.
    pub fn unused(&self, keep: &HashSet<LayerId>) -> Result<Vec<LayerId>> {
        // First the layers: what is published after this is not looked at.
        let layers = self.layers()?;
        let mut used: HashSet<LayerId> = HashSet::new();
        for key in self.list()? {
            used.extend(snapshot::layers_of(self, &key)?);
        }
        used.extend(self.fresh.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        let unused = |layer: &LayerId| !keep.contains(layer) && !used.contains(layer);
        Ok(layers.into_iter().filter(unused).collect())
    }

    /// Deletes what was removed, for about `budget`; true when nothing is left to delete. Meant for
    /// a background task, at any time, also after a crash.
    pub fn empty_trash(&self, budget: Duration) -> Result<bool> {
        trash::empty(&self.root.join("trash"), budget)
    }

    pub(crate) fn layer(&self, layer: &LayerId) -> PathBuf {
        self.root.join("layers").join(layer.hex())
    }

    /// The root of a layer's tree.
    pub(crate) fn tree(&self, layer: &LayerId) -> PathBuf {
        self.layer(layer).join("fs")
    }

    /// How layers here say that something is gone.
    pub(crate) fn marks(&self) -> Marks {
        if self.kind == Kind::Native { Marks::Files } else { Marks::Overlay }
    }

    /// A new empty directory in `ingest`.
    pub(crate) fn scratch(&self) -> Result<PathBuf> {
        let path = self.root.join("ingest").join(trash::unique());
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// Publishes a finished directory as `to`; false if that exists already.
    pub(crate) fn publish(&self, from: &Path, to: &Path) -> Result<bool> {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(Error::io("rename", from)(errno)),
        }
    }

    /// Publishes a finished layer; whoever comes second loses, to the same effect.
    pub(crate) fn publish_layer(&self, from: &Path, layer: &LayerId) -> Result<()> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if self.publish(from, &self.layer(layer))? {
            fresh.push(layer.clone());
            return Ok(());
        }
        self.discard(from)
    }

    /// Moves `path` out of the way, to be deleted later. That it is not there is no error.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        match fs::rename(path, self.root.join("trash").join(trash::unique())) {
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(Error::io("remove", path)),
        }
    }

    pub(crate) fn names(&self, dir: &str) -> Result<Vec<String>> {
        names_in(&self.root.join(dir))
    }
}

/// Tells the file system that what is made in `path` has nothing to do with its neighbours (chattr +T). ext4 puts a
/// directory near its parent otherwise, and looks at every inode there that was freed a short while ago before it
/// takes one: after layers were deleted, a file of the next one took thirty times as long to make. Layers that are
/// unpacked at the same time also keep out of each other's way. Other file systems do not know it, and need not.
fn spread(path: &Path) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let Ok(dir) = walk::open_root(path) else { return };
    let _ = ioctl_getflags(&dir).and_then(|flags| ioctl_setflags(&dir, flags | IFlags::TOPDIR));
}

fn names_in(path: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(path).map_err(Error::io("read", path))?;
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.map_err(Error::io("read", path))?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}

fn layers_in(path: &Path) -> Result<Vec<LayerId>> {
    let parse = |name: String| format!("sha256:{name}").parse().ok();
    Ok(names_in(path)?.into_iter().filter_map(parse).collect())
}
