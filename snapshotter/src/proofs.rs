//! Which layers are certain to be on the disk.
//!
//! In the long run the file `synced` in a layer's directory says so, but a file made after the sync of the layer's
//! contents is not durable itself without another sync. So the same is first said in one file for all layers, `proofs`,
//! a line each, which costs one write and no wait for anybody else's data; at the next open, or once that file has
//! grown, the lines become files. A line names the layer and the one time it was made: one that was removed and came
//! again is not taken for proven.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::layer::About;
use crate::{Error, LayerId, Result, walk};

/// In a layer's directory once its contents are certain to be on the disk.
const SYNCED: &str = "synced";
/// Bytes of lines, before they become files.
const MAX_LINES: u64 = 64 << 10;

/// The file of lines. It is not kept open: a store holds nothing between its calls.
#[derive(Debug)]
pub(crate) struct Proofs(PathBuf);

impl Proofs {
    /// Reads and empties the file in `root`, and says which of the layers in `layers` are not proven.
    pub(crate) fn open(
        root: &Path,
        layers: &Path,
        all: &[LayerId],
    ) -> Result<(Self, Vec<LayerId>)> {
        let proofs = Proofs(root.join("proofs"));
        let file = proofs.file()?;
        let text = fs::read(&proofs.0).map_err(Error::io("read", &proofs.0))?;
        let lines: HashSet<&[u8]> =
            text.split_inclusive(|&b| b == b'\n').filter(|line| line.ends_with(b"\n")).collect();
        let mut doubtful = Vec::new();
        for layer in all {
            let dir = layers.join(layer.hex());
            if dir.join(SYNCED).exists() {
                continue;
            }
            match line(&dir, layer) {
                Some(line) if lines.contains(line.as_bytes()) => mark(&dir)?,
                _ => doubtful.push(layer.clone()),
            }
        }
        // Its name has to be durable before a line in it is relied on.
        file.sync_all().map_err(Error::io("sync", &proofs.0))?;
        let parent = walk::open_root(root)?;
        rustix::fs::fsync(&parent).map_err(Error::io("sync", root))?;
        proofs.settle(root, &file)?;
        Ok((proofs, doubtful))
    }

    fn file(&self) -> Result<File> {
        let mut options = File::options();
        options.append(true).create(true);
        options.open(&self.0).map_err(Error::io("open", &self.0))
    }

    /// The contents of these layers are on the disk: after this it is certain.
    pub(crate) fn add(&self, root: &Path, layers: &Path, proven: &[LayerId]) -> Result<()> {
        let dirs: Vec<_> = proven.iter().map(|layer| layers.join(layer.hex())).collect();
        // One that is gone again needs no proof.
        let lines = proven.iter().zip(&dirs).filter_map(|(layer, dir)| line(dir, layer));
        // The first is empty, in case that a write before was cut off.
        let lines: String = std::iter::once("\n".to_owned()).chain(lines).collect();
        let mut file = self.file()?;
        file.write_all(lines.as_bytes()).map_err(Error::io("write", &self.0))?;
        file.sync_data().map_err(Error::io("sync", &self.0))?;
        dirs.iter().try_for_each(|dir| mark(dir))?;
        let size = file.metadata().map_err(Error::io("stat", &self.0))?.len();
        if size > MAX_LINES { self.settle(root, &file) } else { Ok(()) }
    }

    /// Empties the file, once the files that say the same are on the disk.
    fn settle(&self, root: &Path, file: &File) -> Result<()> {
        if file.metadata().map_err(Error::io("stat", &self.0))?.len() == 0 {
            return Ok(());
        }
        let dir = walk::open_root(root)?;
        rustix::fs::syncfs(&dir).map_err(Error::io("sync", root))?;
        file.set_len(0).map_err(Error::io("empty", &self.0))
    }
}

/// `None`: the layer is not there, or of a version that did not say when it was made.
fn line(dir: &Path, layer: &LayerId) -> Option<String> {
    let birth = About::birth(dir)?;
    Some(format!("{} {birth}\n", layer.hex()))
}

fn mark(dir: &Path) -> Result<()> {
    let path = dir.join(SYNCED);
    match fs::write(&path, "") {
        // Removed meanwhile.
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(Error::io("write", &path)),
    }
}
