//! RemoveContainer: everything that the container holds is given back, then its record goes.

use super::node::Node;
use super::shim::Shim;
use super::{Container, Record, TABLE, stop};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::resource;

/// Kills the container if it runs, and removes what is left of it. Its log file stays: it is the kubelet's.
///
/// # Errors
/// The first thing that could not be released; the container is still there then, and the call can be repeated.
pub(crate) async fn remove(
    node: &Node,
    container: &Container,
    shim: Option<&Shim>,
    operation: &Operation,
) -> Result<()> {
    container.mark_removing();
    let _verb = container.verb.lock().await;
    operation.enter("killing the container")?;
    stop::kill(container, shim).await?;
    if let Some(shim) = shim {
        shim.forget(container).await;
    }
    operation.enter("releasing its resources")?;
    // A crash from here on leaves something to be released, and not a container whose end nobody knows any more: what
    // its shim wrote down goes with its bundle.
    node.keep_later(&Record::Intent(container.intent()), container);
    let released = release(node, container).await;
    match &released {
        Ok(()) => node.images.unhold(container.id().as_str()),
        Err(_) => node.keep_later(&container.record(container.now()), container),
    }
    released
}

async fn release(node: &Node, container: &Container) -> Result<()> {
    let left = resource::release(&container.fixed.plan, &node.hands).await;
    if let Some((_, err)) = left.into_iter().next() {
        return Err(err);
    }
    node.store.delete(TABLE, container.id().as_str()).await.map_err(|err| match err {
        Error::Store(text) => Error::Store(format!("forget container {}: {text}", container.id())),
        other => other,
    })
}
