//! Images: getting them, keeping them, finding them by every name, and letting go of them.
//!
//! [`Images`] is the table of what is here, held in memory and recorded in the image database. An image is
//! listed from the moment its record is durable until its removal begins. Identity follows cri.md 1.4: the id
//! is the digest of the config, so that the same image of two registries is one entry with both names.
//!
//! Layers are removed once no image, no container and no pull wants them (see `gc`): whoever holds an
//! `Arc<Image>` holds its layers, and containers say which they use with [`Images::hold`].

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use snapshotter::{LayerId, Snapshotter};

use crate::metric;
use crate::operation::{Operations, Part, What};
use crate::store::Store;
use crate::telemetry::Tasks;

mod archive;
mod check;
pub(crate) mod config;
mod content;
pub(crate) mod digest;
mod drop_in;
pub(crate) mod error;
mod export;
mod flight;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gc;
mod import;
mod inflate;
mod labour;
mod manifest;
mod pin;
mod platform;
mod program;
pub(crate) mod progress;
mod publish;
mod pull;
mod rebuild;
pub(crate) mod reference;
pub(crate) mod registry;
mod repair;
mod source;
mod spool;
mod table;
mod unpack;
pub(crate) mod verify;
mod zstd_frame;

pub(crate) use check::{Damage, Stray};
pub(crate) use config::ImageUser;
pub(crate) use digest::Digest;
pub(crate) use drop_in::DropIn;
pub(crate) use error::Error;
pub(crate) use export::{Sent, Stream as Export};
pub(crate) use gc::LayerUsage;
pub(crate) use import::Imported;
pub(crate) use progress::Progress;
pub(crate) use registry::{AuthFields, Credentials, Explained};
pub(crate) use spool::incoming;
pub(crate) use table::Image;

use content::Content;
use flight::{Flights, Role, Work};
use gc::{Layers, Lease};
use labour::Labour;
use pin::Pins;
use platform::Supported;
use reference::Reference;
use registry::{Limits, Registries};
use table::{ImageRecord, Table};
use verify::Checks;

/// An error that several callers get.
pub(crate) type Shared = Arc<Error>;

/// How long the layers of a failed pull wait for the next try; they go with the next pull or removal after it.
const LINGER: Duration = Duration::from_secs(10 * 60);

/// The table of the image database that holds the records.
pub(crate) const RECORDS: &str = "images";

/// What a node's operator decides about images.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub registry: registry::Settings,
    /// Keep compressed blobs after they are unpacked.
    pub keep_blobs: bool,
    /// Layers of one image under way at a time.
    pub max_concurrent_downloads: usize,
    /// Patterns of names that are not to be collected.
    pub pinned: Vec<String>,
    pub verification: verify::Settings,
    /// See `unpack`.
    pub(crate) always_allowed: u64,
}

impl Settings {
    /// What the configuration says.
    pub(crate) fn new(config: &crate::config::Config) -> Self {
        Self {
            registry: registry::Settings {
                hosts_dir: config.registry_hosts.clone(),
                docker_config: config.registry_docker_config.clone(),
                limits: Limits { stall: config.registry_stall, ..Limits::default() },
            },
            keep_blobs: config.keep_blobs,
            pinned: config.pinned_images.clone(),
            verification: verify::Settings::new(config),
            max_concurrent_downloads: config.max_concurrent_downloads,
            always_allowed: unpack::ALWAYS_ALLOWED,
        }
    }
}

/// All images of this node; clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Images(Arc<Inner>);

struct Inner {
    pins: Pins,
    checks: Checks,
    settings: Settings,
    registries: Arc<Registries>,
    platform: Supported,
    store: Store,
    tasks: Tasks,
    operations: Operations,
    content: Content,
    layers: Arc<Layers>,
    table: RwLock<Table>,
    /// One change of records at a time, so that table and database agree.
    change: tokio::sync::Mutex<()>,
    holds: Mutex<HashMap<String, Lease>>,
    pulls: Flights<(Reference, Credentials), Result<Digest, Shared>, Arc<Progress>>,
    /// Layers of pulls that may have failed: the next try shall find them.
    lingering: Mutex<HashMap<Reference, (Instant, Arc<Lease>)>>,
    layer_flights: Flights<pull::LayerKey, pull::LayerResult, Arc<Part>>,
    labour: Labour,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Images({})", self.content.dir().display())
    }
}

/// A pull that the caller waits for. It goes on without: the next who asks joins it, or finds what it brought.
#[derive(Debug)]
pub(crate) struct Pull {
    work: Work<Result<Digest, Shared>>,
    progress: Arc<Progress>,
}

impl Pull {
    /// How far it is.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }
}

impl Future for Pull {
    /// The image's id.
    type Output = Result<Digest, Shared>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.work.poll_unpin(context)
    }
}

impl Images {
    /// Opens what is kept below `root/images` and in the store. Blocks: for start-up.
    ///
    /// # Errors
    /// When the directory or the store cannot be read. A damaged record is logged and left out.
    pub(crate) fn open(
        root: &Path,
        snapshotter: Arc<Snapshotter>,
        store: Store,
        tasks: Tasks,
        operations: Operations,
        settings: Settings,
    ) -> Result<Self, Error> {
        let content = Content::open(&root.join("images"))?;
        let layers = Layers::new(snapshotter, tasks.clone());
        let records =
            store.load::<ImageRecord>(RECORDS).map_err(|err| Error::Store(err.to_string()))?;
        let mut records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        for record in rebuild::lost(&content, &layers, &records, store.is_new()) {
            store.put_later(RECORDS, record.id.as_str(), &record);
            records.push(record);
        }
        let (table, waiting) = publish::load(records, &layers);
        let now = Instant::now();
        let waiting = waiting.into_iter().map(|(name, lease)| (name, (now, lease))).collect();
        Ok(Self(Arc::new(Inner {
            registries: Arc::new(Registries::new(settings.registry.clone())),
            pins: Pins::new(&settings.pinned),
            checks: Checks::new(settings.verification.clone()),
            settings,
            platform: Supported::host(),
            store,
            tasks,
            operations,
            content,
            layers,
            table: RwLock::new(table),
            change: tokio::sync::Mutex::default(),
            holds: Mutex::default(),
            pulls: Flights::default(),
            labour: Labour::default(),
            lingering: Mutex::new(waiting),
            layer_flights: Flights::default(),
        })))
    }

    /// Removes what nobody wants, now and from now on. Call it once every container that there is has said
    /// which layers it holds.
    pub(crate) fn start_collecting(&self) {
        self.0.layers.enable_sweeping();
        let inner = self.0.clone();
        let span = tracing::info_span!("remove unwanted image files");
        self.0.tasks.spawn(span, async move { inner.remove_stray_files().await });
    }

    /// Pulls an image, or joins the pull of the same reference with the same credentials. It runs to its end,
    /// whoever waits for it; one that gets no more bytes ends by itself.
    ///
    /// # Errors
    /// When the text is no reference.
    pub(crate) fn pull(&self, reference: &str, credentials: Credentials) -> Result<Pull, Error> {
        let reference = Reference::parse(reference)?;
        let key = (reference.clone(), credentials.clone());
        let what = What::new("pull", &reference);
        let (work, progress, role) = self.0.pulls.join(key, || {
            let progress = Arc::new(Progress::new(self.0.operations.begin(what.clone())));
            let work = pull::pull(self.0.clone(), reference, credentials, progress.clone());
            (work.map(|result| result.map_err(Arc::new)).boxed(), progress)
        });
        if role == Role::Started {
            let (inner, work, progress) = (self.0.clone(), work.clone(), progress.clone());
            self.0.tasks.spawn(tracing::info_span!("operation", %what), async move {
                let result = work.await;
                if let Err(err) = &result {
                    tracing::warn!(%err, progress = %progress.now(), "image not pulled");
                }
                let label = if result.is_ok() { "ok" } else { "error" };
                metric::PULL_SECONDS.of([label]).took(progress.operation().age());
                progress.operation().finish(&result);
                inner.pulls.forget_ended();
            });
        }
        Ok(Pull { work, progress })
    }

    /// Joins a pull of that reference that is under way, whoever's credentials it has.
    ///
    /// # Errors
    /// When the text is no reference.
    pub(crate) fn join_pull(&self, reference: &str) -> Result<Option<Pull>, Error> {
        let reference = Reference::parse(reference)?;
        let found = self.0.pulls.find(|(of, _)| *of == reference);
        Ok(found.map(|(work, progress)| Pull { work, progress }))
    }

    /// The pulls under way.
    #[cfg(test)]
    pub(crate) fn pulls(&self) -> Vec<Arc<Progress>> {
        self.0.pulls.notes()
    }

    /// Where an image would come from: every endpoint in order, each asked for the manifest with the node's own
    /// logins.
    ///
    /// # Errors
    /// When the text is no reference, or the node's configuration for its registry is wrong.
    pub(crate) async fn explain(&self, text: &str) -> Result<(String, Vec<Explained>), Error> {
        let reference = Reference::parse(text)?;
        let (registries, name) = (self.0.registries.clone(), reference.clone());
        let session = move || registries.session(&name, Credentials::default());
        let session = pull::blocking(session).await?;
        let explained = self.0.registries.explain(&session, reference.target()).await;
        Ok((reference.to_string(), explained))
    }

    /// Finds an image by reference, id or unique beginning of an id.
    pub(crate) fn resolve(&self, text: &str) -> Option<Arc<Image>> {
        self.0.table().resolve(text)
    }

    /// Whether the kubelet is to spare the image. Whoever names it in a removal is obeyed all the same.
    pub(crate) fn is_pinned(&self, image: &Image) -> bool {
        self.0.pins.holds(image.tags.iter().chain(&image.digests))
    }

    /// Every image.
    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.0.table().all().cloned().collect()
    }

    /// Removes an image with all its names; no error if there is none. Its layers go when no container holds
    /// them. It is gone from every list before this returns.
    ///
    /// Nothing of ours ever collects an image that is in the table, so what a pull brought waits for its container as
    /// long as that takes. An explicit removal is obeyed at once all the same, also right after the pull: whoever calls
    /// it (the kubelet short of disk, an operator) wants the space. A create that has found the image keeps its layers
    /// and succeeds; one that comes later says `NotFound`, and the kubelet pulls again.
    pub(crate) async fn remove(&self, text: &str) -> Result<(), Error> {
        let (inner, text) = (self.0.clone(), text.to_owned());
        let span = tracing::info_span!("remove image", image = text);
        let operation = self.0.operations.begin(What::new("remove image", &text));
        let _caller = operation.caller();
        let working = operation.clone();
        let work = async move { inner.remove(&text, &working).await };
        // On a task of its own: a caller who goes away must not leave it half done.
        let task = self.0.tasks.spawn(span, operation.clone().conclude(work));
        task.await.map_err(|err| Error::Internal(format!("remove image: {err}")))?
    }

    /// What the layers of all images and containers take; O(1).
    pub(crate) fn usage(&self) -> LayerUsage {
        self.0.layers.usage()
    }

    /// The config blob as its author wrote it. Blocks on one small file.
    pub(crate) fn raw_config(&self, image: &Image) -> Option<serde_json::Value> {
        let bytes = self.0.content.read(&image.id, manifest::MAX_CONFIG)?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The media type and length of a manifest or index that is kept. Blocks on one small file.
    pub(crate) fn document(&self, digest: &Digest) -> Option<(String, u64)> {
        let bytes = self.0.content.read(digest, manifest::MAX_MANIFEST)?;
        Some((manifest::media_type(&bytes)?, bytes.len() as u64))
    }

    /// Manifests, indexes, configs, and blobs where they are kept. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn files(&self) -> Result<Vec<Digest>, Error> {
        self.0.content.list()
    }

    /// One of them, as it is. Blocks.
    pub(crate) fn open_file(&self, digest: &Digest) -> Option<std::fs::File> {
        self.0.content.open_file(digest)
    }

    /// Keeps layers for a container: of its image, or, at a start, those that its record names. Replaces what
    /// the container held before.
    ///
    /// # Errors
    /// When a layer is not here.
    pub(crate) fn hold(&self, container: &str, layers: &[LayerId]) -> Result<(), Error> {
        let lease = self.0.layers.lease(layers.iter().cloned());
        if let Some(missing) = layers.iter().find(|layer| !self.0.layers.has(layer)) {
            return Err(Error::Snapshot(format!("layer {missing} is missing")));
        }
        self.0.holds.lock().unwrap_or_else(PoisonError::into_inner).insert(container.into(), lease);
        Ok(())
    }

    /// The container is gone, and its snapshot with it.
    pub(crate) fn unhold(&self, container: &str) {
        let lease = self.0.holds.lock().unwrap_or_else(PoisonError::into_inner).remove(container);
        drop(lease);
        self.0.layers.empty_trash_soon();
    }
}

impl Inner {
    /// Keeps what a pull brings in case it fails half-way.
    fn linger(&self, reference: &Reference, lease: &Arc<Lease>) {
        let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
        lingering.insert(reference.clone(), (Instant::now(), lease.clone()));
    }

    /// Lets go of what a pull brought that ended well, and of what nobody came back for.
    fn linger_no_more(&self, reference: Option<&Reference>) {
        let mut lingering = self.lingering.lock().unwrap_or_else(PoisonError::into_inner);
        lingering.retain(|of, (since, _)| Some(of) != reference && since.elapsed() < LINGER);
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn table_mut(&self) -> std::sync::RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
