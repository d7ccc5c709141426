//! RuntimeService: each call, and where it goes on. What is not here answers `Unimplemented`.

use std::sync::Arc;

use api::cri::v1 as cri;
use api::cri::v1::runtime_service_server::RuntimeService;
use tonic::{Request, Response, Status};

use super::in_flight::InFlight;
use super::{containers, node, sandboxes, streams};
use crate::sandbox::Pods;
use crate::stream;

#[derive(Debug)]
pub(super) struct Runtime {
    pods: Arc<Pods>,
    streams: Arc<stream::Server>,
    flights: InFlight,
}

impl Runtime {
    pub(super) fn new(pods: Arc<Pods>, streams: Arc<stream::Server>, flights: InFlight) -> Self {
        Self { pods, streams, flights }
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
}
