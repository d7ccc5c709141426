//! Our own service beside CRI: what the command `podwright` asks for and CRI has no call for.
//!
//! Unlike CRI it is answered from the first moment: what recovery does can be watched.

use std::sync::Arc;
use std::time::Duration;

use api::node::v1 as wire;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::in_flight::{InFlight, patience};
use super::{Ready, fsck, pull, status, transfer};
use crate::image::Explained;
use crate::operation::{Progress, Transfer};
use crate::sandbox::Pods;

/// The service.
#[derive(Debug)]
pub(super) struct NodeService {
    pods: Arc<Pods>,
    flights: InFlight,
    ready: Ready,
}

impl NodeService {
    pub(super) fn new(pods: Arc<Pods>, flights: InFlight, ready: Ready) -> Self {
        Self { pods, flights, ready }
    }
}

#[tonic::async_trait]
impl wire::node_server::Node for NodeService {
    async fn list_operations(
        &self,
        _: Request<wire::ListOperationsRequest>,
    ) -> Result<Response<wire::ListOperationsResponse>, Status> {
        let operations = self.pods.node.operations.list().into_iter().map(message).collect();
        Ok(Response::new(wire::ListOperationsResponse { operations, ready: self.ready.is_open() }))
    }

    async fn import_images(
        &self,
        request: Request<Streaming<wire::ImportImagesRequest>>,
    ) -> Result<Response<wire::ImportImagesResponse>, Status> {
        self.ready.check(Request::new(()))?;
        let images = transfer::import(&self.pods.node.images, request.into_inner()).await?;
        Ok(Response::new(wire::ImportImagesResponse { images }))
    }

    async fn export_image(
        &self,
        request: Request<wire::ExportImageRequest>,
    ) -> Result<Response<BoxStream<wire::ExportImageResponse>>, Status> {
        self.ready.check(Request::new(()))?;
        let export = transfer::export(&self.pods.node.images, &request.into_inner().image)?;
        Ok(Response::new(Box::pin(export)))
    }

    async fn pull(
        &self,
        request: Request<wire::PullRequest>,
    ) -> Result<Response<BoxStream<wire::PullProgress>>, Status> {
        let name = self.ready.check(request)?.into_inner().image;
        let view = pull::view(self.pods.node.images.clone(), name, self.ready.clone())?;
        Ok(Response::new(Box::pin(view)))
    }

    async fn explain_registry(
        &self,
        request: Request<wire::ExplainRegistryRequest>,
    ) -> Result<Response<wire::ExplainRegistryResponse>, Status> {
        let explained = self.pods.node.images.explain(&request.into_inner().image).await;
        let (reference, endpoints) = explained.map_err(|err| super::image::status(&err))?;
        let endpoints = endpoints.into_iter().map(endpoint).collect();
        Ok(Response::new(wire::ExplainRegistryResponse { reference, endpoints }))
    }

    async fn fsck(
        &self,
        request: Request<wire::FsckRequest>,
    ) -> Result<Response<wire::FsckResponse>, Status> {
        // Recovery sweeps by itself, and until it has ended not every owner has said what it holds.
        let request = self.ready.check(request)?;
        let patience = patience(&request);
        let wire::FsckRequest { fix, verify_layers } = request.into_inner();
        let operation = self.flights.begin(if fix { "fsck --fix" } else { "fsck" });
        let (pods, told) = (self.pods.clone(), operation.clone());
        let work = async move { fsck::fsck(&pods, fix, verify_layers, &told).await };
        let found = self.flights.detach(operation, patience, work).await;
        Ok(Response::new(found.map_err(status::shared)?))
    }
}

fn endpoint(explained: Explained) -> wire::RegistryEndpoint {
    let (digest, failure) = match explained.outcome {
        Ok(digest) => (digest.unwrap_or_default(), String::new()),
        Err(failure) => (String::new(), failure),
    };
    wire::RegistryEndpoint {
        url: explained.url,
        from: explained.from,
        is_server: explained.is_server,
        resolve: explained.resolve,
        pull: explained.pull,
        tls: explained.tls,
        headers: explained.headers,
        proxy: explained.proxy.unwrap_or_default(),
        credentials: explained.credentials,
        digest,
        failure,
        took_ms: milliseconds(explained.took),
    }
}

fn message(progress: Progress) -> wire::Operation {
    let moves = progress.transfer != Transfer::default();
    wire::Operation {
        what: progress.what,
        stage: progress.stage.to_owned(),
        in_stage_ms: milliseconds(progress.in_stage),
        age_ms: milliseconds(progress.age),
        waiting_callers: progress.callers,
        waits_for: progress.waits_for,
        transfer: moves.then_some(pull::transfer(progress.transfer)),
        cancelled: progress.cancelled,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
