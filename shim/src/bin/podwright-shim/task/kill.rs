//! Task.Kill: signals, sent straight to the process or through its cgroup.
//!
//! Going through the OCI runtime would cost a program start per signal and add nothing: the
//! shim is the parent, so it knows better than anyone whether the pid is still that process.

use std::rc::Rc;

use api::task::KillRequest;

use super::{Task, find, finished};
use crate::pod::Pod;
use crate::rpc::Failure;

const SIGKILL: u32 = libc::SIGKILL as u32;

/// Sends a signal to a container's init, to all its processes, or to an exec.
pub(crate) async fn kill(pod: &Rc<Pod>, request: &KillRequest) -> Result<(), Failure> {
    if let Some(birth) = pod.birth(&request.id) {
        // Nothing runs yet: what there is to end is the runtime making it.
        if request.signal == SIGKILL {
            birth.cancel();
        }
        return Ok(());
    }
    let task = find(pod, &request.id)?;
    if !request.exec_id.is_empty() {
        let exec = task.exec(&request.exec_id)?;
        let process = exec.process.borrow().clone().ok_or_else(finished)?;
        return process.signal(request.signal);
    }
    task.init.signal(request.signal)?;
    if request.all
        && let Some(cgroup) = &task.cgroup
    {
        cgroup.signal_all(request.signal);
    }
    if request.signal == SIGKILL {
        thaw(&task).await;
    }
    Ok(())
}

/// A frozen process dies only once it runs again.
async fn thaw(task: &Task) {
    if task.paused.replace(false)
        && let Err(error) = task.runtime.run(&task.bundle, &["resume", &task.id], None).await
    {
        eprintln!("{}: {error}", task.id);
    }
}
