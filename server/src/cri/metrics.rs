//! The CRI metrics: what the kubelet passes on as `/metrics/cadvisor`, under cAdvisor's names and labels.
//!
//! A table says for each metric what it is called, which labels it has beside those that all have, and how it is
//! read. What the kernel does not tell has no series.

mod device;
mod reading;
mod table;

use std::sync::Arc;
use std::time::Instant;

use api::cri::v1 as cri;
use tonic::Status;

use super::stats::{disk, is_running};
use crate::container::{Container, stats as container_stats};
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
    let began = Instant::now();
    let mut containers = pods.containers();
    containers.retain(|one| is_running(one));
    container_stats::count(&pods.node, &containers).await;
    let mut each: Vec<(Arc<Sandbox>, Vec<Arc<Container>>)> = pods
        .sandboxes()
        .into_iter()
        .filter(|sandbox| sandbox.ready().is_some())
        .map(|sandbox| (sandbox, Vec::new()))
        .collect();
    // Both are in the order of their keys, and a container's sandbox is found by search.
    for container in containers {
        let wanted = &container.fixed.sandbox_id;
        if let Ok(at) = each.binary_search_by(|(sandbox, _)| sandbox.id().cmp(wanted)) {
            each[at].1.push(container);
        }
    }
    let whole = Arc::new(Disk::read(&disk(pods)));
    let part = each.len().div_ceil(PARTS).max(1);
    let parts = each.chunks(part).map(|part| {
        let (pods, part, whole) = (pods.clone(), part.to_vec(), whole.clone());
        blocking(move || {
            Ok(part.iter().map(|(pod, own)| of_pod(&pods, pod, own, &whole)).collect::<Vec<_>>())
        })
    });
    let read = futures_util::future::try_join_all(parts).await?;
    tracing::trace!(ms = began.elapsed().as_secs_f64() * 1e3, "metrics read");
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
