//! Task.Start: lets a created container, or an exec, run.

use std::rc::Rc;

use api::events::{TaskStart, topic};
use api::task::{StartRequest, StartResponse};

use super::{Task, exec, find};
use crate::pod::Pod;
use crate::rpc::Failure;

/// Starts what Create or Exec has prepared.
pub(crate) async fn start(pod: &Rc<Pod>, request: &StartRequest) -> Result<StartResponse, Failure> {
    let task = find(pod, &request.id)?;
    if !request.exec_id.is_empty() {
        return exec::start(pod, &task, &request.exec_id).await;
    }
    let _guard = task.lock.lock().await;
    if task.started.get() {
        return Err(Failure::precondition("the container was started before"));
    }
    if task.init.reaped.is_set() {
        return Err(Failure::precondition("the container has exited"));
    }
    task.starting.set(true);
    let outcome = run(&task).await;
    if outcome.is_ok() {
        pod.publish(topic::START, || TaskStart {
            container_id: task.id.clone(),
            pid: task.init.pid,
        });
    }
    task.start_over.set(());
    outcome.map(|()| StartResponse { pid: task.init.pid })
}

async fn run(task: &Task) -> Result<(), Failure> {
    task.runtime.run(&task.bundle, &["start", &task.id], None).await.map_err(Failure::unknown)?;
    task.started.set(true);
    Ok(())
}
