//! Task.Delete: forgets a container or an exec that has exited, or a container that is still being created.

use std::rc::Rc;
use std::time::Duration;

use api::events::{TaskDelete, topic};
use api::task::{DeleteRequest, DeleteResponse};

use super::observe::timestamp;
use super::{Task, find};
use crate::leftover;
use crate::pod::Pod;
use crate::reactor::{self, Exit};
use crate::rpc::Failure;

/// How long a container that was never started may take to die.
const DEATH: Duration = Duration::from_secs(10);

/// Removes it, and whatever the OCI runtime keeps of it.
pub(crate) async fn delete(
    pod: &Rc<Pod>,
    request: &DeleteRequest,
) -> Result<DeleteResponse, Failure> {
    if let Some(birth) = pod.birth(&request.id) {
        birth.cancel();
        reactor::within(DEATH, birth.over()).await;
    }
    let task = find(pod, &request.id)?;
    if !request.exec_id.is_empty() {
        return delete_exec(&task, &request.exec_id);
    }
    if !task.init.exit.is_set() && !task.started.get() && !task.starting.get() {
        task.kill_all();
        reactor::within(DEATH, task.exited()).await;
    }
    let Some(exit) = task.init.exit.get() else {
        return Err(Failure::precondition("the container is running"));
    };
    let _guard = task.lock.lock().await;
    task.runtime.delete_force(&task.bundle, &task.id).await.map_err(Failure::unknown)?;
    for (_, exec) in task.execs.take() {
        exec.exit.set(Exit::unknown());
    }
    leftover::forget(&pod.dir, &task.bundle, &task.id);
    pod.tasks.borrow_mut().remove(&task.id);
    pod.publish(topic::DELETE, || TaskDelete {
        container_id: task.id.clone(),
        pid: task.init.pid,
        exit_status: exit.status,
        exited_at: Some(timestamp(exit.at)),
        id: task.id.clone(),
    });
    Ok(answer(task.init.pid, exit))
}

fn delete_exec(task: &Task, id: &str) -> Result<DeleteResponse, Failure> {
    let exec = task.exec(id)?;
    let pid = exec.process.borrow().as_ref().map(|process| process.pid);
    if pid.is_some() && !exec.exit.is_set() {
        return Err(Failure::precondition("the exec is running"));
    }
    task.execs.borrow_mut().remove(id);
    // Frees whoever waits for an exec that was never started.
    exec.exit.set(Exit::unknown());
    let exit = exec.exit.get().unwrap_or_else(Exit::unknown);
    Ok(answer(pid.unwrap_or(0), exit))
}

fn answer(pid: u32, exit: Exit) -> DeleteResponse {
    DeleteResponse { pid, exit_status: exit.status, exited_at: Some(timestamp(exit.at)) }
}
