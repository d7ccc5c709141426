//! A CRI client with blocking calls, usable from several threads at once.

use std::future::Future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::{Request, Status};

use crate::channel::Channel;
use crate::cri::image_service_client::ImageServiceClient;
use crate::cri::runtime_service_client::RuntimeServiceClient;
use crate::cri::*;
use crate::node::node_client::NodeClient;
use crate::node::{
    FsckRequest, FsckResponse, ListOperationsRequest, ListOperationsResponse, PullProgress,
};
use crate::poll::LIMIT;

/// What the kubelet receives at most.
const MAX_MESSAGE: usize = 16 << 20;
/// No call of a test may hang: each carries a deadline.
const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Client {
    tokio: Runtime,
    channel: Channel,
    /// What each call says of the trace that it is a part of.
    traceparent: Box<Mutex<Option<String>>>,
}

macro_rules! calls {
    ($($service:ident: $($name:ident($request:ty) -> $response:ty),+;)+) => {
        impl Client {
            $($(
                pub fn $name(&self, request: $request) -> Result<$response, Status> {
                    self.timed(DEADLINE, request, |channel, request| async move {
                        let mut client = $service::new(channel)
                            .max_decoding_message_size(MAX_MESSAGE);
                        client.$name(request).await
                    })
                }
            )+)+
        }
    };
}

calls! {
    RuntimeServiceClient:
        version(VersionRequest) -> VersionResponse,
        status(StatusRequest) -> StatusResponse,
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse,
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse,
        run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse,
        stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse,
        remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse,
        pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse,
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse,
        create_container(CreateContainerRequest) -> CreateContainerResponse,
        start_container(StartContainerRequest) -> StartContainerResponse,
        stop_container(StopContainerRequest) -> StopContainerResponse,
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse,
        container_status(ContainerStatusRequest) -> ContainerStatusResponse,
        update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse,
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse,
        exec_sync(ExecSyncRequest) -> ExecSyncResponse,
        exec(ExecRequest) -> ExecResponse,
        attach(AttachRequest) -> AttachResponse,
        port_forward(PortForwardRequest) -> PortForwardResponse,
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse,
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse,
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse,
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse,
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse,
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse,
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    ImageServiceClient:
        list_images(ListImagesRequest) -> ListImagesResponse,
        image_status(ImageStatusRequest) -> ImageStatusResponse,
        pull_image(PullImageRequest) -> PullImageResponse,
        remove_image(RemoveImageRequest) -> RemoveImageResponse,
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    NodeClient:
        list_operations(ListOperationsRequest) -> ListOperationsResponse,
        fsck(FsckRequest) -> FsckResponse;
}

/// Calls that answer with a stream: all its messages, once the server has ended it.
macro_rules! streams {
    ($($service:ident: $($name:ident($request:ty) -> $response:ty),+;)+) => {
        impl Client {
            $($(
                pub fn $name(&self, request: $request) -> Result<Vec<$response>, Status> {
                    self.gathered(request, |channel, request| async move {
                        let client = $service::new(channel);
                        client.max_decoding_message_size(MAX_MESSAGE).$name(request).await
                    })
                }
            )+)+
        }
    };
}

streams! {
    RuntimeServiceClient:
        stream_container_stats(StreamContainerStatsRequest) -> StreamContainerStatsResponse,
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> StreamPodSandboxStatsResponse,
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> StreamPodSandboxMetricsResponse;
    ImageServiceClient:
        stream_images(StreamImagesRequest) -> StreamImagesResponse;
}

/// The answers whose entries the API leaves encoded, with what is in them.
#[derive(Debug, PartialEq)]
pub struct Sandboxes {
    pub items: Vec<PodSandbox>,
}

#[derive(Debug, PartialEq)]
pub struct Containers {
    pub containers: Vec<Container>,
}

fn undecodable(error: &prost::DecodeError) -> Status {
    Status::internal(format!("an entry of the list: {error}"))
}

/// Their calls, in one message and in pieces: each piece's entries.
macro_rules! lists {
    ($($whole:ident($one:ty), $pieces:ident($many:ty) -> $list:ident { $entries:ident };)+) => {
        impl Client {
            $(
                pub fn $whole(&self, request: $one) -> Result<$list, Status> {
                    let list = self.timed(DEADLINE, request, |channel, request| async move {
                        let client = RuntimeServiceClient::new(channel);
                        client.max_decoding_message_size(MAX_MESSAGE).$whole(request).await
                    })?;
                    let $entries = list.decoded().map_err(|error| undecodable(&error))?;
                    Ok($list { $entries })
                }

                pub fn $pieces(&self, request: $many) -> Result<Vec<$list>, Status> {
                    let pieces = self.gathered(request, |channel, request| async move {
                        let client = RuntimeServiceClient::new(channel);
                        client.max_decoding_message_size(MAX_MESSAGE).$pieces(request).await
                    })?;
                    let decoded = pieces.into_iter().map(|piece| {
                        let $entries = piece.decoded().map_err(|error| undecodable(&error))?;
                        Ok($list { $entries })
                    });
                    decoded.collect()
                }
            )+
        }
    };
}

lists! {
    list_pod_sandbox(ListPodSandboxRequest), stream_pod_sandboxes(StreamPodSandboxesRequest)
        -> Sandboxes { items };
    list_containers(ListContainersRequest), stream_containers(StreamContainersRequest)
        -> Containers { containers };
}

impl Client {
    /// A client of the daemon at `socket`, which need not listen yet.
    pub fn new(socket: &Path) -> Self {
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        Self { tokio, channel: Channel::new(socket), traceparent: Box::default() }
    }

    /// The calls from now on belong to that trace.
    pub fn trace(&self, traceparent: Option<&str>) {
        let said = traceparent.map(str::to_owned);
        *self.traceparent.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// All messages that a call is answered with, once the server has ended them.
    fn gathered<Q, A, F>(
        &self,
        request: Q,
        call: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<Vec<A>, Status>
    where
        F: Future<Output = Result<tonic::Response<tonic::Streaming<A>>, Status>>,
    {
        self.timed(DEADLINE, request, |channel, request| async move {
            let mut stream = call(channel, request).await?.into_inner();
            let mut messages = Vec::new();
            while let Some(message) = stream.message().await? {
                messages.push(message);
            }
            Ok(tonic::Response::new(messages))
        })
    }

    /// A call with a deadline of its own, sent to the server as the kubelet sends it.
    pub fn timed<Q, A, F>(
        &self,
        deadline: Duration,
        request: Q,
        call: impl FnOnce(Channel, Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
    {
        let mut request = Request::new(request);
        request.set_timeout(deadline);
        let traceparent = self.traceparent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(traceparent) = traceparent {
            let said = traceparent.parse().expect("a header");
            request.metadata_mut().insert("traceparent", said);
        }
        let channel = self.channel.clone();
        self.tokio.block_on(async {
            let call = call(channel, request);
            // The server answers before its deadline; this one is for a server that does not.
            tokio::time::timeout(deadline + LIMIT, call)
                .await
                .unwrap_or_else(|_| Err(Status::deadline_exceeded("the server never answered")))
                .map(tonic::Response::into_inner)
        })
    }

    /// A call whose client goes away after a while, without a deadline that the server knew of.
    pub fn abandoned<Q, A, F>(
        &self,
        after: Duration,
        request: Q,
        call: impl FnOnce(Channel, Request<Q>) -> F,
    ) where
        F: Future<Output = Result<tonic::Response<A>, Status>>,
        A: std::fmt::Debug,
    {
        let call = call(self.channel.clone(), Request::new(request));
        let answer = self.tokio.block_on(async { tokio::time::timeout(after, call).await });
        assert!(answer.is_err(), "it was answered before its client left: {answer:?}");
    }

    /// Subscribes to what happens from now on.
    pub fn events(&self) -> Events<'_> {
        let mut client = RuntimeServiceClient::new(self.channel.clone());
        let subscribed = self.tokio.block_on(client.get_container_events(GetEventsRequest {}));
        Events { client: self, stream: subscribed.expect("a stream of events").into_inner() }
    }

    /// RunPodSandbox with a client that gives up after `deadline`.
    pub fn run_pod_sandbox_within(
        &self,
        deadline: Duration,
        request: RunPodSandboxRequest,
    ) -> Result<RunPodSandboxResponse, Status> {
        self.timed(deadline, request, |channel, request| async move {
            RuntimeServiceClient::new(channel).run_pod_sandbox(request).await
        })
    }

    /// PullImage with a client that gives up after `deadline`.
    pub fn pull_image_within(
        &self,
        deadline: Duration,
        request: PullImageRequest,
    ) -> Result<PullImageResponse, Status> {
        self.timed(deadline, request, |channel, request| async move {
            ImageServiceClient::new(channel).pull_image(request).await
        })
    }
}

/// One who looks on at a pull.
#[derive(Debug)]
pub struct Viewer<'c> {
    client: &'c Client,
    stream: tonic::Streaming<PullProgress>,
}

impl Client {
    /// Our own PullImage, whose messages wait to be read.
    pub fn view_pull(&self, image: &str) -> Result<Viewer<'_>, Status> {
        let request = crate::node::PullRequest { image: image.into() };
        let stream = self.timed(DEADLINE, request, |channel, request| async move {
            NodeClient::new(channel).pull(request).await
        })?;
        Ok(Viewer { client: self, stream })
    }
}

impl Viewer<'_> {
    /// The next message; `None` at the end.
    pub fn look(&mut self) -> Result<Option<PullProgress>, Status> {
        self.client.tokio.block_on(async {
            let late = |_| Status::deadline_exceeded("the stream says nothing");
            tokio::time::timeout(DEADLINE, self.stream.message()).await.map_err(late)?
        })
    }
}

/// A subscription to events.
#[derive(Debug)]
pub struct Events<'c> {
    client: &'c Client,
    stream: tonic::Streaming<ContainerEventResponse>,
}

impl Events<'_> {
    /// The next one that comes within that time; `None` if none does.
    ///
    /// # Errors
    /// The server's word at the end of the stream, `Aborted` if it had none.
    pub fn next(&mut self, limit: Duration) -> Result<Option<ContainerEventResponse>, Status> {
        let next = self.stream.message();
        match self.client.tokio.block_on(async { tokio::time::timeout(limit, next).await }) {
            Err(_) => Ok(None),
            Ok(Ok(None)) => Err(Status::aborted("the stream is over")),
            Ok(event) => event,
        }
    }
}
