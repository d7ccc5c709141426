//! The CRI metrics: what the kubelet passes on as `/metrics/cadvisor`, under cAdvisor's names and labels.
//!
//! A table says for each metric what it is called, which labels it has beside those that all have, and how it is
//! read. What the kernel does not tell has no series.

mod device;
mod reading;
mod table;

use std::sync::Arc;

use api::cri::v1 as cri;
use tonic::Status;

use super::stats::{disk, with_running};
use crate::container::Container;
use crate::sandbox::stats as sandbox_stats;
use crate::sandbox::{Pods, Sandbox};
use crate::telemetry::blocking;
use device::{Device, Disk};
use reading::{OfContainer, OfPod};
use table::{CONTAINER, Metric, POD};

/// The labels of every metric: which pod and container it is of.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
/// Pods are read in so many parts at once: each costs some dozens of small files.
const PARTS: usize = 4;

/// All that there can be. The same as long as the process lives.
pub(super) fn descriptors() -> Vec<cri::MetricDescriptor> {
    let pod = POD.iter().map(Metric::descriptor);
    let container = CONTAINER.iter().map(Metric::descriptor);
    let mut all: Vec<cri::MetricDescriptor> = pod.chain(container).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    // A pod has some that its containers have too.
    all.dedup_by(|a, b| a.name == b.name);
    all
}

/// The series of all pods that are ready and containers that run.
pub(super) async fn list(pods: &Arc<Pods>) -> Result<Vec<cri::PodSandboxMetrics>, Status> {
    let mut ready = pods.sandboxes();
    ready.retain(|sandbox| sandbox.is_ready());
    let each = with_running(pods, ready).await;
    let path = disk(pods);
    let whole = blocking(move || Ok(Arc::new(Disk::read(&path)))).await?;
    let part = each.len().div_ceil(PARTS).max(1);
    let parts = each.chunks(part).map(|part| {
        let (pods, part, whole) = (pods.clone(), part.to_vec(), whole.clone());
        blocking(move || {
            Ok(part.iter().map(|(pod, own)| of_pod(&pods, pod, own, &whole)).collect::<Vec<_>>())
        })
    });
    let read = futures_util::future::try_join_all(parts).await?;
    Ok(read.into_iter().flatten().collect())
}

fn of_pod(
    pods: &Pods,
    sandbox: &Sandbox,
    containers: &[Arc<Container>],
    disk: &Arc<Disk>,
) -> cri::PodSandboxMetrics {
    let metadata = &sandbox.fixed.config.metadata;
    let cgroup = sandbox_stats::cgroup(pods, sandbox).unwrap_or_default();
    let labels = |container: &str, id: &str, image: &str, name: &str| {
        [container, id, image, name, &metadata.namespace, &metadata.name].map(str::to_owned)
    };
    let pod = OfPod {
        sample: sandbox_stats::sample(pods, sandbox),
        details: sandbox_stats::details(pods, sandbox).unwrap_or_default(),
        interfaces: sandbox_stats::interfaces(sandbox),
        created_at: sandbox.fixed.created_at,
    };
    let own = labels("", &cgroup, "", "");
    let container_metrics = containers.iter().filter_map(|container| {
        let fixed = &container.fixed;
        let of = OfContainer::read(container, disk)?;
        let id = crate::host::cgroup::shown(&crate::host::cgroup::relative(&fixed.cgroups_path));
        let image = fixed.image.tag.as_ref().unwrap_or(&fixed.image.reference);
        let labels = labels(&fixed.config.metadata.name, &id, image, fixed.id.as_str());
        let metrics = CONTAINER.iter().flat_map(|metric| metric.series(&of, &labels)).collect();
        Some(cri::ContainerMetrics { container_id: fixed.id.to_string(), metrics })
    });
    cri::PodSandboxMetrics {
        pod_sandbox_id: sandbox.id().to_string(),
        container_metrics: container_metrics.collect(),
        metrics: POD.iter().flat_map(|metric| metric.series(&pod, &own)).collect(),
    }
}
