//! The calls about sandboxes.

use std::sync::Arc;
use std::time::Duration;

use api::cri::v1 as cri;
use bytes::Bytes;
use prost::Message;
use tonic::{Request, Response, Status};

use super::from_proto::{self, SandboxFilter};
use super::in_flight::{InFlight, Key, config_hash, patience};
use super::lists::whole;
use super::{info, status, to_proto};
use crate::error::Error;
use crate::operation::What;
use crate::sandbox::{self, Pods, Sandbox};
use crate::telemetry::blocking;

type Answer<T> = Result<Response<T>, Status>;

pub(super) async fn run(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::RunPodSandboxRequest>,
) -> Answer<cri::RunPodSandboxResponse> {
    let patience = patience(&request);
    let cri::RunPodSandboxRequest { config, runtime_handler } = request.into_inner();
    let config = from_proto::sandbox_config(config)?;
    let metadata = &config.metadata;
    let name = format!("{}/{}", metadata.namespace, metadata.name);
    let what = What::new("run sandbox", name);
    let key = Key::Run(metadata.clone());
    let hash = config_hash(&(&config, &runtime_handler));
    let pods = pods.clone();
    let id = flights
        .run(key, what, hash, patience, move |operation| async move {
            let id = sandbox::run::run(&pods, config, runtime_handler, &operation).await?;
            Ok(id.to_string())
        })
        .await
        .map_err(status::shared)?;
    Ok(Response::new(cri::RunPodSandboxResponse { pod_sandbox_id: id }))
}

/// An unknown sandbox is stopped and removed already.
fn known(pods: &Pods, id: &str) -> Result<Option<Arc<Sandbox>>, Status> {
    match pods.sandbox(id) {
        Ok(sandbox) => Ok(Some(sandbox)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

pub(super) async fn stop(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::StopPodSandboxRequest>,
) -> Answer<cri::StopPodSandboxResponse> {
    let patience = patience(&request);
    let Some(sandbox) = known(pods, &request.into_inner().pod_sandbox_id)? else {
        return Ok(Response::new(cri::StopPodSandboxResponse {}));
    };
    end(pods, flights, sandbox, patience, End::Stop).await?;
    Ok(Response::new(cri::StopPodSandboxResponse {}))
}

pub(super) async fn remove(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::RemovePodSandboxRequest>,
) -> Answer<cri::RemovePodSandboxResponse> {
    let patience = patience(&request);
    let Some(sandbox) = known(pods, &request.into_inner().pod_sandbox_id)? else {
        return Ok(Response::new(cri::RemovePodSandboxResponse {}));
    };
    end(pods, flights, sandbox, patience, End::Remove).await?;
    Ok(Response::new(cri::RemovePodSandboxResponse {}))
}

#[derive(Clone, Copy)]
enum End {
    Stop,
    Remove,
}

/// Stop and Remove: first what is being created in the sandbox is cancelled, since it cannot live.
async fn end(
    pods: &Arc<Pods>,
    flights: &InFlight,
    sandbox: Arc<Sandbox>,
    patience: Option<Duration>,
    how: End,
) -> Result<(), Status> {
    let id = sandbox.id().clone();
    let (key, what) = match how {
        End::Stop => (Key::StopSandbox(id.clone()), What::new("stop sandbox", &id)),
        End::Remove => (Key::RemoveSandbox(id.clone()), What::new("remove sandbox", &id)),
    };
    let (pods, others) = (pods.clone(), flights.clone());
    flights
        .run(key, what, 0, patience, move |operation| async move {
            operation.enter("cancelling creates and starts in the sandbox")?;
            sandbox.close();
            let containers = pods.containers_of(&id);
            let of_pod = |key: &Key| match key {
                Key::Create(of, _) => *of == id,
                Key::Start(of) => containers.iter().any(|container| container.id() == of),
                _ => false,
            };
            others.cancel(of_pod).await;
            match how {
                End::Stop => sandbox::stop::stop(&pods, &sandbox, &operation).await?,
                End::Remove => sandbox::remove::remove(&pods, &sandbox, &operation).await?,
            }
            Ok(String::new())
        })
        .await
        .map_err(status::shared)?;
    Ok(())
}

pub(super) async fn show(
    pods: &Arc<Pods>,
    request: cri::PodSandboxStatusRequest,
) -> Answer<cri::PodSandboxStatusResponse> {
    let sandbox = pods.sandbox(&request.pod_sandbox_id)?;
    // Before the states, which may change while they are read: the event of that is then the later one.
    let timestamp = pods.node.happened.stamp();
    let info = if request.verbose {
        let (pods, sandbox) = (pods.clone(), sandbox.clone());
        blocking(move || Ok(info::sandbox(&pods, &sandbox))).await?
    } else {
        Default::default()
    };
    let containers = pods.containers_of(sandbox.id());
    Ok(Response::new(cri::PodSandboxStatusResponse {
        status: Some(to_proto::sandbox_status(&sandbox)),
        info,
        containers_statuses: containers.iter().map(|one| to_proto::container_status(one)).collect(),
        timestamp,
    }))
}

pub(super) async fn update(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::UpdatePodSandboxResourcesRequest>,
) -> Answer<cri::UpdatePodSandboxResourcesResponse> {
    let patience = patience(&request);
    let request = request.into_inner();
    let sandbox = pods.sandbox(&request.pod_sandbox_id)?;
    let parsed = |field, limits: Option<_>| {
        let parsed = limits.map(from_proto::resources).transpose();
        parsed.map_err(from_proto::under(field))
    };
    let overhead = parsed("overhead", request.overhead)?;
    let resources = parsed("resources", request.resources)?;
    let operation = flights.begin(What::new("update sandbox", sandbox.id()));
    let (node, told) = (pods.node.clone(), operation.clone());
    let work =
        async move { sandbox::update::update(&node, &sandbox, overhead, resources, &told).await };
    flights.detach(operation, patience, work).await.map_err(status::shared)?;
    Ok(Response::new(cri::UpdatePodSandboxResourcesResponse {}))
}

pub(super) fn list(
    pods: &Pods,
    request: cri::ListPodSandboxRequest,
) -> Answer<cri::ListPodSandboxResponse> {
    let entries = listed(pods, request.filter)?;
    whole(cri::ListPodSandboxResponse { entries }, "StreamPodSandboxes")
}

/// What ListPodSandbox and StreamPodSandboxes give, each encoded.
pub(super) fn listed(
    pods: &Pods,
    filter: Option<cri::PodSandboxFilter>,
) -> Result<Vec<Bytes>, Status> {
    let filter = SandboxFilter::parse(filter)?;
    let entry = |one: &Arc<Sandbox>| {
        one.entry(
            |state| filter.admits(one.id().as_str(), to_proto::sandbox_state(state)),
            |state| to_proto::sandbox(&one.fixed, state).encode_to_vec().into(),
        )
    };
    Ok(pods.sandboxes_with(&filter.labels).iter().filter_map(entry).collect())
}
