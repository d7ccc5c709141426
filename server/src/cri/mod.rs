//! The protocol edge: the only module that names `api` and `tonic`. Parses requests into checked values, runs
//! operations, and turns results back into messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::cri::v1::image_service_server::ImageServiceServer;
use api::cri::v1::runtime_service_server::RuntimeServiceServer;
use api::node::v1::node_server::NodeServer;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use crate::sandbox::Pods;
use crate::stream;
use crate::telemetry::Tasks;

mod containerd;
mod containers;
mod events;
mod from_proto;
mod fsck;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod image;
mod in_flight;
mod info;
mod lists;
mod measure;
mod metrics;
mod node;
mod podwright;
mod pull;
mod runtime;
mod sandboxes;
mod signal;
mod stats;
mod status;
mod streams;
mod to_proto;
mod transfer;

/// Largest message in either direction: what the kubelet accepts.
const MAX_MESSAGE: usize = 16 << 20;

/// Whether calls are answered yet, or still.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ready(Arc<AtomicBool>);

impl Ready {
    pub(crate) fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(crate) fn close(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// A partial list looks to the kubelet like dead pods: until recovery has finished nothing is answered.
    #[allow(clippy::result_large_err, reason = "tonic's interceptors are made of this type")]
    fn check<T>(&self, request: Request<T>) -> Result<Request<T>, Status> {
        if self.is_open() {
            Ok(request)
        } else {
            Err(Status::unavailable("podwrightd is starting or ending; try again"))
        }
    }
}

/// CRI, and our own service, on a socket.
#[derive(Debug)]
pub(crate) struct Server {
    pods: Arc<Pods>,
    streams: Arc<stream::Server>,
    ready: Ready,
    tasks: Tasks,
}

impl Server {
    pub(crate) fn new(pods: Arc<Pods>, streams: Arc<stream::Server>) -> Self {
        Self { pods, streams, ready: Ready::default(), tasks: Tasks::default() }
    }

    pub(crate) fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// The operations that calls started.
    pub(crate) fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, listener: UnixListener, stop: CancellationToken) {
        let node = &self.pods.node;
        let flights = in_flight::InFlight::new(self.tasks.clone(), node.operations.clone());
        let events = events::Events::start(self.pods.clone(), stop.clone());
        let containerd = containerd::Containerd::new(self.pods.clone(), events.clone());
        let gate = |ready: Ready| move |request| ready.check(request);
        let runtime = RuntimeServiceServer::new(runtime::Runtime::new(
            self.pods.clone(),
            self.streams.clone(),
            flights.clone(),
            events,
        ))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
        let images = ImageServiceServer::new(image::ImageService::new(node.clone()))
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        // Ours is not gated: what recovery does can be watched.
        let ours = NodeServer::new(podwright::NodeService::new(
            self.pods.clone(),
            flights,
            self.ready.clone(),
        ))
        .max_encoding_message_size(MAX_MESSAGE);
        let routes = Routes::default()
            .add_service(InterceptedService::new(runtime, gate(self.ready.clone())))
            .add_service(InterceptedService::new(images, gate(self.ready.clone())))
            .add_service(ours);
        let served = tonic::transport::Server::builder()
            .layer(measure::Measure)
            .layer(containerd::refusal::Refusal)
            .add_routes(containerd.serve(routes, &gate(self.ready)))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled())
            .await;
        if let Err(err) = served {
            tracing::error!(%err, "CRI is not served any more");
        }
    }
}
