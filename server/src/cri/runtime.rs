//! RuntimeService: each call, and where it goes on. What is not here answers `Unimplemented`.

use std::sync::Arc;

use api::cri::v1 as cri;
use api::cri::v1::runtime_service_server::RuntimeService;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::events::Events;
use super::in_flight::InFlight;
use super::lists::{pieces, whole};
use super::{containers, metrics, node, sandboxes, stats, streams};
use crate::sandbox::Pods;
use crate::stream;

#[derive(Debug)]
pub(super) struct Runtime {
    pods: Arc<Pods>,
    streams: Arc<stream::Server>,
    flights: InFlight,
    events: Events,
}

impl Runtime {
    pub(super) fn new(
        pods: Arc<Pods>,
        streams: Arc<stream::Server>,
        flights: InFlight,
        events: Events,
    ) -> Self {
        Self { pods, streams, flights, events }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, _: Request<cri::VersionRequest>) -> Answer<cri::VersionResponse> {
        Ok(Response::new(node::version()))
    }

    async fn status(&self, request: Request<cri::StatusRequest>) -> Answer<cri::StatusResponse> {
        Ok(Response::new(node::status(&self.pods, request.into_inner().verbose)))
    }

    async fn runtime_config(
        &self,
        _: Request<cri::RuntimeConfigRequest>,
    ) -> Answer<cri::RuntimeConfigResponse> {
        Ok(Response::new(node::runtime_config(&self.pods)))
    }

    async fn update_runtime_config(
        &self,
        request: Request<cri::UpdateRuntimeConfigRequest>,
    ) -> Answer<cri::UpdateRuntimeConfigResponse> {
        node::update_runtime_config(&request.into_inner());
        Ok(Response::new(cri::UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<cri::RunPodSandboxRequest>,
    ) -> Answer<cri::RunPodSandboxResponse> {
        sandboxes::run(&self.pods, &self.flights, request).await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<cri::StopPodSandboxRequest>,
    ) -> Answer<cri::StopPodSandboxResponse> {
        sandboxes::stop(&self.pods, &self.flights, request).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<cri::RemovePodSandboxRequest>,
    ) -> Answer<cri::RemovePodSandboxResponse> {
        sandboxes::remove(&self.pods, &self.flights, request).await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<cri::PodSandboxStatusRequest>,
    ) -> Answer<cri::PodSandboxStatusResponse> {
        sandboxes::show(&self.pods, request.into_inner()).await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<cri::ListPodSandboxRequest>,
    ) -> Answer<cri::ListPodSandboxResponse> {
        sandboxes::list(&self.pods, request.into_inner())
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<cri::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
        sandboxes::update(&self.pods, &self.flights, request).await
    }

    async fn create_container(
        &self,
        request: Request<cri::CreateContainerRequest>,
    ) -> Answer<cri::CreateContainerResponse> {
        containers::create(&self.pods, &self.flights, request).await
    }

    async fn start_container(
        &self,
        request: Request<cri::StartContainerRequest>,
    ) -> Answer<cri::StartContainerResponse> {
        containers::start(&self.pods, &self.flights, request).await
    }

    async fn stop_container(
        &self,
        request: Request<cri::StopContainerRequest>,
    ) -> Answer<cri::StopContainerResponse> {
        containers::stop(&self.pods, &self.flights, request).await
    }

    async fn remove_container(
        &self,
        request: Request<cri::RemoveContainerRequest>,
    ) -> Answer<cri::RemoveContainerResponse> {
        containers::remove(&self.pods, &self.flights, request).await
    }

    async fn container_status(
        &self,
        request: Request<cri::ContainerStatusRequest>,
    ) -> Answer<cri::ContainerStatusResponse> {
        containers::show(&self.pods, request.into_inner()).await
    }

    async fn list_containers(
        &self,
        request: Request<cri::ListContainersRequest>,
    ) -> Answer<cri::ListContainersResponse> {
        containers::list(&self.pods, request.into_inner())
    }

    async fn exec_sync(
        &self,
        request: Request<cri::ExecSyncRequest>,
    ) -> Answer<cri::ExecSyncResponse> {
        containers::exec_sync(&self.pods, &self.flights, request).await
    }

    async fn exec(&self, request: Request<cri::ExecRequest>) -> Answer<cri::ExecResponse> {
        streams::exec(&self.pods, &self.streams, request.into_inner())
    }

    async fn attach(&self, request: Request<cri::AttachRequest>) -> Answer<cri::AttachResponse> {
        streams::attach(&self.pods, &self.streams, &request.into_inner())
    }

    async fn port_forward(
        &self,
        request: Request<cri::PortForwardRequest>,
    ) -> Answer<cri::PortForwardResponse> {
        streams::port_forward(&self.pods, &self.streams, &request.into_inner())
    }

    async fn update_container_resources(
        &self,
        request: Request<cri::UpdateContainerResourcesRequest>,
    ) -> Answer<cri::UpdateContainerResourcesResponse> {
        containers::update(&self.pods, &self.flights, request).await
    }

    async fn reopen_container_log(
        &self,
        request: Request<cri::ReopenContainerLogRequest>,
    ) -> Answer<cri::ReopenContainerLogResponse> {
        containers::reopen_log(&self.pods, &self.flights, request).await
    }
    async fn stream_pod_sandboxes(
        &self,
        request: Request<cri::StreamPodSandboxesRequest>,
    ) -> Answer<BoxStream<cri::StreamPodSandboxesResponse>> {
        let items = sandboxes::listed(&self.pods, request.into_inner().filter)?;
        Ok(pieces(items, |entries| cri::StreamPodSandboxesResponse { entries }))
    }

    async fn stream_containers(
        &self,
        request: Request<cri::StreamContainersRequest>,
    ) -> Answer<BoxStream<cri::StreamContainersResponse>> {
        let items = containers::listed(&self.pods, request.into_inner().filter)?;
        Ok(pieces(items, |entries| cri::StreamContainersResponse { entries }))
    }

    async fn get_container_events(
        &self,
        _: Request<cri::GetEventsRequest>,
    ) -> Answer<BoxStream<cri::ContainerEventResponse>> {
        Ok(Response::new(self.events.subscribe()))
    }

    async fn container_stats(
        &self,
        request: Request<cri::ContainerStatsRequest>,
    ) -> Answer<cri::ContainerStatsResponse> {
        stats::container(&self.pods, request.into_inner()).await
    }

    async fn list_container_stats(
        &self,
        request: Request<cri::ListContainerStatsRequest>,
    ) -> Answer<cri::ListContainerStatsResponse> {
        let stats = stats::containers(&self.pods, request.into_inner().filter).await?;
        whole(cri::ListContainerStatsResponse { stats }, "StreamContainerStats")
    }

    async fn stream_container_stats(
        &self,
        request: Request<cri::StreamContainerStatsRequest>,
    ) -> Answer<BoxStream<cri::StreamContainerStatsResponse>> {
        let items = stats::containers(&self.pods, request.into_inner().filter).await?;
        Ok(pieces(items, |container_stats| cri::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<cri::PodSandboxStatsRequest>,
    ) -> Answer<cri::PodSandboxStatsResponse> {
        stats::sandbox(&self.pods, request.into_inner()).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<cri::ListPodSandboxStatsRequest>,
    ) -> Answer<cri::ListPodSandboxStatsResponse> {
        let stats = stats::sandboxes(&self.pods, request.into_inner().filter).await?;
        whole(cri::ListPodSandboxStatsResponse { stats }, "StreamPodSandboxStats")
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<cri::StreamPodSandboxStatsRequest>,
    ) -> Answer<BoxStream<cri::StreamPodSandboxStatsResponse>> {
        let items = stats::sandboxes(&self.pods, request.into_inner().filter).await?;
        let message = |pod_sandbox_stats| cri::StreamPodSandboxStatsResponse { pod_sandbox_stats };
        Ok(pieces(items, message))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<cri::ListMetricDescriptorsRequest>,
    ) -> Answer<cri::ListMetricDescriptorsResponse> {
        let descriptors = metrics::descriptors();
        Ok(Response::new(cri::ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<cri::ListPodSandboxMetricsRequest>,
    ) -> Answer<cri::ListPodSandboxMetricsResponse> {
        let pod_metrics = metrics::list(&self.pods).await?;
        whole(cri::ListPodSandboxMetricsResponse { pod_metrics }, "StreamPodSandboxMetrics")
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<cri::StreamPodSandboxMetricsRequest>,
    ) -> Answer<BoxStream<cri::StreamPodSandboxMetricsResponse>> {
        let items = metrics::list(&self.pods).await?;
        let message =
            |pod_sandbox_metrics| cri::StreamPodSandboxMetricsResponse { pod_sandbox_metrics };
        Ok(pieces(items, message))
    }
}
