//! The calls about containers.

use std::sync::Arc;
use std::time::Duration;

use api::cri::v1 as cri;
use bytes::Bytes;
use prost::Message;
use tonic::{Request, Response, Status};

use super::from_proto::{self, ContainerFilter};
use super::in_flight::{InFlight, Key, config_hash, patience};
use super::lists::whole;
use super::{info, status, to_proto};
use crate::container::state::State;
use crate::container::{self, Container};
use crate::error::Error;
use crate::operation::What;
use crate::sandbox::{self, Pods};
use crate::telemetry::blocking;

type Answer<T> = Result<Response<T>, Status>;

pub(super) async fn create(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::CreateContainerRequest>,
) -> Answer<cri::CreateContainerResponse> {
    let patience = patience(&request);
    let cri::CreateContainerRequest { pod_sandbox_id, config, .. } = request.into_inner();
    let sandbox = pods.sandbox(&pod_sandbox_id)?;
    let config = from_proto::container_config(config)?;
    let name = format!("{} in sandbox {}", config.metadata.name, sandbox.id());
    let what = What::new("create container", name);
    let key = Key::Create(sandbox.id().clone(), config.metadata.clone());
    let hash = config_hash(&config);
    let pods = pods.clone();
    let id = flights
        .run(key, what, hash, patience, move |operation| async move {
            let id = sandbox::create::create(&pods, &sandbox, config, &operation).await?;
            Ok(id.to_string())
        })
        .await
        .map_err(status::shared)?;
    Ok(Response::new(cri::CreateContainerResponse { container_id: id }))
}

pub(super) async fn start(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::StartContainerRequest>,
) -> Answer<cri::StartContainerResponse> {
    let patience = patience(&request);
    let container = pods.container(&request.into_inner().container_id)?;
    let what = What::new("start container", container.id());
    let pods = pods.clone();
    flights
        .run(Key::Start(container.id().clone()), what, 0, patience, move |operation| async move {
            sandbox::start::start(&pods, &container, &operation).await?;
            Ok(String::new())
        })
        .await
        .map_err(status::shared)?;
    Ok(Response::new(cri::StartContainerResponse {}))
}

/// An unknown container is stopped and removed already.
fn known(pods: &Pods, id: &str) -> Result<Option<Arc<Container>>, Status> {
    match pods.container(id) {
        Ok(container) => Ok(Some(container)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

pub(super) async fn stop(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::StopContainerRequest>,
) -> Answer<cri::StopContainerResponse> {
    let patience = patience(&request);
    let cri::StopContainerRequest { container_id, timeout } = request.into_inner();
    let Some(container) = known(pods, &container_id)? else {
        return Ok(Response::new(cri::StopContainerResponse {}));
    };
    let grace = Duration::from_secs(u64::try_from(timeout).unwrap_or(0));
    // A stop that is under way already takes the shorter of both.
    container.stopping.within(grace);
    let what = What::new("stop container", container.id());
    let key = Key::StopContainer(container.id().clone());
    let (pods, others) = (pods.clone(), flights.clone());
    flights
        .run(key, what, 0, patience, move |operation| async move {
            operation.enter("cancelling the container's start")?;
            others.cancel(|key| matches!(key, Key::Start(id) if id == container.id())).await;
            let shim = pods.live_shim_of(&container);
            container::stop::stop(&container, shim.as_deref(), grace, &operation).await?;
            Ok(String::new())
        })
        .await
        .map_err(status::shared)?;
    Ok(Response::new(cri::StopContainerResponse {}))
}

pub(super) async fn remove(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::RemoveContainerRequest>,
) -> Answer<cri::RemoveContainerResponse> {
    let patience = patience(&request);
    let Some(container) = known(pods, &request.into_inner().container_id)? else {
        return Ok(Response::new(cri::RemoveContainerResponse {}));
    };
    let what = What::new("remove container", container.id());
    let (pods, others) = (pods.clone(), flights.clone());
    flights
        .run(
            Key::RemoveContainer(container.id().clone()),
            what,
            0,
            patience,
            move |operation| async move {
                operation.enter("cancelling the container's start")?;
                others.cancel(|key| matches!(key, Key::Start(id) if id == container.id())).await;
                let shim = pods.live_shim_of(&container);
                container::remove::remove(&pods.node, &container, shim.as_deref(), &operation)
                    .await?;
                pods.forget_container(container.id());
                Ok(String::new())
            },
        )
        .await
        .map_err(status::shared)?;
    Ok(Response::new(cri::RemoveContainerResponse {}))
}

pub(super) async fn show(
    pods: &Arc<Pods>,
    request: cri::ContainerStatusRequest,
) -> Answer<cri::ContainerStatusResponse> {
    let container = pods.container(&request.container_id)?;
    let info = if request.verbose {
        let (node, container) = (pods.node.clone(), container.clone());
        blocking(move || Ok(info::container(&node, &container))).await?
    } else {
        Default::default()
    };
    let status = Some(to_proto::container_status(&container));
    Ok(Response::new(cri::ContainerStatusResponse { status, info }))
}

pub(super) fn list(
    pods: &Pods,
    request: cri::ListContainersRequest,
) -> Answer<cri::ListContainersResponse> {
    let entries = listed(pods, request.filter)?;
    whole(cri::ListContainersResponse { entries }, "StreamContainers")
}

/// What ListContainers and StreamContainers give, each encoded.
pub(super) fn listed(
    pods: &Pods,
    filter: Option<cri::ContainerFilter>,
) -> Result<Vec<Bytes>, Status> {
    let filter = ContainerFilter::parse(filter)?;
    let entry = |one: &Arc<Container>| {
        let fixed = &one.fixed;
        one.entry(
            |state| {
                filter.admits(
                    fixed.id.as_str(),
                    fixed.sandbox_id.as_str(),
                    to_proto::container_state(state),
                )
            },
            |state| to_proto::container(fixed, state).encode_to_vec().into(),
        )
    };
    Ok(pods.containers_with(&filter.labels).iter().filter_map(entry).collect())
}

pub(super) async fn exec_sync(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::ExecSyncRequest>,
) -> Answer<cri::ExecSyncResponse> {
    let patience = patience(&request);
    let cri::ExecSyncRequest { container_id, cmd, timeout } = request.into_inner();
    let container = pods.container(&container_id)?;
    if cmd.is_empty() {
        return Err(Error::invalid("cmd", "is empty").into());
    }
    let limit = u64::try_from(timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let shim = pods.shim_of(&container)?;
    let operation = flights.begin(What::new("exec in container", container.id()));
    // A command whose caller is gone, or told that its time is up, would run for nobody.
    let _caller = operation.token().drop_guard();
    let (node, told) = (pods.node.clone(), operation.clone());
    let work =
        async move { container::exec::sync(&node, &container, &shim, cmd, limit, &told).await };
    let output = flights.detach(operation, patience, work).await.map_err(status::shared)?;
    Ok(Response::new(cri::ExecSyncResponse {
        stdout: output.stdout,
        stderr: output.stderr,
        exit_code: output.code,
    }))
}

pub(super) async fn update(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::UpdateContainerResourcesRequest>,
) -> Answer<cri::UpdateContainerResourcesResponse> {
    let patience = patience(&request);
    let request = request.into_inner();
    let container = pods.container(&request.container_id)?;
    let Some(linux) = request.linux else {
        return Ok(Response::new(cri::UpdateContainerResourcesResponse {}));
    };
    let wanted = from_proto::resources(linux)?;
    let shim = pods.live_shim_of(&container);
    let operation = flights.begin(What::new("update container", container.id()));
    let (node, told) = (pods.node.clone(), operation.clone());
    let work = async move {
        container::update::update(&node, &container, shim.as_deref(), &wanted, &told).await
    };
    flights.detach(operation, patience, work).await.map_err(status::shared)?;
    Ok(Response::new(cri::UpdateContainerResourcesResponse {}))
}

pub(super) async fn reopen_log(
    pods: &Arc<Pods>,
    flights: &InFlight,
    request: Request<cri::ReopenContainerLogRequest>,
) -> Answer<cri::ReopenContainerLogResponse> {
    let patience = patience(&request);
    let container = pods.container(&request.into_inner().container_id)?;
    let state = container.state();
    if !matches!(state, State::Running(_)) {
        let text = format!("container {} is {}, not running", container.id(), state.name());
        return Err(Error::WrongState(text).into());
    }
    let shim = pods.shim_of(&container)?;
    let operation = flights.begin(What::new("reopen the log of container", container.id()));
    let work = async move { shim.reopen_log(&container).await };
    flights.detach(operation, patience, work).await.map_err(status::shared)?;
    Ok(Response::new(cri::ReopenContainerLogResponse {}))
}
