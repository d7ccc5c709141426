//! What happens to a pod without anybody asking: a container ends, a shim dies.

use std::sync::Arc;

use super::state::Event;
use super::{Pods, Sandbox};
use crate::container::Container;
use crate::container::shim::Shim;
use crate::container::watch_exit::watch_exit;

/// Watches a running container until it has ended.
pub(crate) fn container(pods: &Pods, container: &Arc<Container>, shim: &Arc<Shim>) {
    let span = tracing::info_span!("watch", container = %container.id());
    let (node, container, shim) = (pods.node.clone(), container.clone(), shim.clone());
    pods.node.tasks.spawn(span, async move { watch_exit(&node, &container, &shim).await });
}

/// Watches a pod's shim until it has ended. A pod whose shim died is not ready; its containers are taken care
/// of by their own watchers, which notice the same death.
pub(crate) fn sandbox(pods: &Pods, sandbox: &Arc<Sandbox>, shim: &Arc<Shim>) {
    let span = tracing::info_span!("watch", sandbox = %sandbox.id());
    let (node, sandbox, shim) = (pods.node.clone(), sandbox.clone(), shim.clone());
    pods.node.tasks.spawn(span, async move {
        shim.ended().await;
        // A stop under way ends the shim itself; one that comes next finds the pod down.
        let _verb = sandbox.verb.lock().await;
        if !sandbox.is_open() {
            return;
        }
        tracing::error!(sandbox = %sandbox.id(), "the pod's shim died: the pod is not ready");
        sandbox.apply(Event::Down).ok();
        if let Err(err) = sandbox.keep(&node).await {
            tracing::error!(%err, "record not kept");
        }
    });
}
