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
    create::open(&sandbox)?;
    let shim = sandbox.shim().ok_or_else(|| Error::Unavailable("the pod's shim is gone".into()))?;
    container::start::start(&pods.node, container, &shim, operation).await?;
    watch::container(pods, container, &shim);
    Ok(())
}
