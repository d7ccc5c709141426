//! StopPodSandbox: end everything that runs in the pod and give its network back.

use std::time::Duration;

use futures_util::future::join_all;

use super::state::Event;
use super::{Pods, Sandbox};
use crate::container::fact::Became;
use crate::container::node::Node;
use crate::container::stop::kill;
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::resource::{self, Resource};

/// How long the end of a container may take to be known once its shim is gone.
const SETTLE: Duration = Duration::from_secs(5);

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
        // A start under way was cancelled, or is over soon, and what it started has to be killed.
        drop(container.verb.lock().await);
        kill(container, shim.as_deref()).await
    });
    let killed: Vec<Result<()>> = join_all(kills).await;

    operation.enter("releasing the pod's network and namespaces")?;
    let was_up = sandbox.is_ready();
    sandbox
        .apply(Event::Down)
        .map_err(|_| Error::Internal("a sandbox that cannot go down".into()))?;
    if was_up {
        pods.node.happened.of_sandbox(sandbox.id(), Became::Stopped);
    }
    let shim_ended = async {
        let Some(shim) = &shim else { return };
        let forgets = containers.iter().map(|container| shim.forget(container));
        // With a runtime that hangs it would not end in time, and is ended with its other resources.
        if join_all(forgets).await.into_iter().all(|done| done) {
            shim.shut_down().await;
        }
        sandbox.set_shim(None);
    };
    let given_back = give_back(&pods.node, sandbox, was_up, shim_ended).await;
    for (container, killed) in containers.iter().zip(killed) {
        // One whose shim said nothing of its end: with that shim gone, its watcher sees to it.
        let ended = tokio::time::timeout(SETTLE, container.not_running()).await;
        if ended.is_err() {
            killed?;
        }
    }
    given_back
}

/// Releases all that a pod holds but its directory, and keeps its record if that or anything before, `changed`, has
/// changed it. `meanwhile` is done beside the giving back of the network, which has nothing to do with it, and before
/// the rest. The caller holds the sandbox's verb.
///
/// # Errors
/// The first thing that could not be released; it stays in the sandbox's plan.
pub(crate) async fn give_back(
    node: &Node,
    sandbox: &Sandbox,
    changed: bool,
    meanwhile: impl Future<Output = ()>,
) -> Result<()> {
    let mut plan = sandbox.now().plan;
    let stays = |resource: &Resource| matches!(resource, Resource::Directory { .. });
    let given = plan.iter().filter(|resource| !stays(resource)).cloned();
    let (network, rest): (Vec<Resource>, Vec<Resource>) =
        given.partition(|resource| matches!(resource, Resource::Attachment { .. }));
    let (mut left, ()) = tokio::join!(resource::release(&network, &node.hands), meanwhile);
    left.extend(resource::release(&rest, &node.hands).await);
    // What is left stays in its order.
    plan.retain(|resource| stays(resource) || left.iter().any(|(one, _)| one == resource));
    sandbox.set_plan(plan);
    // A full disk is no reason not to end a pod.
    if changed || !(network.is_empty() && rest.is_empty()) {
        sandbox.keep_somehow(node).await;
    }
    left.into_iter().next().map_or(Ok(()), |(_, err)| Err(err))
}
