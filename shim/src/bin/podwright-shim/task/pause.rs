//! Task.Pause and Task.Resume.

use std::rc::Rc;

use api::events::{TaskPaused, TaskResumed, topic};
use api::task::{PauseRequest, ResumeRequest};

use super::{Task, find};
use crate::pod::Pod;
use crate::rpc::Failure;

/// Freezes a container.
pub(crate) async fn pause(pod: &Rc<Pod>, request: &PauseRequest) -> Result<(), Failure> {
    let task = find(pod, &request.id)?;
    run(&task, "pause").await?;
    task.paused.set(true);
    pod.publish(topic::PAUSED, || TaskPaused { container_id: task.id.clone() });
    Ok(())
}

/// Thaws it.
pub(crate) async fn resume(pod: &Rc<Pod>, request: &ResumeRequest) -> Result<(), Failure> {
    let task = find(pod, &request.id)?;
    run(&task, "resume").await?;
    task.paused.set(false);
    pod.publish(topic::RESUMED, || TaskResumed { container_id: task.id.clone() });
    Ok(())
}

async fn run(task: &Task, verb: &str) -> Result<(), Failure> {
    let _guard = task.lock.lock().await;
    if task.init.reaped.is_set() {
        return Err(Failure::precondition("the container has exited"));
    }
    task.runtime.run(&task.bundle, &[verb, &task.id], None).await.map_err(Failure::unknown)
}
