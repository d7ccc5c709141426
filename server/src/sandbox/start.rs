//! StartContainer, the sandbox's part: whether it may, and who watches what runs then.

use std::sync::Arc;

use super::{Pods, create, watch};
use crate::container::{self, Container};
use crate::error::{Error, Result};
use crate::operation::Operation;

/// Starts a created container.
///
/// # Errors
/// `WrongState` unless the sandbox is ready and the container is created, else what `container::start` says.
pub(crate) async fn start(
    pods: &Pods,
    container: &Arc<Container>,
    operation: &Operation,
) -> Result<()> {
    let sandbox = pods.sandbox_of(container)?;
    // Held until its end is watched for. A stop closes the sandbox and then waits for the verb: either it sees what
    // was started here, or we see that it is closed.
    let _verb = container.verb.lock().await;
    create::open(&sandbox)?;
    let shim = sandbox.shim().ok_or_else(|| Error::Unavailable("the pod's shim is gone".into()))?;
    container::start::start(&pods.node, container, &shim, operation).await?;
    watch::container(pods, container, &shim);
    Ok(())
}
