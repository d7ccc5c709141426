//! RemovePodSandbox: stop it, remove its containers, and forget it.

use futures_util::future::join_all;

use super::{Pods, Sandbox, TABLE, stop};
use crate::container;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::resource;

/// Removes the sandbox and everything in it. Idempotent.
///
/// # Errors
/// The first thing that could not be released; the sandbox stays, not ready, and the call can be repeated.
pub(crate) async fn remove(pods: &Pods, sandbox: &Sandbox, operation: &Operation) -> Result<()> {
    stop::stop(pods, sandbox, operation).await?;
    let _verb = sandbox.verb.lock().await;
    operation.enter("removing the pod's containers")?;
    let removals = pods.containers_of(sandbox.id()).into_iter().map(|container| async move {
        container::remove::remove(&pods.node, &container, None, operation).await?;
        pods.forget_container(container.id());
        Ok(())
    });
    join_all(removals).await.into_iter().collect::<Result<()>>()?;
    if !pods.node.release_leftovers(sandbox.id()).await {
        return Err(Error::Runtime(format!(
            "sandbox {}: a container of it is not released",
            sandbox.id()
        )));
    }
    operation.enter("removing the pod's directory and record")?;
    let left = resource::release(&sandbox.now().plan, &pods.node.hands).await;
    if let Some((_, err)) = left.into_iter().next() {
        return Err(err);
    }
    pods.node.store.delete(TABLE, sandbox.id().as_str()).await?;
    pods.forget_sandbox(sandbox.id());
    Ok(())
}
