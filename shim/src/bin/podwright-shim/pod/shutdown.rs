//! The end of a pod: StopSandbox, ShutdownSandbox, and Task's Shutdown.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use api::sandbox::{
    ShutdownSandboxRequest, ShutdownSandboxResponse, StopSandboxRequest, StopSandboxResponse,
};
use api::task::ShutdownRequest;

use super::Pod;
use super::verbs::{Sandbox, check};
use crate::leftover;
use crate::reactor;
use crate::rpc::Failure;
use crate::task::Task;

/// What killed processes get to be gone, when the caller does not say.
const DEATH: Duration = Duration::from_secs(10);
/// What the OCI runtime gets to forget a container before we go without.
const DISCARD: Duration = Duration::from_secs(5);

/// Kills what still runs and lets the namespaces go. Idempotent.
pub(crate) async fn stop(
    pod: &Rc<Pod>,
    request: &StopSandboxRequest,
) -> Result<StopSandboxResponse, Failure> {
    check(pod, &request.sandbox_id)?;
    let limit = match request.timeout_secs {
        0 => DEATH,
        seconds => Duration::from_secs(seconds.into()),
    };
    for birth in pod.births.borrow().values() {
        birth.cancel();
    }
    let tasks: Vec<Rc<Task>> = pod.tasks.borrow().values().cloned().collect();
    for task in &tasks {
        task.kill_all();
    }
    let all_gone = async {
        for task in &tasks {
            task.exited().await;
        }
    };
    if reactor::within(limit, all_gone).await.is_none() {
        return Err(Failure::unknown("containers of the sandbox do not die"));
    }
    release(pod).await;
    Ok(StopSandboxResponse {})
}

/// Stops, then lets the shim exit. A daemon that has removed its containers calls this last;
/// what it has not removed is removed here.
pub(crate) async fn shutdown_sandbox(
    pod: &Rc<Pod>,
    request: &ShutdownSandboxRequest,
) -> Result<ShutdownSandboxResponse, Failure> {
    let stop_request =
        StopSandboxRequest { sandbox_id: request.sandbox_id.clone(), timeout_secs: 0 };
    stop(pod, &stop_request).await?;
    let tasks: Vec<Rc<Task>> = pod.tasks.borrow().values().cloned().collect();
    for task in tasks {
        match reactor::within(DISCARD, task.discard()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => eprintln!("{}: {error}", task.id),
            None => task.end_calls(),
        }
    }
    pod.over.set(true);
    Ok(ShutdownSandboxResponse {})
}

/// Task.Shutdown: the shim exits if it has no container (or at once, if told so).
pub(crate) fn shutdown(pod: &Rc<Pod>, request: &ShutdownRequest) -> Result<(), Failure> {
    let sandbox = !matches!(&*pod.sandbox.borrow(), Sandbox::Absent | Sandbox::Stopped);
    if request.now || (pod.tasks.borrow().is_empty() && pod.births.borrow().is_empty() && !sandbox)
    {
        pod.over.set(true);
    }
    Ok(())
}

async fn release(pod: &Pod) {
    let held = match std::mem::replace(&mut *pod.sandbox.borrow_mut(), Sandbox::Stopped) {
        Sandbox::Created(held) | Sandbox::Ready { held, .. } => Some(held),
        Sandbox::Absent | Sandbox::Making | Sandbox::Stopped => None,
    };
    if let Some(held) = held {
        held.release().await;
    }
    leftover::forget_init(&pod.dir);
    pod.ended.set(SystemTime::now());
}
