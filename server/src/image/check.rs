//! Looking for what is here and should not be, and for what is not as it should be: for `podwright fsck`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use snapshotter::LayerId;

use super::Images;
use super::digest::Digest;
use super::error::Error;
use super::pull::blocking;
use crate::operation::{Operation, Part};

/// Something that no image has.
#[derive(Debug, Clone)]
pub(crate) enum Stray {
    Layer(LayerId),
    /// A manifest, config or blob.
    File(Digest),
}

/// A layer that differs from what it was made from, or could not be compared.
#[derive(Debug)]
pub(crate) struct Damage {
    pub layer: LayerId,
    pub found: Result<Vec<PathBuf>, String>,
}

impl Images {
    /// Layers and files that no image has.
    pub(crate) async fn strays(&self) -> Result<Vec<Stray>, Error> {
        let inner = self.0.clone();
        let _change = self.0.change.lock().await;
        blocking(move || {
            let wanted: HashSet<Digest> =
                inner.table().all().flat_map(|image| image.files.clone()).collect();
            let layers = inner.layers.strays()?.into_iter().map(Stray::Layer);
            let files = inner.content.list()?.into_iter().filter(|file| !wanted.contains(file));
            Ok(layers.chain(files.map(Stray::File)).collect())
        })
        .await
    }

    /// Removes one of them, unless somebody wants it by now.
    pub(crate) async fn remove_stray(&self, stray: &Stray) -> Result<(), Error> {
        let (inner, stray) = (self.0.clone(), stray.clone());
        let _change = self.0.change.lock().await;
        let removed = blocking(move || match stray {
            Stray::Layer(layer) => inner.layers.remove_stray(&layer),
            Stray::File(file) if inner.table().all().any(|image| image.files.contains(&file)) => {
                Ok(())
            }
            Stray::File(file) => inner.content.remove(&file),
        });
        removed.await?;
        self.0.layers.empty_trash_soon();
        Ok(())
    }

    /// Compares all layers with the index that was kept of each: how many there are, and which differ. They stay
    /// while they are read.
    pub(crate) async fn verify_layers(
        &self,
        operation: &Operation,
    ) -> Result<(u32, Vec<Damage>), Error> {
        let inner = self.0.clone();
        let snapshotter = inner.layers.snapshotter();
        let list = snapshotter.clone();
        let all =
            blocking(move || list.layers().map_err(|err| Error::Snapshot(err.to_string()))).await?;
        let part = |layer: &LayerId| Arc::new(Part::new(layer.as_str(), 0));
        let parts: Vec<_> = all.iter().map(part).collect();
        operation.expect(parts.clone());
        let (mut count, mut damaged) = (0, Vec::new());
        for (layer, part) in all.into_iter().zip(parts) {
            let _lease = inner.layers.lease([layer.clone()]);
            let _reading = operation.waits_for(format!("layer {layer}"));
            let (checker, of) = (snapshotter.clone(), layer.clone());
            let found = blocking(move || Ok(checker.has(&of).then(|| checker.verify(&of)))).await?;
            part.done();
            // Removed since it was listed.
            let Some(found) = found else { continue };
            count += 1;
            match found {
                Ok(paths) if paths.is_empty() => {}
                found => {
                    damaged.push(Damage { layer, found: found.map_err(|err| err.to_string()) });
                }
            }
        }
        Ok((count, damaged))
    }
}
