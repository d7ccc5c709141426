//! containerd's Containers: what was asked for of sandboxes and containers, with the labels by which agents know whose
//! they are.
//!
//! Labels are CRI's alone. containerd adds those of the image, which anybody may have written and which agents would
//! take for the kubelet's.

use std::collections::BTreeMap;

use api::containerd::containers::containers_server::Containers;
use api::containerd::{self as wire, containers as message};
use prost_types::Any;
use serde_json::{Value, json};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::super::info;
use super::filter::{Filters, of_map};
use super::{Containerd, KIND, Namespace, not_found, timestamp};
use crate::config::CgroupDriver;
use crate::container::Container;
use crate::container::node::Node;
use crate::host::Handler;
use crate::sandbox::{Pods, Sandbox};
use crate::telemetry::blocking;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Containers for Containerd {
    async fn get(
        &self,
        request: Request<message::GetContainerRequest>,
    ) -> Answer<message::GetContainerResponse> {
        let namespace = Namespace::of(&request)?;
        let (pods, id) = (self.pods.clone(), request.into_inner().id);
        let found = match namespace {
            Namespace::Ours => blocking(move || Ok(find(&pods, &id).ok_or(id))).await?,
            Namespace::Other => Err(id),
        };
        let container = found.map_err(|id| not_found("container", &id))?;
        Ok(Response::new(message::GetContainerResponse { container: Some(container) }))
    }

    async fn list(
        &self,
        request: Request<message::ListContainersRequest>,
    ) -> Answer<message::ListContainersResponse> {
        Ok(Response::new(message::ListContainersResponse {
            containers: self.listed(request).await?,
        }))
    }

    type ListStreamStream = BoxStream<message::ListContainerMessage>;

    async fn list_stream(
        &self,
        request: Request<message::ListContainersRequest>,
    ) -> Answer<Self::ListStreamStream> {
        let listed = self.listed(request).await?.into_iter();
        let one = |one| Ok(message::ListContainerMessage { container: Some(one) });
        Ok(Response::new(Box::pin(tokio_stream::iter(listed.map(one)))))
    }
}

impl Containerd {
    async fn listed(
        &self,
        request: Request<message::ListContainersRequest>,
    ) -> Result<Vec<message::Container>, Status> {
        let namespace = Namespace::of(&request)?;
        let filters =
            Filters::parse(&request.get_ref().filters).map_err(Status::invalid_argument)?;
        if namespace == Namespace::Other {
            return Ok(Vec::new());
        }
        let pods = self.pods.clone();
        let read = move || Ok(all(&pods, &filters));
        Ok(blocking(read).await?)
    }
}

/// The sandbox or container with exactly that id. Blocks.
fn find(pods: &Pods, id: &str) -> Option<message::Container> {
    if let Ok(container) = pods.container(id) {
        return (container.id().as_str() == id)
            .then(|| of_container(&pods.node, &container))
            .flatten();
    }
    let sandbox = pods.sandbox(id).ok().filter(|sandbox| sandbox.id().as_str() == id)?;
    Some(of_sandbox(&pods.node, &sandbox))
}

/// Those that the filters admit. Blocks.
fn all(pods: &Pods, filters: &Filters) -> Vec<message::Container> {
    let sandboxes = pods.sandboxes();
    let sandboxes = sandboxes.iter().map(|one| of_sandbox(&pods.node, one));
    let containers = pods.containers();
    let containers = containers.iter().filter_map(|one| of_container(&pods.node, one));
    sandboxes.chain(containers).filter(|one| filters.admit(|path| field(one, path))).collect()
}

fn field(container: &message::Container, path: &[&str]) -> Option<String> {
    match path {
        ["id"] => Some(container.id.clone()),
        ["image"] => Some(container.image.clone()),
        ["runtime", "name"] => container.runtime.as_ref().map(|runtime| runtime.name.clone()),
        ["labels", key @ ..] => of_map(&container.labels, key),
        _ => None,
    }
}

/// `None` for one whose bundle is gone: it is being removed. Clients count on a spec.
fn of_container(node: &Node, container: &Container) -> Option<message::Container> {
    let fixed = &container.fixed;
    let spec = std::fs::read(fixed.bundle.join("config.json")).ok()?;
    Some(message::Container {
        image: image(container),
        snapshotter: snapshotter(node).to_owned(),
        snapshot_key: fixed.id.to_string(),
        sandbox: fixed.sandbox_id.to_string(),
        ..described(
            node,
            fixed.id.as_str(),
            labels(&fixed.config.labels, "container"),
            (&fixed.handler, spec, fixed.created_at),
        )
    })
}

fn of_sandbox(node: &Node, sandbox: &Sandbox) -> message::Container {
    let fixed = &sandbox.fixed;
    let spec = sandbox_spec(node, sandbox).to_string().into_bytes();
    described(
        node,
        fixed.id.as_str(),
        labels(&fixed.config.labels, "sandbox"),
        (&fixed.handler, spec, fixed.created_at),
    )
}

fn described(
    node: &Node,
    id: &str,
    labels: BTreeMap<String, String>,
    (handler, spec, created_at): (&Handler, Vec<u8>, i64),
) -> message::Container {
    message::Container {
        id: id.to_owned(),
        labels,
        runtime: Some(message::container::Runtime {
            name: runtime(handler),
            options: Some(options(node, handler)),
        }),
        spec: Some(Any { type_url: wire::SPEC.to_owned(), value: spec }),
        created_at: Some(timestamp(created_at)),
        updated_at: Some(timestamp(created_at)),
        ..Default::default()
    }
}

fn labels(config: &BTreeMap<String, String>, kind: &str) -> BTreeMap<String, String> {
    let mut labels = config.clone();
    labels.insert(KIND.to_owned(), kind.to_owned());
    labels
}

/// What people call a container's image.
pub(super) fn image(container: &Container) -> String {
    let image = &container.fixed.image;
    image.tag.as_ref().unwrap_or(&image.reference).clone()
}

/// The name of a runtime as its shim of containerd's has it: agents take those of VMs and of gVisor apart from those
/// whose processes are in the container's cgroup.
pub(super) fn runtime(handler: &Handler) -> String {
    let binary = handler.binary.file_name().unwrap_or_default().to_string_lossy();
    match &*binary {
        name if name.starts_with("runsc") => "io.containerd.runsc.v1".to_owned(),
        name if name.starts_with("kata") => "io.containerd.kata.v2".to_owned(),
        _ => "io.containerd.runc.v2".to_owned(),
    }
}

pub(super) fn options(node: &Node, handler: &Handler) -> Any {
    api::pack(&api::runc::Options {
        binary_name: handler.binary.to_string_lossy().into_owned(),
        root: node.runtime_root(&handler.name).to_string_lossy().into_owned(),
        systemd_cgroup: node.host.cgroup_driver == CgroupDriver::Systemd,
        ..Default::default()
    })
}

fn snapshotter(node: &Node) -> &'static str {
    match node.hands.snapshotter.kind() {
        snapshotter::Kind::Overlay | snapshotter::Kind::Auto => "overlayfs",
        snapshotter::Kind::Native => "native",
    }
}

/// A pod made of namespaces has no process and no bundle, and a spec all the same: agents read `process` and
/// `annotations` without asking whether they are there.
fn sandbox_spec(node: &Node, sandbox: &Sandbox) -> Value {
    let config = &sandbox.fixed.config;
    let metadata = &config.metadata;
    let namespaces: Vec<Value> = sandbox.ready().iter().flat_map(info::namespaces).collect();
    let cgroups_path = node.cgroups_path(&config.cgroup_parent, sandbox.id().as_str());
    json!({
        "ociVersion": oci_spec::runtime::VERSION,
        "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/"},
        "hostname": config.hostname,
        "annotations": {
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": sandbox.id(),
            "io.kubernetes.cri.sandbox-name": metadata.name,
            "io.kubernetes.cri.sandbox-namespace": metadata.namespace,
            "io.kubernetes.cri.sandbox-uid": metadata.uid,
            "io.kubernetes.cri.sandbox-log-directory": config.log_directory,
        },
        "linux": {"cgroupsPath": cgroups_path.unwrap_or_default(), "namespaces": namespaces},
    })
}
