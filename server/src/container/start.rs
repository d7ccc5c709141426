//! StartContainer: from a bundle to a running process.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use rustix::process::Signal;
use snapshotter::mount::Kind;

use super::Container;
use super::node::Node;
use super::shim::Shim;
use super::state::{Event, Running, State, Timestamp, now};
use super::volume;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::operation::Operation;
use crate::resource::{self, Resource};
use crate::telemetry::{apart, blocking};

/// How long a runtime that was ended may take to be gone, before what it left is cleared away around it.
const ABORT: Duration = Duration::from_secs(3);

/// Creates and starts the container in its OCI runtime. The caller holds the container's verb, and goes on holding
/// it until somebody watches for the end of what was started.
///
/// # Errors
/// `WrongState` unless it is created. Whatever else keeps its process from running makes it exited, with code
/// 128 and reason StartError, and is the error of the call too.
pub(crate) async fn start(
    node: &Node,
    container: &Container,
    shim: &Shim,
    operation: &Operation,
) -> Result<()> {
    match container.state() {
        State::Created if !container.is_removing() => {}
        state => {
            let what = if container.is_removing() { "being removed" } else { state.name() };
            return Err(Error::WrongState(format!(
                "container {} is {what}, not created",
                container.id()
            )));
        }
    }
    let event = match run(node, container, shim, operation).await {
        Ok(running) => Event::Started(running),
        Err(err) => {
            clear(node, container, shim).await;
            let message = err.to_string();
            node.apply(container, &Event::StartFailed { at: now(), message }).ok();
            // Nothing but the record says so: a daemon that came back would take it for created.
            node.store.flush().await.ok();
            return Err(err);
        }
    };
    if node.apply(container, &event).is_err() {
        return Err(Error::Internal(format!(
            "container {} changed its state while it started",
            container.id()
        )));
    }
    Ok(())
}

/// Ends what a failed start may have left: it may have got as far as a process, which neither a shim that is gone nor
/// a runtime that knows of none will end.
async fn clear(node: &Node, container: &Container, shim: &Shim) {
    shim.forget(container).await;
    let bundle = container.fixed.bundle.clone();
    if let Err(err) = apart(move || resource::end_calls(&bundle)).await {
        tracing::warn!(container = %container.id(), %err, "a call of the OCI runtime goes on");
    }
    let of_runtime = |resource: &&Resource| matches!(resource, Resource::Task { .. });
    let task: Vec<Resource> = container.fixed.plan.iter().filter(of_runtime).cloned().collect();
    resource::release(&task, &node.hands).await;
}

async fn run(
    node: &Node,
    container: &Container,
    shim: &Shim,
    operation: &Operation,
) -> Result<Running> {
    node.expect_move();
    operation
        .enter("mounting the root file system and creating the container in its OCI runtime")?;
    let (snapshotter, fixed) = (node.hands.snapshotter.clone(), container.fixed.clone());
    let (mounts, volumes) = blocking(move || {
        let rootfs = snapshotter
            .mounts(fixed.id.as_str())
            .map_err(|err| Error::Image(err.to_string()))?
            .ok_or_else(|| Error::Internal(format!("snapshot {} is gone", fixed.id)))?;
        let mut volumes = volume::mounts(&snapshotter, &fixed)?;
        let mut rootfs = rootfs;
        if let Some(label) = &fixed.mount_label {
            let all = rootfs.iter_mut().chain(volumes.iter_mut().map(|(mount, _)| mount));
            // The files of a bind mount have labels of their own.
            for mount in all.filter(|mount| mount.kind == Kind::Overlay) {
                mount.options.push(format!("context=\"{label}\""));
            }
        }
        Ok((rootfs, volumes))
    })
    .await?;
    let create = shim.create(node, container, mounts, volumes);
    let pid = unless_cancelled(operation, container, shim, create).await?;
    operation.enter("starting the container's process")?;
    let (path, started_at) = (container.fixed.bundle.join(STARTED), now());
    blocking(move || remember(&path, started_at)).await?;
    unless_cancelled(operation, container, shim, shim.start(container)).await?;
    Ok(Running { pid, started_at })
}

/// What a call of the OCI runtime comes to. Once the start is cancelled, the runtime is ended: it may hang for ever.
async fn unless_cancelled<T>(
    operation: &Operation,
    container: &Container,
    shim: &Shim,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut call = pin!(call);
    tokio::select! {
        done = &mut call => return done,
        () = operation.cancelled() => {}
    }
    shim.signal(container, Signal::KILL.as_raw()).await.ok();
    tokio::time::timeout(ABORT, call).await.ok();
    Err(Error::Cancelled { stage: operation.progress().stage })
}

/// Name of the file in a bundle that says when the process was started. A crash may come between the start and its
/// record, and clients must not be told of two times. Like the process, it ends with the boot.
const STARTED: &str = "started";

fn remember(path: &Path, started_at: Timestamp) -> Result<()> {
    failpoint::step("start/remember", || {
        std::fs::write(path, started_at.to_string()).map_err(Error::io("write", path))
    })
}

/// When a container was started whose record does not say so. Blocks on one small file.
pub(crate) fn recall(container: &Container) -> Timestamp {
    let text = std::fs::read_to_string(container.fixed.bundle.join(STARTED)).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or_else(now)
}
