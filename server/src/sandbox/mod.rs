//! Pod sandboxes: the place that a pod's containers share, and the table of both.
//!
//! The sandbox owns its containers. What clients see is in memory: finding and listing take a lock for the
//! length of a look-up, never across I/O.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::container::fact::{Became, Fact};
use crate::container::kept::Kept;
use crate::container::node::Node;
use crate::container::shim::Shim;
use crate::container::state::Timestamp;
use crate::container::{Container, config::Resources};
use crate::error::{Error, Result};
use crate::host::Handler;
use crate::host::selinux::Labels;
use crate::host::usage::Sampler;
use crate::id::{ContainerId, SandboxId};
use crate::resource::Resource;

pub(crate) mod config;
pub(crate) mod create;
pub(crate) mod dial;
pub(crate) mod files;
pub(crate) mod network;
pub(crate) mod readiness;
pub(crate) mod remove;
pub(crate) mod run;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod stop;
mod table;
pub(crate) mod traffic;
pub(crate) mod update;
pub(crate) mod users;
pub(crate) mod watch;

use config::{SandboxConfig, SandboxMetadata};
use network::Networks;
use state::{Event, Ready, Refused, State};
use table::Table;

/// The table of sandbox records.
pub(crate) const TABLE: &str = "sandboxes";

/// What the store holds of a sandbox. `state: Starting` is the intent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    pub fixed: Fixed,
    pub changing: Changing,
}

/// What stays as it is from run to remove.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fixed {
    pub id: SandboxId,
    pub config: SandboxConfig,
    /// As the client named it; empty is the default.
    pub runtime_handler: String,
    pub handler: Handler,
    pub created_at: Timestamp,
    /// SELinux's, where the node has it.
    #[serde(default)]
    pub selinux: Option<Labels>,
    /// The boot in which its processes live.
    pub boot_id: String,
}

/// What changes while a sandbox exists.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Changing {
    pub state: State,
    /// What is, or may be, held.
    pub plan: Vec<Resource>,
    /// Set by UpdatePodSandboxResources.
    pub overhead: Option<Resources>,
    pub resources: Option<Resources>,
}

/// A sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub fixed: Fixed,
    changing: Mutex<Kept<Changing>>,
    shim: Mutex<Option<Arc<Shim>>>,
    /// Stop has begun: nothing is created or started in it any more.
    closing: AtomicBool,
    /// Stop and Remove, one at a time.
    pub(crate) verb: tokio::sync::Mutex<()>,
    sampler: Sampler,
    traffic: traffic::Traffic,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panics with it has only half-assigned a clone of plain data, if at all.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sandbox {
    pub(crate) fn new(record: Record) -> Self {
        Self {
            fixed: record.fixed,
            changing: Mutex::new(Kept::new(record.changing)),
            shim: Mutex::default(),
            closing: AtomicBool::new(false),
            verb: tokio::sync::Mutex::default(),
            sampler: Sampler::default(),
            traffic: traffic::Traffic::default(),
        }
    }

    pub(crate) fn id(&self) -> &SandboxId {
        &self.fixed.id
    }

    pub(crate) fn now(&self) -> Changing {
        Changing::clone(&lock(&self.changing))
    }

    /// Its entry in lists, if the state that it is in is wanted; `make` encodes one, of that state.
    pub(crate) fn entry(
        &self,
        wanted: impl FnOnce(&State) -> bool,
        make: impl FnOnce(&State) -> Bytes,
    ) -> Option<Bytes> {
        let now = lock(&self.changing);
        wanted(&now.state).then(|| now.entry(|now| make(&now.state)))
    }

    /// What holds of a pod that is up.
    pub(crate) fn ready(&self) -> Option<Ready> {
        match &lock(&self.changing).state {
            State::Ready(ready) => Some(ready.clone()),
            State::Starting | State::NotReady => None,
        }
    }

    /// Whether the pod is up.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(lock(&self.changing).state, State::Ready(_))
    }

    /// True while containers may be created and started in it.
    pub(crate) fn is_open(&self) -> bool {
        !self.closing.load(Ordering::SeqCst) && self.is_ready()
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.close_files();
    }

    /// What is open for its statistics would keep its namespace and cgroup.
    fn close_files(&self) {
        self.sampler.close();
        self.traffic.close();
    }

    pub(crate) fn apply(&self, event: Event) -> Result<(), Refused> {
        let mut kept = lock(&self.changing);
        let next = kept.state.next(event)?;
        let changing = kept.change();
        changing.state = next;
        if changing.state == State::NotReady {
            self.close_files();
        }
        Ok(())
    }

    pub(crate) fn set_plan(&self, plan: Vec<Resource>) {
        lock(&self.changing).change().plan = plan;
    }

    pub(crate) fn set_resources(&self, overhead: Option<Resources>, resources: Option<Resources>) {
        let mut kept = lock(&self.changing);
        let changing = kept.change();
        (changing.overhead, changing.resources) = (overhead, resources);
    }

    pub(crate) fn shim(&self) -> Option<Arc<Shim>> {
        lock(&self.shim).clone()
    }

    pub(crate) fn set_shim(&self, shim: Option<Arc<Shim>>) {
        *lock(&self.shim) = shim;
    }

    pub(crate) fn record(&self) -> Record {
        Record { fixed: self.fixed.clone(), changing: self.now() }
    }

    /// Writes the record: at once, or if the disk does not take it, as soon as it does. For what is true whether it is
    /// on record or not, and what the next start would find out by itself.
    pub(crate) async fn keep_somehow(&self, node: &Node) {
        if let Err(err) = self.keep(node).await {
            tracing::error!(sandbox = %self.id(), %err, "record not kept yet");
            node.store.put_later(TABLE, self.id().as_str(), &self.record());
        }
    }

    /// Writes the record as it is now; durable when the future is done.
    pub(crate) fn keep(&self, node: &Node) -> impl Future<Output = Result<()>> + Send + use<> {
        node.store.put(TABLE, self.id().as_str(), &self.record())
    }
}

/// Every sandbox and container of the node.
#[derive(Debug)]
pub(crate) struct Pods {
    pub node: Arc<Node>,
    pub networks: Networks,
    sandboxes: RwLock<Table<SandboxId, Sandbox>>,
    containers: RwLock<Table<ContainerId, Container>>,
    /// Removed, with facts about them that were not read yet.
    departed: Mutex<BTreeMap<SandboxId, Arc<Sandbox>>>,
    departed_containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Pods {
    pub(crate) fn new(node: Arc<Node>, networks: Networks) -> Self {
        Self {
            node,
            networks,
            sandboxes: RwLock::new(Table::new("sandbox", |one| &one.fixed.config.labels)),
            containers: RwLock::new(Table::new("container", |one| &one.fixed.config.labels)),
            departed: Mutex::default(),
            departed_containers: Mutex::default(),
        }
    }

    /// The sandbox with that id or unique beginning of an id.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if several begin so.
    pub(crate) fn sandbox(&self, prefix: &str) -> Result<Arc<Sandbox>> {
        read(&self.sandboxes).by_prefix(prefix).cloned()
    }

    /// The container with that id or unique beginning of an id.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if several begin so.
    pub(crate) fn container(&self, prefix: &str) -> Result<Arc<Container>> {
        read(&self.containers).by_prefix(prefix).cloned()
    }

    /// The sandbox of a container. It outlives its containers.
    pub(crate) fn sandbox_of(&self, container: &Container) -> Result<Arc<Sandbox>> {
        self.sandbox(container.fixed.sandbox_id.as_str())
    }

    /// The shim that runs a container.
    ///
    /// # Errors
    /// `WrongState` once the sandbox is down.
    pub(crate) fn shim_of(&self, container: &Container) -> Result<Arc<Shim>> {
        let sandbox = self.sandbox_of(container)?;
        sandbox
            .shim()
            .ok_or_else(|| Error::WrongState(format!("sandbox {} is not ready", sandbox.id())))
    }

    /// The shim that a container may still have: none once its sandbox is down, or gone.
    pub(crate) fn live_shim_of(&self, container: &Container) -> Option<Arc<Shim>> {
        self.sandbox_of(container).ok().and_then(|sandbox| sandbox.shim())
    }

    pub(crate) fn sandbox_named(&self, metadata: &SandboxMetadata) -> Option<Arc<Sandbox>> {
        read(&self.sandboxes).all().find(|one| one.fixed.config.metadata == *metadata).cloned()
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        read(&self.sandboxes).all().cloned().collect()
    }

    /// Those that carry all of `labels`, in the order of their ids.
    pub(crate) fn sandboxes_with(&self, labels: &BTreeMap<String, String>) -> Vec<Arc<Sandbox>> {
        let mut found = read(&self.sandboxes).carrying(labels);
        found.sort_by(|a, b| a.id().cmp(b.id()));
        found
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        read(&self.containers).all().cloned().collect()
    }

    /// Those that carry all of `labels`, in the order of their ids.
    pub(crate) fn containers_with(&self, labels: &BTreeMap<String, String>) -> Vec<Arc<Container>> {
        let mut found = read(&self.containers).carrying(labels);
        found.sort_by(|a, b| a.id().cmp(b.id()));
        found
    }

    pub(crate) fn containers_of(&self, sandbox: &SandboxId) -> Vec<Arc<Container>> {
        read(&self.containers)
            .all()
            .filter(|one| one.fixed.sandbox_id == *sandbox)
            .cloned()
            .collect()
    }

    pub(crate) fn insert_sandbox(&self, sandbox: Arc<Sandbox>) {
        if let (Some(selinux), Some(labels)) = (&self.node.host.selinux, &sandbox.fixed.selinux) {
            selinux.levels.keep(sandbox.id().as_str(), &labels.process);
        }
        write(&self.sandboxes).insert(sandbox.id().clone(), sandbox);
    }

    pub(crate) fn forget_sandbox(&self, id: &SandboxId) {
        if let Some(selinux) = &self.node.host.selinux {
            selinux.levels.forget(id.as_str());
        }
        if let Some(gone) = write(&self.sandboxes).remove(id) {
            lock(&self.departed).insert(id.clone(), gone);
            self.node.happened.of_sandbox(id, Became::Deleted);
        }
    }

    pub(crate) fn insert_container(&self, container: Arc<Container>) {
        write(&self.containers).insert(container.id().clone(), container);
    }

    pub(crate) fn forget_container(&self, id: &ContainerId) {
        if let Some(gone) = write(&self.containers).remove(id) {
            lock(&self.departed_containers).insert(id.clone(), gone.clone());
            self.node.happened.of_container(&gone.fixed.sandbox_id, id, Became::Deleted);
        }
    }

    /// The sandbox that a fact is about, for the one who reads them all in their order: those that were removed are
    /// found until their own removal was read.
    pub(crate) fn sandbox_of_fact(&self, fact: &Fact) -> Option<Arc<Sandbox>> {
        let is_last = fact.container_id.is_none() && fact.became == Became::Deleted;
        if is_last {
            return lock(&self.departed).remove(&fact.sandbox_id);
        }
        let known = read(&self.sandboxes).get(&fact.sandbox_id).cloned();
        known.or_else(|| lock(&self.departed).get(&fact.sandbox_id).cloned())
    }

    /// The container that a fact is about, likewise.
    pub(crate) fn container_of_fact(&self, fact: &Fact) -> Option<Arc<Container>> {
        let id = fact.container_id.as_ref()?;
        if fact.became == Became::Deleted {
            return lock(&self.departed_containers).remove(id);
        }
        let known = read(&self.containers).get(id).cloned();
        known.or_else(|| lock(&self.departed_containers).get(id).cloned())
    }
}
