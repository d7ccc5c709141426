//! Making a pulled image known, and forgetting one: the only places where records change.

use std::collections::HashSet;
use std::sync::Arc;

use snapshotter::LayerId;

use super::digest::Digest;
use super::error::Error;
use super::gc::{FIRST_RETRY, LAST_RETRY, Layers, Lease};
use super::pull::blocking;
use super::rebuild;
use super::reference::Reference;
use super::table::{Image, ImageRecord, Table};
use super::{Inner, RECORDS};
use crate::failpoint;
use crate::operation::Operation;

/// Builds the table from the records of an earlier run. A name in two records, left by a crash between their
/// writes, belongs to the image that was pulled last. An image without its layers is not listed, so that the
/// next pull repairs it; the layers that it has left wait for that under leases by name.
pub(super) fn load(
    mut records: Vec<ImageRecord>,
    layers: &Arc<Layers>,
) -> (Table, Vec<(Reference, Arc<Lease>)>) {
    records.sort_by_key(|record| std::cmp::Reverse(record.pulled_at));
    let mut table = Table::default();
    let mut waiting = Vec::new();
    for mut record in records {
        record.tags.retain(|tag| table.named(tag).is_none());
        let Some(names) = record.layer_ids() else {
            tracing::error!(image = %record.id, "the record names no valid layers; left out");
            continue;
        };
        let lease = Arc::new(layers.lease(names.iter().cloned().chain(record.base_ids())));
        if let Some(missing) = names.iter().find(|name| !layers.has(name)) {
            tracing::warn!(image = %record.id, layer = %missing, "a layer is missing; pull the image again");
            let all = record.tags.iter().chain(&record.digests);
            let references = all.filter_map(|name| Reference::parse(name).ok());
            waiting.extend(references.map(|reference| (reference, lease.clone())));
            continue;
        }
        table.insert(Arc::new(Image::new(record, names, lease)));
    }
    (table, waiting)
}

impl Inner {
    /// Makes layers and files durable, records the image and lists it, together with the lease on its layers.
    pub(super) async fn publish(
        self: &Arc<Self>,
        record: ImageRecord,
        layers: Vec<LayerId>,
        files: Vec<(Digest, Vec<u8>)>,
        lease: Arc<Lease>,
    ) -> Result<(), Error> {
        let inner = self.clone();
        let span = tracing::info_span!("record image", image = %record.id);
        // On a task of its own: a caller who goes away must not leave a record without its table entry.
        let task = self.tasks.spawn(span, async move {
            let files = Arc::new(files);
            let (keeper, written) = (inner.clone(), files.clone());
            blocking(move || keeper.write_files(&written)).await?;
            let _change = inner.change.lock().await;
            let keeper = inner.clone();
            blocking(move || keeper.restore_files(&files)).await?;
            inner.record(record, layers, lease).await
        });
        task.await.map_err(|err| Error::Internal(format!("record image: {err}")))?
    }

    /// The one sync of a pull: layers and files were only written so far.
    fn write_files(&self, files: &[(Digest, Vec<u8>)]) -> Result<(), Error> {
        for (digest, bytes) in files {
            self.content.write(digest, bytes)?;
        }
        // One that reaches the files, too, where they lie on the same file system.
        self.layers.sync()?;
        if self.content.is_beside(self.layers.snapshotter().root()) {
            return failpoint::step("content/sync", || Ok(()));
        }
        self.content.sync()
    }

    /// Writes again what a removal of the same image took away meanwhile.
    fn restore_files(&self, files: &[(Digest, Vec<u8>)]) -> Result<(), Error> {
        let mut missing = files.iter().filter(|(digest, _)| !self.content.has(digest)).peekable();
        if missing.peek().is_none() {
            return Ok(());
        }
        missing.try_for_each(|(digest, bytes)| self.content.write(digest, bytes))?;
        self.content.sync()
    }

    async fn record(
        self: &Arc<Self>,
        mut record: ImageRecord,
        layers: Vec<LayerId>,
        lease: Arc<Lease>,
    ) -> Result<(), Error> {
        let (earlier, losers) = {
            let table = self.table();
            let losers: Vec<_> =
                record.tags.iter().filter_map(|tag| table.named(tag)).cloned().collect();
            (table.get(&record.id).cloned(), losers)
        };
        if let Some(earlier) = earlier {
            record.inherit(&earlier);
        }
        let store_error = |err: crate::error::Error| Error::Store(err.to_string());
        self.store.put(RECORDS, record.id.as_str(), &record).await.map_err(store_error)?;
        let mut images = Vec::new();
        // The image that a tag named before stays, without it.
        for loser in losers.into_iter().filter(|loser| loser.id != record.id) {
            let mut rest = (**loser).clone();
            rest.tags.retain(|tag| !record.tags.contains(tag));
            self.store.put(RECORDS, rest.id.as_str(), &rest).await.map_err(store_error)?;
            images.push(Arc::new(loser.with(rest)));
        }
        images.push(Arc::new(Image::new(record, layers, lease)));
        self.label(images.clone()).await;
        failpoint::sure("pull/table", || {
            let mut table = self.table_mut();
            images.into_iter().for_each(|image| table.insert(image));
        });
        Ok(())
    }

    /// Writes down what these images are called, beside their files.
    async fn label(self: &Arc<Self>, images: Vec<Arc<Image>>) {
        let keeper = self.clone();
        let labels = blocking(move || {
            images.iter().for_each(|image| rebuild::keep(&keeper.content, image));
            Ok(())
        });
        if let Err(err) = labels.await {
            tracing::warn!(%err, "labels of images not kept");
        }
    }

    pub(super) async fn remove(
        self: &Arc<Self>,
        text: &str,
        operation: &Operation,
    ) -> Result<(), Error> {
        self.linger_no_more(None);
        operation.enter("waiting for other changes of image records").ok();
        let _change = self.change.lock().await;
        let Some(image) = self.table().resolve(text) else { return Ok(()) };
        operation.enter("removing the image's record and files").ok();
        let (keeper, id) = (self.clone(), image.id.clone());
        blocking(move || rebuild::forget(&keeper.content, &id)).await?;
        failpoint::sure("image-remove/table", || self.table_mut().remove(&image.id));
        if let Err(err) = self.store.delete(RECORDS, image.id.as_str()).await {
            self.table_mut().insert(image);
            return Err(Error::Store(err.to_string()));
        }
        tracing::info!(image = %image.id, tags = ?image.tags, "image removed");
        if let Err(err) = self.forget_files(image.files.clone()).await {
            // The image is gone all the same; like its layers, its files follow.
            tracing::warn!(%err, "files of a removed image are not removed yet");
            let span = tracing::info_span!("remove files again", image = %image.id);
            self.tasks.spawn(span, self.clone().go_on_forgetting(image.files.clone()));
        }
        Ok(())
    }

    async fn go_on_forgetting(self: Arc<Self>, files: Vec<Digest>) {
        let mut pause = FIRST_RETRY;
        loop {
            tokio::time::sleep(pause).await;
            let _change = self.change.lock().await;
            match self.forget_files(files.clone()).await {
                Ok(()) => return,
                Err(err) => tracing::warn!(%err, "files of a removed image are not removed yet"),
            }
            pause = (pause * 2).min(LAST_RETRY);
        }
    }

    /// Removes those of `files` that no image has. The caller changes the records, alone.
    async fn forget_files(self: &Arc<Self>, files: Vec<Digest>) -> Result<(), Error> {
        let wanted: HashSet<Digest> = self.table().all().flat_map(|i| i.files.clone()).collect();
        let keeper = self.clone();
        blocking(move || {
            files.iter().filter(|f| !wanted.contains(*f)).try_for_each(|f| keeper.content.remove(f))
        })
        .await
    }

    /// Files of pulls that were cut off.
    pub(super) async fn remove_stray_files(self: Arc<Self>) {
        let _change = self.change.lock().await;
        let keeper = self.clone();
        let removed = match blocking(move || keeper.content.list()).await {
            Ok(files) => self.forget_files(files).await,
            Err(err) => Err(err),
        };
        if let Err(err) = removed {
            tracing::warn!(%err, "stray image files are not removed");
        }
    }
}
