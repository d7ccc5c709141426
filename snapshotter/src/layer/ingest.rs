//! A layer in the making.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use super::extract::Extraction;
use super::{About, Limits};
use crate::{LayerId, Result, Snapshotter, Usage};

/// What came out of a tar stream.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// The digest of all bytes read: the diff id that the image's configuration must name.
    pub diff_id: LayerId,
    /// What it takes on the disk.
    pub usage: Usage,
    /// Whether something in it depends on the layers below: [`Snapshotter::settle`] sees to that.
    pub leans: bool,
    /// Extended attributes left out: those no image may bring, and those this file system lacks.
    pub skipped_xattrs: u64,
}

/// A fresh directory that becomes a layer, or nothing: dropped before it is committed, it is gone.
#[derive(Debug)]
pub struct Ingest<'s> {
    snapshotter: &'s Snapshotter,
    path: Option<PathBuf>,
    limits: Limits,
}

impl<'s> Ingest<'s> {
    pub(crate) fn new(snapshotter: &'s Snapshotter, limits: Limits) -> Result<Self> {
        Ok(Ingest { snapshotter, path: Some(snapshotter.scratch()?), limits })
    }

    /// Unpacks the uncompressed tar stream `source`, to its end. Once for each ingest.
    pub fn extract(&mut self, source: impl Read) -> Result<Extracted> {
        let Some(path) = &self.path else { unreachable!("only commit and drop take the path") };
        let extraction = Extraction::new(self.snapshotter, path, self.limits, source)?;
        let (about, extracted) = extraction.run()?;
        about.write(path)?;
        Ok(extracted)
    }

    /// Publishes the layer as `layer`. If another ingest did so meanwhile, this one is discarded to
    /// the same effect. The layer is usable at once and durable after [`Snapshotter::sync`].
    pub fn commit(mut self, layer: &LayerId) -> Result<()> {
        let Some(path) = self.path.take() else {
            unreachable!("only commit and drop take the path")
        };
        // Fails, and so publishes nothing, unless `extract` went through.
        About::read(&path).and_then(|_| self.snapshotter.publish_layer(&path, layer)).inspect_err(
            |_| {
                let _ = self.snapshotter.discard(&path);
            },
        )
    }

    /// Publishes the layer in the place of the one that is stored under that name, which was damaged.
    /// Refused while a snapshot stands on that: what is mounted must not change under it.
    pub fn replace(mut self, layer: &LayerId) -> Result<()> {
        let Some(path) = self.path.take() else {
            unreachable!("only commit and drop take the path")
        };
        About::read(&path)
            .and_then(|_| self.snapshotter.remove_layer(layer))
            .and_then(|()| self.snapshotter.publish_layer(&path, layer))
            .inspect_err(|_| {
                let _ = self.snapshotter.discard(&path);
            })
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.path.take()
            && self.snapshotter.discard(&path).is_err()
        {
            let _ = fs::remove_dir_all(path);
        }
    }
}
