//! CreateContainer, the sandbox's part: whether it may, and what place the container gets.

use std::sync::Arc;

use super::config::{PodOrHost, PodPid};
use super::state::Ready;
use super::{Pods, Sandbox, files};
use crate::container::config::{ContainerConfig, PidMode};
use crate::container::fact::Became;
use crate::container::place::Place;
use crate::container::state::State;
use crate::container::{self, Container};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::operation::Operation;

/// Creates a container in the sandbox, or finds the one that the same request made before.
///
/// # Errors
/// `WrongState` unless the sandbox is ready; `AlreadyExists` if the name is another container's.
pub(crate) async fn create(
    pods: &Pods,
    sandbox: &Sandbox,
    config: ContainerConfig,
    operation: &Operation,
) -> Result<ContainerId> {
    if let Some(existing) = named(pods, sandbox, &config) {
        let same = existing.fixed.config == config;
        return match existing.state() {
            State::Created | State::Running(_) if same && !existing.is_removing() => {
                Ok(existing.id().clone())
            }
            State::Created | State::Running(_) | State::Exited(_) => Err(Error::AlreadyExists {
                what: "container",
                name: format!("{} attempt {}", config.metadata.name, config.metadata.attempt),
                id: existing.id().to_string(),
            }),
        };
    }
    let place = place(pods, sandbox, &open(sandbox)?);
    let target_pid = target(pods, sandbox, &config)?;
    let request = container::create::Request {
        sandbox_id: sandbox.id().clone(),
        config,
        place,
        handler: sandbox.fixed.handler.clone(),
        target_pid,
    };
    let container = Arc::new(container::create::create(&pods.node, request, operation).await?);
    // A stop that began meanwhile has looked for containers already, or waits for us to end.
    if !sandbox.is_open() {
        pods.node.undo_create(container.intent()).await;
        return Err(closed(sandbox));
    }
    pods.insert_container(container.clone());
    pods.node.happened.of_container(sandbox.id(), container.id(), Became::Created);
    Ok(container.id().clone())
}

fn closed(sandbox: &Sandbox) -> Error {
    Error::WrongState(format!("sandbox {} is not ready", sandbox.id()))
}

/// What holds of a sandbox in which containers may be created and started.
pub(super) fn open(sandbox: &Sandbox) -> Result<Ready> {
    sandbox.ready().filter(|_| sandbox.is_open()).ok_or_else(|| closed(sandbox))
}

fn named(pods: &Pods, sandbox: &Sandbox, config: &ContainerConfig) -> Option<Arc<Container>> {
    let mut containers = pods.containers_of(sandbox.id()).into_iter();
    containers.find(|container| container.fixed.config.metadata == config.metadata)
}

fn place(pods: &Pods, sandbox: &Sandbox, ready: &Ready) -> Place {
    let (id, config) = (sandbox.id(), &sandbox.fixed.config);
    Place {
        sandbox_id: id.to_string(),
        sandbox_name: config.metadata.name.clone(),
        sandbox_namespace: config.metadata.namespace.clone(),
        sandbox_uid: config.metadata.uid.clone(),
        sandbox_annotations: config.annotations.clone(),
        sandbox_resources: sandbox.now().resources,
        log_directory: config.log_directory.clone(),
        cgroup_parent: pods.node.cgroup_parent(&config.cgroup_parent).to_owned(),
        privileged: config.privileged,
        hostname: files::hostname(config, id, &pods.node.host.hostname),
        host_network: config.namespaces.network == PodOrHost::Host,
        host_ipc: config.namespaces.ipc == PodOrHost::Host,
        host_pid: config.namespaces.pid == PodPid::Host,
        netns: ready.netns.clone(),
        ipc: ready.ipc.clone(),
        uts: ready.uts.clone(),
        pid: ready.pid.clone(),
        selinux: sandbox.fixed.selinux.clone(),
        user: ready.user.clone(),
        users: config.security.userns.clone(),
        dir: pods.node.pod_dir(id),
    }
}

/// The init of the container whose pid namespace is to be joined: one of the same sandbox, running.
fn target(pods: &Pods, sandbox: &Sandbox, config: &ContainerConfig) -> Result<Option<u32>> {
    const FIELD: &str = "linux.security_context.namespace_options.target_id";
    let PidMode::Target(id) = &config.security.pid else { return Ok(None) };
    let container = pods.container(id).map_err(|err| Error::invalid(FIELD, err.to_string()))?;
    if container.fixed.sandbox_id != *sandbox.id() {
        return Err(Error::invalid(FIELD, "is a container of another sandbox"));
    }
    match container.state() {
        State::Running(running) => Ok(Some(running.pid)),
        state @ (State::Created | State::Exited(_)) => Err(Error::invalid(
            FIELD,
            format!("is a container that is {}, not running", state.name()),
        )),
    }
}
