//! Containers: what they were asked to be, what they are, and each verb on them.
//!
//! A container lives in a `Place` that its sandbox made, and knows nothing else of the sandbox. Its state has
//! one writer each way: `start` moves it on, `watch` takes its exit. Everybody else reads it from memory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use snapshotter::LayerId;
use tokio::sync::watch;

use crate::host::Handler;
use crate::id::{ContainerId, SandboxId};
use crate::resource::Resource;

pub(crate) mod attach;
pub(crate) mod cdi;
pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod fact;
pub(crate) mod facts;
pub(crate) mod kept;
pub(crate) mod logged;
pub(crate) mod node;
pub(crate) mod place;
pub(crate) mod relabel;
pub(crate) mod remove;
pub(crate) mod shim;
pub(crate) mod signal;
pub(crate) mod spec;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod update;
pub(crate) mod volume;
pub(crate) mod watch_exit;

use config::{ContainerConfig, Resources};
use kept::Kept;
use place::Place;
use state::{Event, Refused, State, Timestamp};
use volume::Volume;

/// The table of container records.
pub(crate) const TABLE: &str = "containers";

/// What the store holds of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Record {
    /// Written before the first effect of a create: only what may have to be released.
    Intent(Intent),
    /// A container that was created.
    Whole(Box<Whole>),
}

/// A create that has begun.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub id: ContainerId,
    pub sandbox_id: SandboxId,
    pub plan: Vec<Resource>,
}

/// A whole record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub fixed: Fixed,
    pub changing: Changing,
}

/// What stays as it is from create to remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fixed {
    pub id: ContainerId,
    pub sandbox_id: SandboxId,
    pub config: ContainerConfig,
    pub created_at: Timestamp,
    pub image: ImageUse,
    pub place: Place,
    pub handler: Handler,
    pub bundle: PathBuf,
    /// `None`: output is drained and dropped.
    pub log_path: Option<PathBuf>,
    pub cgroups_path: String,
    /// The effective one: CRI's, else the image's, else SIGTERM.
    pub stop_signal: i32,
    pub user: User,
    /// SELinux's, of its files.
    #[serde(default)]
    pub mount_label: Option<String>,
    /// Images among the mounts.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    pub plan: Vec<Resource>,
}

/// The image that a container was made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ImageUse {
    pub id: String,
    /// The first of its digests by which a registry would be asked; its id if it has none.
    pub reference: String,
    /// Its first tag: what people call it.
    pub tag: Option<String>,
    /// Bottom first.
    pub layers: Vec<String>,
}

impl Fixed {
    /// The layers that it needs, of its image and of its volumes; one that is no name is damage, and nobody's layer.
    pub(crate) fn layer_ids(&self) -> Vec<LayerId> {
        let own = self.image.layers.iter().filter_map(|layer| layer.parse().ok());
        own.chain(self.volumes.iter().flat_map(Volume::layer_ids)).collect()
    }
}

/// The effective user, as ContainerStatus.user reports it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    pub supplemental_groups: Vec<u32>,
}

/// What changes while a container exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Changing {
    pub state: State,
    pub resources: Resources,
}

/// A container.
#[derive(Debug)]
pub(crate) struct Container {
    pub fixed: Fixed,
    changing: watch::Sender<Kept<Changing>>,
    /// One verb at a time moves it: start, update, remove.
    pub(crate) verb: tokio::sync::Mutex<()>,
    pub(crate) stopping: stop::Stopping,
    gauge: stats::Gauge,
    logged: logged::Counted,
    removing: AtomicBool,
}

impl Container {
    pub(crate) fn new(whole: Whole) -> Self {
        Self {
            fixed: whole.fixed,
            changing: watch::Sender::new(Kept::new(whole.changing)),
            verb: tokio::sync::Mutex::default(),
            stopping: stop::Stopping::default(),
            gauge: stats::Gauge::default(),
            logged: logged::Counted::default(),
            removing: AtomicBool::new(false),
        }
    }

    pub(crate) fn id(&self) -> &ContainerId {
        &self.fixed.id
    }

    /// The state now.
    pub(crate) fn state(&self) -> State {
        self.changing.borrow().state.clone()
    }

    pub(crate) fn is_running(&self) -> bool {
        matches!(self.changing.borrow().state, State::Running(_))
    }

    /// Whether its process is known to be gone.
    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.changing.borrow().state, State::Exited(_))
    }

    /// State and resources, consistent with one another.
    pub(crate) fn now(&self) -> Changing {
        Changing::clone(&self.changing.borrow())
    }

    /// Its entry in lists, if the state that it is in is wanted; `make` encodes one, of that state.
    pub(crate) fn entry(
        &self,
        wanted: impl FnOnce(&State) -> bool,
        make: impl FnOnce(&State) -> Bytes,
    ) -> Option<Bytes> {
        let now = self.changing.borrow();
        wanted(&now.state).then(|| now.entry(|now| make(&now.state)))
    }

    /// The record that holds once `changing` does.
    pub(crate) fn record(&self, changing: Changing) -> Record {
        Record::Whole(Box::new(Whole { fixed: self.fixed.clone(), changing }))
    }

    /// What has to be released to undo its create.
    pub(crate) fn intent(&self) -> Intent {
        Intent {
            id: self.fixed.id.clone(),
            sandbox_id: self.fixed.sandbox_id.clone(),
            plan: self.fixed.plan.clone(),
        }
    }

    /// Moves the state. `keep` gets the new record before anybody can see the new state, so records are queued in
    /// the order of the states, and none of a container's that was seen to have ended comes after its removal.
    ///
    /// # Errors
    /// `Refused` where the event does not fit; then nothing changed.
    pub(crate) fn apply(&self, event: &Event, keep: impl FnOnce(&Record)) -> Result<(), Refused> {
        let mut result = Ok(());
        self.changing.send_if_modified(|kept| match kept.state.next(event.clone()) {
            Ok(next) => {
                let changing = kept.change();
                changing.state = next;
                if matches!(changing.state, State::Exited(_)) {
                    self.gauge.close();
                }
                keep(&self.record(changing.clone()));
                true
            }
            Err(refused) => {
                result = Err(refused);
                false
            }
        });
        result
    }

    /// Replaces the resources that are in force; `keep` as of `apply`.
    pub(crate) fn set_resources(&self, resources: Resources, keep: impl FnOnce(&Record)) {
        self.changing.send_modify(|kept| {
            let changing = kept.change();
            changing.resources = resources;
            keep(&self.record(changing.clone()));
        });
    }

    /// Returns once the container does not run: at once if it never did.
    pub(crate) async fn not_running(&self) {
        let mut changes = self.changing.subscribe();
        changes.wait_for(|changing| !matches!(changing.state, State::Running(_))).await.ok();
    }

    /// From now on no other verb but Remove applies.
    pub(crate) fn mark_removing(&self) {
        self.removing.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_removing(&self) -> bool {
        self.removing.load(Ordering::SeqCst)
    }
}
