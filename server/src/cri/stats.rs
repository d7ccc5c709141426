//! The calls about usage.

use std::sync::Arc;

use api::cri::v1 as cri;
use tonic::{Response, Status};

use super::from_proto::StatsFilter;
use super::to_proto::stats as to_proto;
use crate::container::Container;
use crate::container::stats::{self, Written};
use crate::sandbox::stats::{interfaces, sample as pod_sample};
use crate::sandbox::{Pods, Sandbox};
use crate::telemetry::blocking;

type Answer<T> = Result<Response<T>, Status>;

/// ContainerStats: of one that does not run there is only what it has written.
pub(super) async fn container(
    pods: &Arc<Pods>,
    request: cri::ContainerStatsRequest,
) -> Answer<cri::ContainerStatsResponse> {
    let container = pods.container(&request.container_id)?;
    let found = measure(pods, vec![container]).await?;
    Ok(Response::new(cri::ContainerStatsResponse { stats: found.into_iter().next() }))
}

/// ListContainerStats: those that run, and one that ends meanwhile is none of them.
pub(super) async fn containers(
    pods: &Arc<Pods>,
    filter: Option<cri::ContainerStatsFilter>,
) -> Result<Vec<cri::ContainerStats>, Status> {
    let filter = StatsFilter::of_containers(filter);
    let mut wanted = pods.containers_with(&filter.labels);
    wanted.retain(|one| {
        one.is_running() && filter.admits(one.fixed.id.as_str(), one.fixed.sandbox_id.as_str())
    });
    let mut found = measure(pods, wanted).await?;
    found.retain(|stats| stats.cpu.is_some());
    Ok(found)
}

/// PodSandboxStats.
pub(super) async fn sandbox(
    pods: &Arc<Pods>,
    request: cri::PodSandboxStatsRequest,
) -> Answer<cri::PodSandboxStatsResponse> {
    let sandbox = pods.sandbox(&request.pod_sandbox_id)?;
    let found = measure_pods(pods, vec![sandbox]).await?;
    Ok(Response::new(cri::PodSandboxStatsResponse { stats: found.into_iter().next() }))
}

/// ListPodSandboxStats: of those that are ready.
pub(super) async fn sandboxes(
    pods: &Arc<Pods>,
    filter: Option<cri::PodSandboxStatsFilter>,
) -> Result<Vec<cri::PodSandboxStats>, Status> {
    let filter = StatsFilter::of_sandboxes(filter);
    let mut wanted = pods.sandboxes_with(&filter.labels);
    wanted.retain(|one| one.is_ready() && filter.admits(one.id().as_str(), one.id().as_str()));
    measure_pods(pods, wanted).await
}

/// Where layers that are written to lie, by the path by which the kubelet finds the disk.
pub(super) fn disk(pods: &Pods) -> String {
    pods.node.config.root.to_string_lossy().into_owned()
}

async fn measure(
    pods: &Arc<Pods>,
    containers: Vec<Arc<Container>>,
) -> Result<Vec<cri::ContainerStats>, Status> {
    stats::count(&pods.node, &containers).await;
    let disk = disk(pods);
    let read = move || Ok(containers.iter().map(|one| of_container(one, &disk)).collect());
    Ok(blocking(read).await?)
}

fn of_container(container: &Container, disk: &str) -> cri::ContainerStats {
    let written: Option<Written> = stats::written(container);
    to_proto::container(container, stats::sample(container).as_ref(), written, disk)
}

/// A sandbox, and its containers that run.
pub(super) type Running = (Arc<Sandbox>, Vec<Arc<Container>>);

/// Each of these sandboxes, which are in the order of their ids, with what runs in it; what that has written is
/// counted where it is due.
pub(super) async fn with_running(pods: &Pods, sandboxes: Vec<Arc<Sandbox>>) -> Vec<Running> {
    let mut each: Vec<Running> = sandboxes.into_iter().map(|one| (one, Vec::new())).collect();
    let mut all = Vec::new();
    for container in pods.containers() {
        let of = &container.fixed.sandbox_id;
        if container.is_running()
            && let Ok(at) = each.binary_search_by(|(sandbox, _)| sandbox.id().cmp(of))
        {
            each[at].1.push(container.clone());
            all.push(container);
        }
    }
    stats::count(&pods.node, &all).await;
    each
}

async fn measure_pods(
    pods: &Arc<Pods>,
    sandboxes: Vec<Arc<Sandbox>>,
) -> Result<Vec<cri::PodSandboxStats>, Status> {
    let each = with_running(pods, sandboxes).await;
    let (disk, pods) = (disk(pods), pods.clone());
    let read = move || {
        let of_pod = |(sandbox, containers): &Running| {
            let containers = containers.iter().map(|one| of_container(one, &disk));
            // Those that ended meanwhile use nothing that could be told.
            let containers = containers.filter(|stats| stats.cpu.is_some()).collect();
            let sample = pod_sample(&pods, sandbox);
            to_proto::sandbox(sandbox, sample.as_ref(), interfaces(sandbox), containers)
        };
        Ok(each.iter().map(of_pod).collect())
    };
    Ok(blocking(read).await?)
}
