//! Repair: one layer of an image is fetched again and takes the place of what has become of it on the disk.
//!
//! The image's manifest and config, kept as files, say which blob it is; it goes through the stages of a pull, both
//! digests compared, before anything is replaced. A form of a layer that was derived from others is derived anew.

use std::sync::Arc;

use snapshotter::LayerId;

use super::config;
use super::error::Error;
use super::export::{documents, layer_blob};
use super::progress::Progress;
use super::pull::{Wanted, blocking, stack};
use super::table::Image;
use super::unpack::{Goal, Place, unpack};
use super::{Images, Inner};
use crate::operation::{Part, What};

impl Images {
    /// Makes a layer again that is not as it should be.
    ///
    /// # Errors
    /// When no image has it, nobody serves it any more, or a container's root file system stands on it: that has to go
    /// first.
    pub(crate) async fn repair(&self, layer: &LayerId) -> Result<(), Error> {
        let has = |image: &&Arc<Image>| {
            image.layers().contains(layer) || image.base_ids().contains(layer)
        };
        let images = self.list();
        let none = || Error::NotFound(format!("an image with the layer {layer}"));
        let image = images.iter().find(has).ok_or_else(none)?.clone();
        let operation = self.0.operations.begin(What::new("repair layer", layer));
        let progress = Progress::new(operation.clone());
        let (inner, layer) = (self.0.clone(), layer.clone());
        let span = tracing::info_span!("repair", %layer, image = %image.id);
        let task = self.0.tasks.spawn(span, async move {
            let repaired = repair(&inner, &image, &layer, Arc::new(progress)).await;
            match &repaired {
                Ok(()) => tracing::info!("layer repaired"),
                Err(err) => tracing::error!(%err, "layer not repaired"),
            }
            inner.layers.empty_trash_soon();
            operation.finish(&repaired);
            repaired
        });
        task.await.map_err(|err| Error::Internal(format!("repair: {err}")))?
    }
}

async fn repair(
    inner: &Arc<Inner>,
    image: &Arc<Image>,
    layer: &LayerId,
    progress: Arc<Progress>,
) -> Result<(), Error> {
    let (reader, of) = (inner.clone(), image.clone());
    let stack = blocking(move || {
        let documents = documents(&reader, &of, None)?;
        let config = documents.all.last().map_or(&[][..], |(_, bytes)| bytes);
        stack(&documents.manifest, &config::parse(config)?)
    });
    let stack = stack.await?;
    match stack.iter().find(|wanted| wanted.layer == *layer) {
        Some(wanted) => fetch(inner, image, wanted, progress).await?,
        None => {
            progress.enter("deriving the layer anew");
            let (layers, layer) = (inner.layers.clone(), layer.clone());
            let alone: Vec<LayerId> = stack.into_iter().map(|wanted| wanted.layer).collect();
            blocking(move || layers.derive_again(&layer, &alone)).await?;
        }
    }
    let syncing = inner.clone();
    blocking(move || syncing.layers.sync()).await
}

async fn fetch(
    inner: &Arc<Inner>,
    image: &Image,
    wanted: &Wanted,
    progress: Arc<Progress>,
) -> Result<(), Error> {
    let Wanted { descriptor, diff_id, layer } = wanted;
    let part = Arc::new(Part::new(descriptor.digest.as_str(), descriptor.size));
    progress.operation().expect(vec![part.clone()]);
    progress.enter("fetching and unpacking the layer");
    let _room = inner.labour.admit().await?;
    loop {
        let was_kept = inner.content.has(&descriptor.digest);
        let flow = layer_blob(inner, image, descriptor).await?;
        let goal = Goal {
            descriptor: descriptor.clone(),
            diff_id: diff_id.clone(),
            layer: layer.clone(),
            keep: None,
            place: Place::Replacing,
            always_allowed: inner.settings.always_allowed,
        };
        match unpack(flow, goal, inner.layers.clone(), part.clone()).await {
            // What is kept of it has been damaged too; the registry may be better.
            Err(err @ Error::Content(_)) if was_kept => {
                tracing::warn!(%err, "the kept blob is wrong");
                let (inner, digest) = (inner.clone(), descriptor.digest.clone());
                blocking(move || inner.content.remove(&digest)).await?;
            }
            other => return other.map(|_| part.done()),
        }
    }
}
