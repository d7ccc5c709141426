//! What plugins keep for pods that are no more: CNI's GC, once after a start.
//!
//! GC releases every attachment of a network that the caller does not name, and networks are shared with other
//! runtimes of the node. So what any libcni cache records counts as valid beside our own, and where one of these
//! cannot be read nothing is collected. No pod of ours is attached meanwhile.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::container::node::Node;
use crate::error::{Error, Result};
use crate::leftover::Known;
use crate::operation::{Operation, What};
use crate::sandbox::Pods;
use crate::telemetry::blocking;

/// New pods wait for it: it is not given more.
const LIMIT: Duration = Duration::from_secs(10);

/// Has the plugins of the configured network collect, in the background. Only plugins of CNI 1.1 can.
pub(super) fn collect_soon(pods: &Arc<Pods>) {
    let current = pods.networks.current();
    let Some(network) = current.network().cloned() else { return };
    if network.version() < cni::SpecVersion::V1_1 {
        return;
    }
    let pods = pods.clone();
    let operation =
        pods.node.operations.begin(What::new("collect garbage of network", network.name()));
    let span = tracing::info_span!("operation", what = %operation.progress().what);
    pods.node.tasks.clone().spawn(span, async move {
        operation.enter("waiting for pods that are being attached").ok();
        let _alone = pods.networks.attaching.write().await;
        if let Err(err) = collect(pods.node.clone(), network, operation).await {
            tracing::warn!(%err, "the network's garbage is not collected");
        }
    });
}

async fn collect(
    node: Arc<Node>,
    network: Arc<cni::Network>,
    operation: Arc<Operation>,
) -> Result<()> {
    blocking(move || {
        let failed = |err: cni::Error| Error::Network(err.to_string());
        operation.enter("reading who is attached").ok();
        let cni = &node.hands.cni;
        let mut caches: Vec<PathBuf> =
            vec![cni.cache_dir.clone(), cni::Runtime::default().cache_dir];
        caches.dedup();
        let mut valid: HashSet<(String, String)> = Known::read(&node)?.attachments;
        let cached = cni::Runtime::cached_in(&caches).map_err(failed)?;
        valid.extend(cached.into_iter().map(|entry| (entry.container_id, entry.if_name)));
        operation.enter("having the plugins collect").ok();
        let waiting = operation.waits_for("");
        let deadline = cni::Deadline::after(LIMIT).telling(waiting.text());
        let valid: Vec<_> = valid.into_iter().collect();
        cni.gc(&network, &valid, &deadline).map_err(failed)
    })
    .await
}
