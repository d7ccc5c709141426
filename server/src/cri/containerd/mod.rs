//! The part of containerd's gRPC interface that only reads, for those who look for a containerd: cAdvisor inside the
//! kubelet, shims that call back, registries' mirrors, `ctr`.
//!
//! Everything that CRI made is there in the namespace `k8s.io`, labelled as containerd's CRI plugin labels it; another
//! namespace is empty. A sandbox is a container of kind `sandbox`. Nothing can be changed here: a call that would, or
//! that belongs to a part of containerd that is not here, is `Unimplemented` and says to use CRI (see `refusal`).

use std::sync::Arc;

use api::containerd as wire;
use prost_types::Timestamp;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::{Request, Status};
use wire::containers::containers_server::ContainersServer;
use wire::content::content_server::ContentServer;
use wire::events::events_server::EventsServer;
use wire::images::images_server::ImagesServer;
use wire::introspection::introspection_server::IntrospectionServer;
use wire::namespaces::namespaces_server::NamespacesServer;
use wire::tasks::tasks_server::TasksServer;
use wire::version::version_server::VersionServer;

use super::MAX_MESSAGE;
use super::events::Events;
use crate::sandbox::Pods;

mod containers;
mod content;
pub(super) mod events;
mod filter;
mod images;
mod node;
pub(super) mod refusal;
mod tasks;

/// The namespace of everything that the kubelet made.
const K8S: &str = "k8s.io";
/// Whether a container is a sandbox.
const KIND: &str = "io.cri-containerd.kind";

/// Answers all of containerd's services.
#[derive(Debug, Clone)]
pub(super) struct Containerd {
    pods: Arc<Pods>,
    events: Events,
}

impl Containerd {
    pub(super) fn new(pods: Arc<Pods>, events: Events) -> Self {
        Self { pods, events }
    }

    /// Adds the services; those that list what recovery has to find first are gated.
    pub(super) fn serve<G>(self, routes: Routes, gate: &G) -> Routes
    where
        G: Interceptor + Clone + Send + Sync + 'static,
    {
        let containers = ContainersServer::new(self.clone()).max_encoding_message_size(MAX_MESSAGE);
        let images = ImagesServer::new(self.clone()).max_encoding_message_size(MAX_MESSAGE);
        routes
            .add_service(InterceptedService::new(containers, gate.clone()))
            .add_service(InterceptedService::new(TasksServer::new(self.clone()), gate.clone()))
            .add_service(InterceptedService::new(images, gate.clone()))
            .add_service(InterceptedService::new(ContentServer::new(self.clone()), gate.clone()))
            .add_service(InterceptedService::new(EventsServer::new(self.clone()), gate.clone()))
            .add_service(NamespacesServer::new(self.clone()))
            .add_service(IntrospectionServer::new(self.clone()))
            .add_service(VersionServer::new(self))
    }
}

/// Where a call looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    Ours,
    /// Nothing is in it.
    Other,
}

impl Namespace {
    #[allow(clippy::result_large_err, reason = "what tonic's handlers give")]
    fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        match request.metadata().get(wire::NAMESPACE).map(|name| name.as_bytes()) {
            None | Some(b"") => {
                let text = format!("namespace is required: set the header {}", wire::NAMESPACE);
                Err(Status::failed_precondition(text))
            }
            Some(name) if name == K8S.as_bytes() => Ok(Self::Ours),
            Some(_) => Ok(Self::Other),
        }
    }
}

/// containerd's time of CRI's.
fn timestamp(nanoseconds: i64) -> Timestamp {
    let second = 1_000_000_000;
    Timestamp {
        seconds: nanoseconds.div_euclid(second),
        nanos: i32::try_from(nanoseconds.rem_euclid(second)).unwrap_or(0),
    }
}

fn not_found(what: &str, name: &str) -> Status {
    Status::not_found(format!("{what} {name:?}: not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_to_be_named_and_another_is_not_ours() {
        let mut request = Request::new(());
        let refused = Namespace::of(&request).unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        for (name, expected) in [(K8S, Namespace::Ours), ("moby", Namespace::Other)] {
            request.metadata_mut().insert(wire::NAMESPACE, name.parse().unwrap());
            assert_eq!(Namespace::of(&request).unwrap(), expected);
        }
    }

    #[test]
    fn times_before_the_epoch_count_their_nanoseconds_upwards() {
        assert_eq!(timestamp(1_500_000_000), Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(timestamp(-1), Timestamp { seconds: -1, nanos: 999_999_999 });
    }
}
