//! StopPodSandbox: end everything that runs in the pod and give its network back.

use futures_util::future::join_all;

use super::state::Event;
use super::{Pods, Sandbox};
use crate::container::stop::kill;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::resource::{self, Resource};

/// Kills the pod's containers and releases all that it holds but its directory. Idempotent.
///
/// # Errors
/// The first thing that could not be ended or released; it stays in the sandbox's plan for the next call.
pub(crate) async fn stop(pods: &Pods, sandbox: &Sandbox, operation: &Operation) -> Result<()> {
    sandbox.close();
    let _verb = sandbox.verb.lock().await;
    operation.enter("killing the pod's containers")?;
    let containers = pods.containers_of(sandbox.id());
    let shim = sandbox.shim();
    let kills = containers.iter().map(|container| async {
        // A start under way is short, and what it starts has to be killed.
        drop(container.verb.lock().await);
        kill(container, shim.as_deref()).await
    });
    let killed: Vec<Result<()>> = join_all(kills).await;
    if let Some(shim) = &shim {
        join_all(containers.iter().map(|container| shim.forget(container))).await;
    }

    operation.enter("releasing the pod's network and namespaces")?;
    sandbox
        .apply(Event::Down)
        .map_err(|_| Error::Internal("a sandbox that cannot go down".into()))?;
    if let Some(shim) = &shim {
        shim.shut_down().await;
    }
    sandbox.set_shim(None);
    let (kept, given): (Vec<_>, Vec<_>) = sandbox
        .now()
        .plan
        .into_iter()
        .partition(|resource| matches!(resource, Resource::Directory { .. }));
    let left = resource::release(&given, &pods.node.hands).await;
    let mut plan = kept;
    let mut failure = None;
    for (resource, err) in left {
        plan.push(resource);
        failure.get_or_insert(err);
    }
    sandbox.set_plan(plan);
    sandbox.keep(&pods.node).await?;
    killed.into_iter().collect::<Result<()>>()?;
    failure.map_or(Ok(()), Err)
}
