//! UpdatePodSandboxResources: what the kubelet has made of the pod's cgroup, which is its own; kept for status and
//! for sandboxes that size themselves by it.

use super::Sandbox;
use crate::container::config::Resources;
use crate::container::node::Node;
use crate::error::{Error, Result};
use crate::operation::Operation;

/// Replaces what is known of the pod's overhead and resources; `None` leaves it.
///
/// # Errors
/// `WrongState` unless the sandbox is ready. If it cannot be recorded, nothing has changed.
pub(crate) async fn update(
    node: &Node,
    sandbox: &Sandbox,
    overhead: Option<Resources>,
    resources: Option<Resources>,
    operation: &Operation,
) -> Result<()> {
    let _verb = sandbox.verb.lock().await;
    if !sandbox.is_open() {
        return Err(Error::WrongState(format!("sandbox {} is not ready", sandbox.id())));
    }
    operation.enter("recording the pod's resources")?;
    let before = sandbox.now();
    sandbox.set_resources(
        overhead.or_else(|| before.overhead.clone()),
        resources.or_else(|| before.resources.clone()),
    );
    if let Err(err) = sandbox.keep(node).await {
        sandbox.set_resources(before.overhead, before.resources);
        return Err(err);
    }
    Ok(())
}
