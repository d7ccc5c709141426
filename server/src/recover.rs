//! What a start finds: the records of the last daemon, and what the host really holds.
//!
//! Each owner is looked at alone and under a time limit, all at once, so that one hung shim delays only itself.
//! What a crash cut is released; what lives is attached to again; what is dead is said to be dead. A changed boot
//! id means that no process survived, and nothing is dialled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::container::shim::{Shim, TaskState};
use crate::container::state::{Event as ContainerEvent, Running, State as ContainerState};
use crate::container::{self, Container, Intent, watch_exit};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::id::SandboxId;
use crate::sandbox::state::{Event, Ready, State};
use crate::sandbox::{self, Pods, Sandbox};
use crate::telemetry::blocking;

/// For each pod: to reach its shim, and to hear of each of its containers.
const BUDGET: Duration = Duration::from_secs(1);

/// Brings memory, records and host to agreement. CRI is not served before it returns.
///
/// # Errors
/// When the records cannot be read at all.
pub(crate) async fn recover(pods: &Arc<Pods>) -> Result<()> {
    let node = pods.node.clone();
    let load = blocking(move || {
        let sandboxes: Vec<(String, sandbox::Record)> = node.store.load(sandbox::TABLE)?;
        let containers: Vec<(String, container::Record)> = node.store.load(container::TABLE)?;
        Ok((sandboxes, containers))
    });
    let (sandboxes, containers) = failpoint::step_async("recover/load", load).await?;
    let mut by_sandbox: HashMap<SandboxId, Vec<Arc<Container>>> = HashMap::new();
    let mut intents = Vec::new();
    for (_, record) in containers {
        match record {
            container::Record::Intent(intent) => intents.push(intent),
            container::Record::Whole(whole) => {
                let container = Arc::new(Container::new(*whole));
                if let Err(err) = pods
                    .node
                    .images
                    .hold(container.id().as_str(), &container.fixed.image.layer_ids())
                {
                    tracing::error!(container = %container.id(), %err, "the container's image is damaged");
                }
                by_sandbox.entry(container.fixed.sandbox_id.clone()).or_default().push(container);
            }
        }
    }
    let mut owners: Vec<_> = Vec::new();
    for (_, record) in sandboxes {
        let containers = by_sandbox.remove(&record.fixed.id).unwrap_or_default();
        owners.push(one(pods, Arc::new(Sandbox::new(record)), containers));
    }
    let orphans = by_sandbox.into_values().flatten().map(|orphan| {
        tracing::warn!(container = %orphan.id(), "releasing a container whose sandbox has no record");
        orphan.intent()
    });
    intents.extend(orphans);
    tokio::join!(
        join_all(owners),
        join_all(intents.into_iter().map(|intent| undo_create(pods, intent)))
    );
    failpoint::sure("recover/collect", || pods.node.images.start_collecting());
    Ok(())
}

/// Does `work` on a task of its own, and waits for it for as long as one owner may hold up the others. Plugins and
/// runtimes that hang go on being waited for while CRI is served already.
async fn settle<F>(pods: &Arc<Pods>, what: &'static str, id: &str, work: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let span = tracing::info_span!("recover", what, id);
    let task = pods.node.tasks.spawn(span, failpoint::sure_async("recover/owner", work));
    if tokio::time::timeout(BUDGET, task).await.is_err() {
        tracing::warn!(what, id, "takes long and goes on in the background");
    }
}

/// A create that a crash cut, or a container that no client can reach.
async fn undo_create(pods: &Arc<Pods>, intent: Intent) {
    let (node, id) = (pods.node.clone(), intent.id.clone());
    let work = async move { node.undo_create(intent).await };
    settle(pods, "undo a create that was cut off", id.as_str(), work).await;
}

async fn one(pods: &Arc<Pods>, sandbox: Arc<Sandbox>, containers: Vec<Arc<Container>>) {
    let (all, id) = (pods.clone(), sandbox.id().clone());
    let ready = match sandbox.now().state {
        State::Starting => {
            let work = async move { sandbox::run::undo(&all, sandbox).await };
            return settle(pods, "undo a run that was cut off", id.as_str(), work).await;
        }
        State::Ready(ready) => Some(ready),
        State::NotReady => None,
    };
    // Lists are whole before anybody sees them, whatever becomes of one owner.
    for container in &containers {
        pods.insert_container(container.clone());
    }
    pods.insert_sandbox(sandbox.clone());
    let shim = match ready {
        Some(ready) => attach(pods, &sandbox, &ready).await.map_err(|err| {
            tracing::warn!(sandbox = %id, %err, "the pod is down");
            sandbox.apply(Event::Down).ok();
        }),
        None => Err(()),
    };
    match shim {
        Ok(shim) => {
            sandbox.set_shim(Some(shim.clone()));
            sandbox::watch::sandbox(pods, &sandbox, &shim);
            let work = async move {
                join_all(containers.iter().map(|container| adopt(&all, container, &shim))).await;
            };
            settle(pods, "attach to a pod", id.as_str(), work).await;
        }
        Err(()) => {
            let work = async move { take_down(&all, &sandbox, &containers).await };
            settle(pods, "take a pod down", id.as_str(), work).await;
        }
    }
}

async fn attach(pods: &Pods, sandbox: &Sandbox, ready: &Ready) -> Result<Arc<Shim>> {
    if sandbox.fixed.boot_id != pods.node.host.boot_id {
        return Err(Error::Unavailable("the node was rebooted".into()));
    }
    let dir = pods.node.pod_dir(sandbox.id()).join("shim");
    let attach = Shim::attach(sandbox.id(), &dir, ready.shim_pid, ready.shim_start_time);
    match tokio::time::timeout(BUDGET, attach).await {
        Ok(shim) => shim.map(Arc::new),
        Err(_) => {
            Err(Error::DeadlineExceeded(format!("its shim does not answer within {BUDGET:?}")))
        }
    }
}

/// Brings one container to agreement with what its shim says of it.
async fn adopt(pods: &Arc<Pods>, container: &Arc<Container>, shim: &Arc<Shim>) {
    // Nothing is started meanwhile: what the shim says has to be true still when it is acted on.
    let _verb = container.verb.lock().await;
    let told = tokio::time::timeout(BUDGET, shim.state(container)).await;
    let told =
        told.unwrap_or_else(|_| Err(Error::DeadlineExceeded("the shim does not answer".into())));
    match (container.state(), &told) {
        // Its exit may have been taken by the last daemon without the OCI runtime being told to forget it.
        (ContainerState::Exited(_), Ok(TaskState::Unknown) | Err(_))
        | (ContainerState::Created, Err(_)) => {}
        (ContainerState::Exited(_), Ok(_)) => drop(shim.forget(container).await),
        (ContainerState::Created, Ok(TaskState::Running { pid } | TaskState::Stopped { pid })) => {
            let started_at = container::start::recall(container);
            let running = Running { pid: *pid, started_at };
            pods.node.apply(container, &ContainerEvent::Started(running)).ok();
            watch(pods, container, shim, told).await;
        }
        // Created in the OCI runtime, never started: as if the start had not begun.
        (ContainerState::Created, Ok(TaskState::Created | TaskState::Unknown)) => {
            shim.forget(container).await;
        }
        (
            ContainerState::Running(_),
            Ok(TaskState::Running { .. } | TaskState::Stopped { .. }) | Err(_),
        ) => watch(pods, container, shim, told).await,
        (ContainerState::Running(_), Ok(TaskState::Unknown | TaskState::Created)) => {
            lost(pods, container).await;
            shim.forget(container).await;
        }
    }
}

/// Watches a container that runs; takes the end of one that has ended at once, since clients may know of it.
async fn watch(
    pods: &Arc<Pods>,
    container: &Arc<Container>,
    shim: &Arc<Shim>,
    told: Result<TaskState>,
) {
    match told {
        Ok(TaskState::Stopped { .. }) => {
            watch_exit::watch_exit(&pods.node, container, shim).await;
        }
        _ => sandbox::watch::container(pods, container, shim),
    }
}

/// A container whose shim is gone: its exit record tells, or nobody. A start that was cut off may have got as far
/// as a process.
async fn lost(pods: &Pods, container: &Container) {
    match container.state() {
        ContainerState::Running(_) => {
            let event = watch_exit::gone(container).await;
            pods.node.apply(container, &event).ok();
        }
        ContainerState::Created => watch_exit::end_cgroup(container).await,
        ContainerState::Exited(_) => {}
    }
}

/// A pod whose shim is gone: its containers are over, and its network goes back.
async fn take_down(pods: &Pods, sandbox: &Sandbox, containers: &[Arc<Container>]) {
    let _verb = sandbox.verb.lock().await;
    join_all(containers.iter().map(|container| lost(pods, container))).await;
    if let Err(err) = sandbox::stop::give_back(&pods.node, sandbox).await {
        tracing::warn!(sandbox = %sandbox.id(), %err, "kept for the next stop of the pod");
    }
}
