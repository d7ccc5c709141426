//! Which layers are wanted, and the removal of those that no longer are.
//!
//! Every image in the table, every container and every pull under way holds a [`Lease`] on its layers. A layer
//! whose last lease ends is renamed away and deleted in the background. A lease is taken before a layer is
//! looked for, and a removal excludes taking one, so that what was found stays.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use snapshotter::{LayerId, Snapshotter};

use super::error::Error;
use crate::failpoint;
use crate::telemetry::Tasks;

/// How long one step of deleting may keep the disk busy before it pauses.
const TRASH_STEP: Duration = Duration::from_millis(200);
/// When a removal that failed is tried again: soon, then half as often each time, but never more seldom than this.
pub(super) const FIRST_RETRY: Duration = Duration::from_millis(250);
pub(super) const LAST_RETRY: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Wanted {
    layers: HashMap<LayerId, Entry>,
    /// Sum over all entries, so that ImageFsInfo need not count.
    usage: LayerUsage,
}

#[derive(Default)]
struct Entry {
    leases: usize,
    usage: LayerUsage,
}

/// What layers take on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LayerUsage {
    pub bytes: u64,
    pub inodes: u64,
}

/// Layers whose last lease ended, and who removes them.
#[derive(Default)]
struct Sweep {
    unwanted: Vec<LayerId>,
    /// Not before every holder of layers has said so, after a start.
    enabled: bool,
    running: bool,
    /// A retry waits for its time.
    retrying: bool,
    /// How long the last one waited; zero once all went well.
    pause: Duration,
}

/// The layers that somebody wants.
pub(super) struct Layers {
    snapshotter: Arc<Snapshotter>,
    tasks: Tasks,
    /// One deletes at a time.
    emptying: tokio::sync::Mutex<()>,
    wanted: Mutex<Wanted>,
    sweep: Mutex<Sweep>,
    /// Not while layers are made whose names are not known before.
    removal: RwLock<()>,
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layers")
    }
}

/// Keeps layers from being removed for as long as it lives.
#[derive(Debug)]
pub(super) struct Lease {
    of: Arc<Layers>,
    layers: Vec<LayerId>,
}

impl Layers {
    pub(super) fn new(snapshotter: Arc<Snapshotter>, tasks: Tasks) -> Arc<Self> {
        let (wanted, sweep, removal) = Default::default();
        Arc::new(Self {
            snapshotter,
            tasks,
            emptying: tokio::sync::Mutex::default(),
            wanted,
            sweep,
            removal,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants some layers, whether they are here or not.
    pub(super) fn lease(self: &Arc<Self>, layers: impl IntoIterator<Item = LayerId>) -> Lease {
        let layers: Vec<_> = layers.into_iter().collect();
        let mut wanted = self.lock();
        for layer in &layers {
            wanted.layers.entry(layer.clone()).or_default().leases += 1;
        }
        drop(wanted);
        for layer in &layers {
            self.measure(layer);
        }
        Lease { of: self.clone(), layers }
    }

    /// Takes the usage of a layer into account, once it is here.
    pub(super) fn measure(&self, layer: &LayerId) {
        let known = |wanted: &Wanted| {
            wanted.layers.get(layer).is_none_or(|entry| entry.usage != LayerUsage::default())
        };
        if known(&self.lock()) {
            return;
        }
        let Some(found) = self.snapshotter.layer_usage(layer) else { return };
        let mut wanted = self.lock();
        if !known(&wanted)
            && let Some(entry) = wanted.layers.get_mut(layer)
        {
            entry.usage = LayerUsage { bytes: found.bytes, inodes: found.inodes };
            wanted.usage.bytes += found.bytes;
            wanted.usage.inodes += found.inodes;
        }
    }

    /// Whether a layer is unpacked here. Of use only under a lease.
    pub(super) fn has(&self, layer: &LayerId) -> bool {
        self.snapshotter.has(layer)
    }

    /// What unpacks.
    pub(super) fn snapshotter(&self) -> Arc<Snapshotter> {
        self.snapshotter.clone()
    }

    /// The layers to mount for an image of these layers, bottom first, under a lease with these layers
    /// themselves: one that leans on those below it has a form of its own for each place it is in.
    pub(super) fn settle(
        self: &Arc<Self>,
        alone: &[LayerId],
    ) -> Result<(Vec<LayerId>, Lease), Error> {
        let _no_removal = self.removal.read().unwrap_or_else(PoisonError::into_inner);
        let settled = failpoint::step("pull/settle", || {
            self.snapshotter.settle(alone).map_err(|err| Error::Snapshot(err.to_string()))
        });
        let layers = topmost(settled?);
        let lease = self.lease(layers.iter().chain(alone).cloned());
        Ok((layers, lease))
    }

    /// Makes a layer again that `settle` had made for an image of these layers.
    pub(super) fn derive_again(&self, layer: &LayerId, alone: &[LayerId]) -> Result<(), Error> {
        let _no_removal = self.removal.read().unwrap_or_else(PoisonError::into_inner);
        let failed = |err: snapshotter::Error| Error::Snapshot(err.to_string());
        self.snapshotter.remove_layer(layer).map_err(failed)?;
        let settled = self.snapshotter.settle(alone).map_err(failed)?;
        if settled.contains(layer) {
            return Ok(());
        }
        Err(Error::Snapshot(format!("layer {layer} is no form of the image's layers")))
    }

    /// Makes all that was committed durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        failpoint::step("pull/sync-layers", || {
            self.snapshotter.sync().map_err(|err| Error::Snapshot(err.to_string()))
        })
    }

    /// What all wanted layers take.
    pub(super) fn usage(&self) -> LayerUsage {
        self.lock().usage
    }

    /// Removes every layer that nobody wants, and from now on each whose last lease ends.
    pub(super) fn enable_sweeping(self: &Arc<Self>) {
        self.sweep().enabled = true;
        let layers = self.clone();
        let all = async move {
            layers.step(|layers| layers.remove_all_unwanted()).await;
            layers.empty_trash().await;
        };
        self.tasks.spawn(tracing::info_span!("remove unwanted layers"), all);
        self.sweep_soon();
    }

    fn sweep(&self) -> MutexGuard<'_, Sweep> {
        self.sweep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the sweeping unless it is under way. A lease may end outside the runtime: then the next one counts.
    fn sweep_soon(self: &Arc<Self>) {
        let mut sweep = self.sweep();
        let due = sweep.enabled && !sweep.running && !sweep.unwanted.is_empty();
        if due && tokio::runtime::Handle::try_current().is_ok() {
            sweep.running = true;
            let span = tracing::info_span!("remove unwanted layers");
            self.tasks.spawn(span, sweep_all(self.clone()));
        }
    }

    async fn step<T: Default + Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let layers = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&layers)).await;
        done.unwrap_or_else(|err| {
            tracing::error!(%err, "removal of layers");
            T::default()
        })
    }

    /// Something could not be removed, or deleted: has another look later.
    fn retry_later(self: &Arc<Self>) {
        let pause = {
            let mut sweep = self.sweep();
            if std::mem::replace(&mut sweep.retrying, true) {
                return;
            }
            sweep.pause = (sweep.pause * 2).clamp(FIRST_RETRY, LAST_RETRY);
            sweep.pause
        };
        let layers = self.clone();
        let span = tracing::info_span!("try removals again");
        self.tasks.spawn(span, async move {
            tokio::time::sleep(pause).await;
            layers.sweep().retrying = false;
            layers.sweep_soon();
            layers.empty_trash().await;
        });
    }

    /// Something was renamed away, a container's snapshot or half a layer: deletes it behind the caller's back.
    pub(super) fn empty_trash_soon(self: &Arc<Self>) {
        let layers = self.clone();
        let span = tracing::info_span!("delete removed snapshots");
        self.tasks.spawn(span, async move { layers.empty_trash().await });
    }

    /// Deletes what was renamed away, a little at a time so that the disk stays free for others.
    async fn empty_trash(self: &Arc<Self>) {
        // Whoever waits here has its own look afterwards: nothing renamed away meanwhile is forgotten.
        let _alone = self.emptying.lock().await;
        loop {
            let snapshotter = self.snapshotter.clone();
            let empty =
                move || failpoint::sure("trash/empty", || snapshotter.empty_trash(TRASH_STEP));
            let emptied = tokio::task::spawn_blocking(empty);
            match emptied.await {
                Ok(Ok(true)) => return,
                Ok(Ok(false)) => tokio::time::sleep(TRASH_STEP).await,
                Ok(Err(err)) => {
                    tracing::warn!(%err, "removed layers are not deleted yet");
                    self.retry_later();
                    return;
                }
                Err(err) => {
                    tracing::error!(%err, "deletion of layers");
                    return;
                }
            }
        }
    }

    /// The layers that nobody wants and that are not about to be removed. Blocks.
    pub(super) fn strays(&self) -> Result<Vec<LayerId>, Error> {
        let _alone = self.removal.write().unwrap_or_else(PoisonError::into_inner);
        let mut keep: HashSet<LayerId> = self.lock().layers.keys().cloned().collect();
        keep.extend(self.sweep().unwanted.iter().cloned());
        self.snapshotter.unused(&keep).map_err(|err| Error::Snapshot(err.to_string()))
    }

    /// Removes a layer that nobody wants. Blocks.
    pub(super) fn remove_stray(&self, layer: &LayerId) -> Result<(), Error> {
        if self.remove_if_unwanted(layer) {
            return Ok(());
        }
        Err(Error::Snapshot(format!("layer {layer} is in use by a snapshot")))
    }

    fn remove_all_unwanted(&self) {
        let _alone = self.removal.write().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.lock();
        let keep: HashSet<LayerId> = wanted.layers.keys().cloned().collect();
        if let Err(err) = failpoint::sure("trash/all-unwanted", || self.snapshotter.gc(&keep)) {
            tracing::warn!(%err, "removal of unwanted layers is incomplete");
        }
    }

    /// Removes a layer that is still unwanted; false if it has to be tried again, since a snapshot that is about to
    /// go still stands on it.
    fn remove_if_unwanted(&self, layer: &LayerId) -> bool {
        let _alone = self.removal.write().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.lock();
        if wanted.layers.contains_key(layer) {
            return true;
        }
        let removed = failpoint::step("trash/layer", || {
            self.snapshotter.remove_layer(layer).map_err(|err| Error::Snapshot(err.to_string()))
        });
        if let Err(err) = &removed {
            tracing::warn!(%err, %layer, "layer not removed yet");
        }
        removed.is_ok()
    }

    /// The layers of `batch` that have to be tried again.
    fn remove_batch(&self, mut batch: Vec<LayerId>) -> Vec<LayerId> {
        batch.retain(|layer| !self.remove_if_unwanted(layer));
        batch
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut unwanted = Vec::new();
        let mut wanted = self.of.lock();
        for layer in self.layers.drain(..) {
            let Some(entry) = wanted.layers.get_mut(&layer) else { continue };
            entry.leases -= 1;
            if entry.leases == 0 {
                let usage = entry.usage;
                wanted.usage.bytes -= usage.bytes;
                wanted.usage.inodes -= usage.inodes;
                wanted.layers.remove(&layer);
                unwanted.push(layer);
            }
        }
        drop(wanted);
        self.of.sweep().unwanted.append(&mut unwanted);
        self.of.sweep_soon();
    }
}

/// Removes what is unwanted until nothing more is, or nothing more can be.
async fn sweep_all(layers: Arc<Layers>) {
    let mut again = Vec::new();
    loop {
        let batch = std::mem::take(&mut layers.sweep().unwanted);
        if batch.is_empty() {
            break;
        }
        again.extend(layers.step(move |layers| layers.remove_batch(batch)).await);
        layers.empty_trash().await;
    }
    let failed = !again.is_empty();
    {
        let mut sweep = layers.sweep();
        sweep.running = false;
        // A lease may have ended since.
        sweep.unwanted.append(&mut again);
        if !failed {
            sweep.pause = Duration::ZERO;
        }
    }
    if failed { layers.retry_later() } else { layers.sweep_soon() }
}

/// A layer that occurs more than once counts where it is topmost.
fn topmost(layers: Vec<LayerId>) -> Vec<LayerId> {
    let mut kept: Vec<LayerId> = Vec::with_capacity(layers.len());
    for layer in layers.into_iter().rev() {
        if !kept.contains(&layer) {
            kept.push(layer);
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
impl Layers {
    /// Whether the sweeper has ended, with so many layers to be tried again.
    pub(super) fn idle_with(&self, left: usize) -> bool {
        let sweep = self.sweep();
        !sweep.running && sweep.unwanted.len() == left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_layer_counts_where_it_is_topmost() {
        let id = |hex: &str| format!("sha256:{}", hex.repeat(64)).parse::<LayerId>().unwrap();
        assert_eq!(topmost(vec![id("a"), id("b"), id("a")]), [id("b"), id("a")]);
    }
}
