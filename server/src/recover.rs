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
use crate::container::state::{Event as ContainerEvent, Running, State as ContainerState, now};
use crate::container::{self, Container, Intent, watch_exit};
use crate::error::{Error, Result};
use crate::id::SandboxId;
use crate::resource::{self, Resource};
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
    let (sandboxes, containers) = blocking(move || {
        let sandboxes: Vec<(String, sandbox::Record)> = node.store.load(sandbox::TABLE)?;
        let containers: Vec<(String, container::Record)> = node.store.load(container::TABLE)?;
        Ok((sandboxes, containers))
    })
    .await?;
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
    let owners = sandboxes.into_iter().map(|(_, record)| {
        let containers = by_sandbox.remove(&record.fixed.id).unwrap_or_default();
        one(pods, Arc::new(Sandbox::new(record)), containers)
    });
    let owners: Vec<_> = owners.collect();
    tokio::join!(
        join_all(owners),
        join_all(intents.into_iter().map(|intent| cut_off(pods, intent)))
    );
    for orphans in by_sandbox.into_values() {
        join_all(
            orphans.into_iter().map(|orphan| async move { forget_orphan(pods, &orphan).await }),
        )
        .await;
    }
    pods.node.images.start_collecting();
    Ok(())
}

/// A create that a crash cut: undone.
async fn cut_off(pods: &Pods, intent: Intent) {
    tracing::info!(container = %intent.id, "undoing a create that was cut off");
    pods.node.undo_create(intent).await;
}

/// A container without a sandbox cannot be reached by any client.
async fn forget_orphan(pods: &Pods, orphan: &Container) {
    tracing::warn!(container = %orphan.id(), "releasing a container whose sandbox has no record");
    let intent = Intent {
        id: orphan.id().clone(),
        sandbox_id: orphan.fixed.sandbox_id.clone(),
        plan: orphan.fixed.plan.clone(),
    };
    pods.node.undo_create(intent).await;
}

async fn one(pods: &Arc<Pods>, sandbox: Arc<Sandbox>, containers: Vec<Arc<Container>>) {
    match sandbox.now().state {
        State::Starting => return undo_run(pods, sandbox).await,
        State::Ready(ready) => match attach(pods, &sandbox, &ready).await {
            Ok(shim) => {
                sandbox.set_shim(Some(shim.clone()));
                join_all(containers.iter().map(|container| adopt(pods, container, &shim))).await;
                sandbox::watch::sandbox(pods, &sandbox, &shim);
            }
            Err(err) => {
                tracing::warn!(sandbox = %sandbox.id(), %err, "the pod is down");
                take_down(pods, &sandbox, &containers).await;
            }
        },
        State::NotReady => {
            join_all(containers.iter().map(|container| lost(pods, container))).await;
        }
    }
    for container in containers {
        pods.insert_container(container);
    }
    pods.insert_sandbox(sandbox);
}

/// A run that a crash cut: undone, or kept as not ready with what is left.
async fn undo_run(pods: &Pods, sandbox: Arc<Sandbox>) {
    tracing::info!(sandbox = %sandbox.id(), "undoing a run that was cut off");
    sandbox::run::undo(pods, sandbox).await;
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
    let told = tokio::time::timeout(BUDGET, shim.state(container)).await;
    let told =
        told.unwrap_or_else(|_| Err(Error::DeadlineExceeded("the shim does not answer".into())));
    match (container.state(), told) {
        // Its exit may have been taken by the last daemon without the OCI runtime being told to forget it.
        (ContainerState::Exited(_), _) => shim.forget(container).await,
        (ContainerState::Created, Ok(TaskState::Running { pid } | TaskState::Stopped { pid })) => {
            container.apply(&ContainerEvent::Started(Running { pid, started_at: now() })).ok();
            sandbox::watch::container(pods, container, shim);
        }
        // Created in the OCI runtime, never started: as if the start had not begun.
        (ContainerState::Created, _) => shim.forget(container).await,
        (
            ContainerState::Running(_),
            Ok(TaskState::Running { .. } | TaskState::Stopped { .. }) | Err(_),
        ) => {
            sandbox::watch::container(pods, container, shim);
        }
        (ContainerState::Running(_), Ok(TaskState::Unknown | TaskState::Created)) => {
            lost(pods, container).await;
        }
    }
}

/// A container whose shim is gone: its exit record tells, or nobody.
async fn lost(pods: &Pods, container: &Container) {
    if matches!(container.state(), ContainerState::Running(_)) {
        let event = watch_exit::gone(container).await;
        container.apply(&event).ok();
        pods.node.keep_later(container);
    }
}

/// A pod whose shim is gone: its containers are over, and its network goes back.
async fn take_down(pods: &Pods, sandbox: &Sandbox, containers: &[Arc<Container>]) {
    join_all(containers.iter().map(|container| lost(pods, container))).await;
    sandbox.apply(Event::Down).ok();
    let (kept, given): (Vec<_>, Vec<_>) = sandbox
        .now()
        .plan
        .into_iter()
        .partition(|resource| matches!(resource, Resource::Directory { .. }));
    let left = resource::release(&given, &pods.node.hands).await;
    sandbox
        .set_plan(kept.into_iter().chain(left.into_iter().map(|(resource, _)| resource)).collect());
    if let Err(err) = sandbox.keep(&pods.node).await {
        tracing::error!(sandbox = %sandbox.id(), %err, "record not kept");
    }
}
