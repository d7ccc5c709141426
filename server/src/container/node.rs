//! What of this node the verbs on containers and sandboxes work with.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::Config;
use crate::container::fact::{Became, Facts};
use crate::container::state::{Event, Refused};
use crate::container::{Container, Intent, Record, TABLE};
use crate::container::{cdi, spec};
use crate::error::Result;
use crate::host::Host;
use crate::host::cgroup::moves;
use crate::host::instance::Instance;
use crate::id::SandboxId;
use crate::image::Images;
use crate::operation::Operations;
use crate::resource::{self, Hands};
use crate::store::Store;
use crate::telemetry::{Tasks, blocking};

/// How long what has happened waits for the disk before it is told.
const DISK_PATIENCE: Duration = Duration::from_secs(2);

/// Shared by all operations.
#[derive(Debug)]
pub(crate) struct Node {
    pub config: Config,
    pub host: Host,
    /// What specs depend on of the host.
    pub facts: spec::Node,
    pub store: Store,
    pub tasks: Tasks,
    pub operations: Operations,
    pub hands: Hands,
    pub images: Images,
    pub instance: Instance,
    pub undone: Undone,
    pub cdi: cdi::Registry,
    /// What happens, for whoever reads it.
    pub happened: Facts,
}

/// Creates that failed and could not be undone whole; released again with their sandbox.
#[derive(Debug, Default)]
pub(crate) struct Undone(Mutex<Vec<Intent>>);

impl Undone {
    fn lock(&self) -> MutexGuard<'_, Vec<Intent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// Where a pod's files are.
    pub(crate) fn pod_dir(&self, id: &SandboxId) -> PathBuf {
        self.config.state.join("pods").join(id.as_str())
    }

    /// Where the OCI runtimes keep their own state.
    pub(crate) fn runtime_root(&self, handler: &str) -> PathBuf {
        self.config.state.join("runtime").join(handler)
    }

    /// Has the kernel get ready for the process that an OCI runtime will move to its cgroup, beside what the caller does.
    pub(crate) fn expect_move(&self) {
        if let Some(turn) = moves::turn() {
            let ready = blocking(move || {
                turn.make_ready();
                Ok(())
            });
            self.tasks.spawn(tracing::Span::none(), async { ready.await.ok() });
        }
    }

    /// The parent cgroup of a pod: as its configuration names it, or if that is empty, ours.
    pub(crate) fn cgroup_parent<'a>(&'a self, named: &'a str) -> &'a str {
        let default = spec::cgroup::default_parent(self.host.cgroup_driver);
        let configured = self.config.cgroup_parent.as_str();
        [named, configured].into_iter().find(|parent| !parent.is_empty()).unwrap_or(default)
    }

    /// The OCI `cgroupsPath` of a leaf below a pod's parent cgroup, as its configuration names it.
    pub(crate) fn cgroups_path(&self, parent: &str, leaf: &str) -> Result<String> {
        let parent = self.cgroup_parent(parent);
        let path = spec::cgroup::path(self.host.cgroup_driver, parent, leaf)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Moves a container's state and queues its record behind the writes before it, without waiting for the
    /// disk: a crash before it is there loses nothing, since the shim's own records say the same.
    ///
    /// # Errors
    /// `Refused` where the event does not fit; then nothing changed.
    pub(crate) fn apply(&self, container: &Container, event: &Event) -> Result<(), Refused> {
        container.apply(event, |record| {
            self.keep_later(record, container);
            // Queued while nobody can see the new state yet: so are those of others in their order.
            if let Record::Whole(whole) = record {
                let became = Became::of(&whole.changing.state);
                self.happened.of_container(&container.fixed.sandbox_id, container.id(), became);
            }
        })
    }

    /// Writes down what `event` makes of a container, durably and before anybody can see it, unless the disk hangs:
    /// then it is told all the same. The caller applies it next; an event that does not fit is left to that.
    pub(crate) async fn keep_first(&self, container: &Container, event: &Event) {
        let mut next = container.now();
        let Ok(state) = next.state.next(event.clone()) else { return };
        next.state = state;
        let record = container.record(next);
        let kept = self.store.put(TABLE, container.id().as_str(), &record);
        match tokio::time::timeout(DISK_PATIENCE, kept).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => {
                tracing::error!(container = %container.id(), %err, "record not kept");
            }
            Err(_) => tracing::warn!(container = %container.id(), "told before the disk has it"),
        }
    }

    /// Queues a container's record.
    pub(crate) fn keep_later(&self, record: &Record, container: &Container) {
        self.store.put_later(TABLE, container.id().as_str(), record);
    }

    /// Undoes a create: releases all of its plan and forgets it, or keeps what is left for a later try.
    pub(crate) async fn undo_create(&self, intent: Intent) {
        let left = resource::release(&intent.plan, &self.hands).await;
        self.images.unhold(intent.id.as_str());
        if left.is_empty() {
            if let Err(err) = self.store.delete(TABLE, intent.id.as_str()).await {
                tracing::error!(id = %intent.id, %err, "record of an undone create not deleted");
            }
            return;
        }
        let plan = left.into_iter().map(|(resource, _)| resource).collect();
        let intent = Intent { plan, ..intent };
        // What was recorded last may be a whole container, which this is not any more.
        let record = Record::Intent(intent.clone());
        if let Err(err) = self.store.put(TABLE, intent.id.as_str(), &record).await {
            tracing::error!(id = %intent.id, %err, "record not kept yet");
            self.store.put_later(TABLE, intent.id.as_str(), &record);
        }
        self.undone.lock().push(intent);
    }

    /// Tries again to undo the failed creates of a sandbox. True if nothing is left of them.
    pub(crate) async fn release_leftovers(&self, sandbox: &SandboxId) -> bool {
        let mine: Vec<Intent> = {
            let mut all = self.undone.lock();
            let (mine, others) = all.drain(..).partition(|intent| intent.sandbox_id == *sandbox);
            *all = others;
            mine
        };
        for intent in mine {
            self.undo_create(intent).await;
        }
        self.undone.lock().iter().all(|intent| intent.sandbox_id != *sandbox)
    }
}
