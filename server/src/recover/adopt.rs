//! One pod of the last daemon's: what its shim, or else what it left, says of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;

use super::{BUDGET, cut_off, settle};
use crate::container::shim::{Shim, Suspect, TaskState};
use crate::container::state::{Event as ContainerEvent, Running, State as ContainerState};
use crate::container::{Container, logged, start, watch_exit};
use crate::error::Error;
use crate::host::process;
use crate::operation::{Operation, What};
use crate::sandbox::state::{Event, Ready, State};
use crate::sandbox::{self, Pods, Sandbox};
use crate::telemetry::blocking;

/// How often a living shim that does not answer is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long a killed shim may take to be gone.
const SHIM_END: Duration = Duration::from_secs(10);
/// How long a killed command may take to be gone.
const EXEC_END: Duration = Duration::from_secs(1);

/// What became of a pod's shim.
enum Found {
    Attached(Arc<Shim>),
    /// It lives and does not answer: its pod is not taken for dead until enough speaks against it.
    Silent,
    Gone(Error),
}

/// Brings one pod to agreement with the host.
pub(super) async fn one(pods: &Arc<Pods>, sandbox: Arc<Sandbox>, containers: Vec<Arc<Container>>) {
    let until = Instant::now() + BUDGET;
    let (all, id) = (pods.clone(), sandbox.id().clone());
    let ready = match sandbox.now().state {
        State::Starting => {
            let what = cut_off("undo the run of sandbox", &id);
            let work = |operation: Arc<Operation>| async move {
                operation.enter("releasing what it held").ok();
                sandbox::run::undo(&all, sandbox).await;
            };
            return settle(pods, what, BUDGET, work).await;
        }
        State::Ready(ready) => Some(ready),
        State::NotReady => None,
    };
    // Before anybody can see them and count. One whose start was not recorded any more may run, too.
    let known = containers.clone();
    let skip = move || {
        known.iter().filter(|one| !one.has_exited()).for_each(|one| logged::skip(one));
        Ok(())
    };
    blocking(skip).await.ok();
    // Lists are whole before anybody sees them, whatever becomes of one owner.
    for container in &containers {
        pods.insert_container(container.clone());
    }
    pods.insert_sandbox(sandbox.clone());
    let found = match ready {
        Some(ready) => attach(pods, &sandbox, &ready).await,
        None => Found::Gone(Error::WrongState("it was stopped".into())),
    };
    let left = until.saturating_duration_since(Instant::now());
    let work = move |operation: Arc<Operation>| async move {
        settle_pod(&all, sandbox, containers, found, &operation).await;
    };
    settle(pods, What::new("attach to pod", id), left, work).await;
}

async fn settle_pod(
    pods: &Arc<Pods>,
    sandbox: Arc<Sandbox>,
    containers: Vec<Arc<Container>>,
    mut found: Found,
    operation: &Operation,
) {
    let id = sandbox.id().clone();
    let mut suspect: Option<Suspect> = None;
    loop {
        match found {
            Found::Attached(shim) => {
                operation.enter("asking the shim for its containers").ok();
                sandbox.set_shim(Some(shim.clone()));
                sandbox::watch::sandbox(pods, &sandbox, &shim);
                join_all(containers.iter().map(|container| adopt(pods, container, &shim))).await;
                return;
            }
            Found::Silent => {
                operation.enter("waiting for the shim to answer").ok();
                tokio::time::sleep(RETRY).await;
                // Stopped meanwhile: then the shim was ended, too.
                let Some(ready) = sandbox.ready() else { return };
                let suspect = suspect.get_or_insert_with(|| Suspect::begin(ready.shim_pid));
                if let Some(why) = suspect.look() {
                    tracing::error!(sandbox = %id, "the pod's shim {why}: it is killed");
                    end(&ready).await;
                }
                found = attach(pods, &sandbox, &ready).await;
            }
            Found::Gone(err) => {
                if sandbox.is_ready() {
                    tracing::warn!(sandbox = %id, %err, "the pod is down");
                }
                operation.enter("taking the pod down").ok();
                take_down(pods, &sandbox, &containers).await;
                return;
            }
        }
    }
}

/// Kills a shim to which nothing can be said.
async fn end(ready: &Ready) {
    let (pid, started) = (ready.shim_pid, ready.shim_start_time);
    let kill = move || process::kill(pid, started, SHIM_END).map_err(Error::Runtime);
    if let Err(err) = blocking(kill).await {
        tracing::error!(%err, "the pod's shim cannot be ended");
    }
}

async fn attach(pods: &Pods, sandbox: &Sandbox, ready: &Ready) -> Found {
    if sandbox.fixed.boot_id != pods.node.host.boot_id {
        return Found::Gone(Error::Unavailable("the node was rebooted".into()));
    }
    let (pid, started) = (ready.shim_pid, ready.shim_start_time);
    let dir = pods.node.pod_dir(sandbox.id()).join("shim");
    let attach = Shim::attach(sandbox.id(), &dir, pid, started);
    match tokio::time::timeout(BUDGET, attach).await {
        Ok(Ok(shim)) => Found::Attached(Arc::new(shim)),
        Ok(Err(err)) => Found::Gone(err),
        Err(_) if process::is_alive(pid, started) => Found::Silent,
        Err(_) => Found::Gone(Error::Unavailable(format!("its shim, process {pid}, is gone"))),
    }
}

/// Brings one container to agreement with what its shim says of it.
async fn adopt(pods: &Arc<Pods>, container: &Arc<Container>, shim: &Arc<Shim>) {
    // Nothing is started meanwhile: what the shim says has to be true still when it is acted on.
    let verb = container.verb.lock().await;
    let told = tokio::time::timeout(BUDGET, shim.state(container)).await;
    let told =
        told.unwrap_or_else(|_| Err(Error::DeadlineExceeded("the shim does not answer".into())));
    let ended = matches!(told, Ok(TaskState::Stopped { .. }));
    match (container.state(), told) {
        // Its exit may have been taken by the last daemon without the OCI runtime being told to forget it.
        (ContainerState::Exited(_), Ok(TaskState::Unknown) | Err(_))
        | (ContainerState::Created, Err(_)) => {}
        (ContainerState::Exited(_), Ok(_)) => drop(shim.forget(container).await),
        (ContainerState::Created, Ok(TaskState::Running { pid } | TaskState::Stopped { pid })) => {
            let running = Running { pid, started_at: start::recall(container) };
            pods.node.apply(container, &ContainerEvent::Started(running)).ok();
            sandbox::watch::container(pods, container, shim);
        }
        // Created in the OCI runtime, never started: as if the start had not begun.
        (ContainerState::Created, Ok(TaskState::Created | TaskState::Unknown)) => {
            shim.forget(container).await;
        }
        (
            ContainerState::Running(_),
            Ok(TaskState::Running { .. } | TaskState::Stopped { .. }) | Err(_),
        ) => {
            sandbox::watch::container(pods, container, shim);
        }
        (ContainerState::Running(_), Ok(TaskState::Unknown | TaskState::Created)) => {
            lost(pods, container).await;
            shim.forget(container).await;
        }
    }
    drop(verb);
    if ended {
        // Whoever lists next shall see the end, with the code and time that the shim kept.
        container.not_running().await;
    }
    end_execs(container, shim).await;
    // Viewers went with the last daemon, and the shim has seen that.
    let dir = container.fixed.bundle.join("attach");
    blocking(move || Ok(std::fs::remove_dir_all(dir))).await.ok();
}

/// Commands whose caller went with the last daemon run for nobody.
async fn end_execs(container: &Container, shim: &Shim) {
    let dir = container.fixed.bundle.join("exec");
    let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
    let ids: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    for id in &ids {
        tracing::info!(container = %container.id(), exec = id, "ending a command that nobody waits for");
        shim.signal_exec(container, id, Signal::KILL.as_raw()).await.ok();
        tokio::time::timeout(EXEC_END, shim.wait_exec(container, id)).await.ok();
        shim.delete_exec(container, id).await;
    }
    if !ids.is_empty() {
        let removed = move || std::fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir));
        if let Err(err) = blocking(removed).await {
            tracing::warn!(container = %container.id(), %err, "files of commands stay");
        }
    }
}

/// A container whose shim is gone: its exit record tells, or nobody. A start that was cut off may have got as far
/// as a process.
async fn lost(pods: &Pods, container: &Container) {
    match container.state() {
        ContainerState::Running(_) | ContainerState::Created => {
            let event = watch_exit::gone(container).await;
            pods.node.apply(container, &event).ok();
        }
        ContainerState::Exited(_) => {}
    }
}

/// A pod whose shim is gone: its containers are over, and its network goes back.
async fn take_down(pods: &Pods, sandbox: &Sandbox, containers: &[Arc<Container>]) {
    let _verb = sandbox.verb.lock().await;
    sandbox.apply(Event::Down).ok();
    join_all(containers.iter().map(|container| lost(pods, container))).await;
    if let Err(err) = sandbox::stop::give_back(&pods.node, sandbox, true, async {}).await {
        tracing::warn!(sandbox = %sandbox.id(), %err, "kept for the next stop of the pod");
    }
}
