//! Task.Update: new resource limits for a running container.

use std::rc::Rc;

use api::task::UpdateTaskRequest;

use super::find;
use crate::pod::Pod;
use crate::rpc::Failure;

/// Hands an OCI `LinuxResources` document to the runtime.
pub(crate) async fn update(pod: &Rc<Pod>, request: &UpdateTaskRequest) -> Result<(), Failure> {
    let task = find(pod, &request.id)?;
    let resources = request.resources.as_ref();
    let resources = resources.ok_or_else(|| Failure::invalid("an update without resources"))?;
    let _guard = task.lock.lock().await;
    if task.init.reaped.is_set() {
        return Err(Failure::precondition("the container has exited"));
    }
    let verb = ["update", "--resources", "-", &task.id];
    let done = task.runtime.run(&task.bundle, &verb, Some(&resources.value)).await;
    done.map_err(Failure::unknown)
}
