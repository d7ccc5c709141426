//! UpdateContainerResources: all of it or nothing.

use super::config::Resources;
use super::node::Node;
use super::shim::Shim;
use super::spec;
use super::state::State;
use super::{Container, TABLE, create};
use crate::error::{Error, Result};
use crate::operation::Operation;
use crate::telemetry::blocking;

/// Changes the limits of a created or running container; values that are not set stay as they are.
///
/// # Errors
/// `WrongState` for one that has exited; whatever the OCI runtime refuses. Then nothing has changed.
pub(crate) async fn update(
    node: &Node,
    container: &Container,
    shim: Option<&Shim>,
    wanted: &Resources,
    operation: &Operation,
) -> Result<()> {
    let _verb = container.verb.lock().await;
    let merged = spec::resources::merge(&container.now().resources, wanted);
    let linux = spec::resources::limits(&merged, &node.facts)?;
    match container.state() {
        State::Created => {}
        State::Running(_) => {
            operation.enter("changing the limits of the running container")?;
            let shim = shim.ok_or_else(|| Error::Unavailable("the pod's shim is gone".into()))?;
            let json =
                serde_json::to_vec(&linux).map_err(|err| Error::Internal(err.to_string()))?;
            shim.update(container, json).await?;
        }
        State::Exited(_) => {
            return Err(Error::WrongState(format!("container {} has exited", container.id())));
        }
    }
    operation.enter("recording the new limits")?;
    let path = container.fixed.bundle.join("config.json");
    let floor = node.facts.oom_score_adj_floor.map_or(i64::MIN, i64::from);
    let oom_score_adj = (wanted.oom_score_adj != 0).then(|| wanted.oom_score_adj.max(floor));
    blocking(move || {
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let mut spec: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|err| Error::Internal(err.to_string()))?;
        let fresh = serde_json::to_value(&linux).map_err(|err| Error::Internal(err.to_string()))?;
        // Device rules are not part of an update; what the spec has of them stays.
        if let (Some(old), serde_json::Value::Object(fresh)) =
            (spec.pointer_mut("/linux/resources").and_then(|value| value.as_object_mut()), fresh)
        {
            old.extend(fresh.into_iter().filter(|(_, value)| !value.is_null()));
        }
        // For a container that is not started yet; of a running process it is not changed.
        if let (Some(score), Some(wanted)) =
            (spec.pointer_mut("/process/oomScoreAdj"), oom_score_adj)
        {
            *score = wanted.into();
        }
        create::write_json(&path, &spec)
    })
    .await?;
    container.set_resources(merged);
    node.store.put(TABLE, container.id().as_str(), &container.record()).await
}
