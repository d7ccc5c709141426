//! Our objects as CRI's messages. Everything comes from memory.

use api::cri::v1 as cri;

use crate::container::config::{IdMapping, Mount, Propagation, Resources, UsernsOptions};
use crate::container::state::State;
use crate::container::{Changing, Container, Fixed};
use crate::sandbox::config::{PodNamespaces, PodOrHost, PodPid};
use crate::sandbox::{self, Sandbox};

use super::signal;

pub(super) mod stats;

#[cfg(test)]
mod tests;

pub(super) fn sandbox_state(state: &sandbox::state::State) -> cri::PodSandboxState {
    match state {
        sandbox::state::State::Ready(_) => cri::PodSandboxState::SandboxReady,
        sandbox::state::State::Starting | sandbox::state::State::NotReady => {
            cri::PodSandboxState::SandboxNotready
        }
    }
}

fn sandbox_metadata(fixed: &sandbox::Fixed) -> cri::PodSandboxMetadata {
    let metadata = &fixed.config.metadata;
    cri::PodSandboxMetadata {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
    }
}

/// An entry of ListPodSandbox.
pub(super) fn sandbox(fixed: &sandbox::Fixed, state: &sandbox::state::State) -> cri::PodSandbox {
    cri::PodSandbox {
        id: fixed.id.to_string(),
        metadata: Some(sandbox_metadata(fixed)),
        state: sandbox_state(state).into(),
        created_at: fixed.created_at,
        labels: fixed.config.labels.clone(),
        annotations: fixed.config.annotations.clone(),
        runtime_handler: fixed.runtime_handler.clone(),
    }
}

/// PodSandboxStatus. Addresses are empty for a pod in the host's network: the kubelet fills in the node's.
pub(super) fn sandbox_status(sandbox: &Sandbox) -> cri::PodSandboxStatus {
    let now = sandbox.now();
    let mut ips = match &now.state {
        sandbox::state::State::Ready(ready) => ready.ips.clone(),
        sandbox::state::State::Starting | sandbox::state::State::NotReady => Vec::new(),
    }
    .into_iter()
    .map(|ip| ip.to_string());
    let network = cri::PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| cri::PodIp { ip }).collect(),
    };
    let config = &sandbox.fixed.config;
    let options = namespace_options(config.namespaces, config.security.userns.as_ref());
    cri::PodSandboxStatus {
        id: sandbox.id().to_string(),
        metadata: Some(sandbox_metadata(&sandbox.fixed)),
        state: sandbox_state(&now.state).into(),
        created_at: sandbox.fixed.created_at,
        network: Some(network),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(options) }),
        }),
        labels: sandbox.fixed.config.labels.clone(),
        annotations: sandbox.fixed.config.annotations.clone(),
        runtime_handler: sandbox.fixed.runtime_handler.clone(),
    }
}

fn namespace_options(
    namespaces: PodNamespaces,
    users: Option<&UsernsOptions>,
) -> cri::NamespaceOption {
    let mode = |of| match of {
        PodOrHost::Pod => cri::NamespaceMode::Pod,
        PodOrHost::Host => cri::NamespaceMode::Node,
    };
    let pid = match namespaces.pid {
        PodPid::Container => cri::NamespaceMode::Container,
        PodPid::Pod => cri::NamespaceMode::Pod,
        PodPid::Host => cri::NamespaceMode::Node,
    };
    cri::NamespaceOption {
        network: mode(namespaces.network).into(),
        pid: pid.into(),
        ipc: mode(namespaces.ipc).into(),
        target_id: String::new(),
        userns_options: users.map(|users| cri::UserNamespace {
            mode: cri::NamespaceMode::Pod.into(),
            uids: id_mappings(&users.uids),
            gids: id_mappings(&users.gids),
        }),
    }
}

pub(super) fn container_state(state: &State) -> cri::ContainerState {
    match state {
        State::Created => cri::ContainerState::ContainerCreated,
        State::Running(_) => cri::ContainerState::ContainerRunning,
        State::Exited(_) => cri::ContainerState::ContainerExited,
    }
}

fn container_metadata(fixed: &Fixed) -> cri::ContainerMetadata {
    let metadata = &fixed.config.metadata;
    cri::ContainerMetadata { name: metadata.name.clone(), attempt: metadata.attempt }
}

/// The image as the user named it, where the kubelet told us.
fn image_spec(fixed: &Fixed) -> cri::ImageSpec {
    let spec = &fixed.config.image;
    cri::ImageSpec {
        image: spec.image.clone(),
        annotations: spec.annotations.clone(),
        user_specified_image: spec.user_specified_image.clone(),
        runtime_handler: spec.runtime_handler.clone(),
        ..Default::default()
    }
}

/// In a status the image bears its tag, where it has one: that is what users see of it.
fn shown_image(container: &Container) -> cri::ImageSpec {
    let spec = image_spec(&container.fixed);
    let tag = container.fixed.image.tag.clone();
    cri::ImageSpec { image: tag.unwrap_or_else(|| spec.image.clone()), ..spec }
}

/// An entry of ListContainers.
pub(super) fn container(fixed: &Fixed, state: &State) -> cri::Container {
    cri::Container {
        id: fixed.id.to_string(),
        pod_sandbox_id: fixed.sandbox_id.to_string(),
        metadata: Some(container_metadata(fixed)),
        image: Some(image_spec(fixed)),
        image_ref: fixed.image.id.clone(),
        state: container_state(state).into(),
        created_at: fixed.created_at,
        labels: fixed.config.labels.clone(),
        annotations: fixed.config.annotations.clone(),
        image_id: fixed.image.id.clone(),
    }
}

/// ContainerStatus.
pub(super) fn container_status(container: &Container) -> cri::ContainerStatus {
    let fixed = &container.fixed;
    let now = container.now();
    let mut status = cri::ContainerStatus {
        id: fixed.id.to_string(),
        metadata: Some(container_metadata(&container.fixed)),
        state: container_state(&now.state).into(),
        created_at: fixed.created_at,
        image: Some(shown_image(container)),
        image_ref: fixed.image.reference.clone(),
        image_id: fixed.image.id.clone(),
        labels: fixed.config.labels.clone(),
        annotations: fixed.config.annotations.clone(),
        mounts: mounts(container),
        log_path: fixed
            .log_path
            .as_ref()
            .map(|path| path.display().to_string())
            .unwrap_or_default(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources(&now.resources)),
            windows: None,
        }),
        user: Some(user(container)),
        stop_signal: signal::of_number(fixed.stop_signal).into(),
        ..Default::default()
    };
    life(&mut status, &now);
    status
}

/// The fields that say how the container fares.
fn life(status: &mut cri::ContainerStatus, now: &Changing) {
    match &now.state {
        State::Created => {}
        State::Running(running) => status.started_at = running.started_at,
        State::Exited(exited) => {
            status.started_at = exited.started_at;
            status.finished_at = exited.finished_at;
            status.exit_code = exited.exit_code;
            status.reason = exited.reason.as_str().to_owned();
            status.message = exited.message.clone();
        }
    }
}

fn user(container: &Container) -> cri::ContainerUser {
    let user = &container.fixed.user;
    cri::ContainerUser {
        linux: Some(cri::LinuxContainerUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user
                .supplemental_groups
                .iter()
                .map(|gid| i64::from(*gid))
                .collect(),
        }),
    }
}

fn mounts(container: &Container) -> Vec<cri::Mount> {
    let mut mounts: Vec<_> = container.fixed.config.mounts.iter().map(mount).collect();
    for volume in &container.fixed.volumes {
        if let Some(image) = mounts.get_mut(volume.mount).and_then(|mount| mount.image.as_mut()) {
            image.image_ref.clone_from(&volume.image);
        }
    }
    mounts
}

fn mount(mount: &Mount) -> cri::Mount {
    let propagation = match mount.propagation {
        Propagation::Private => cri::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => cri::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => cri::MountPropagation::PropagationBidirectional,
    };
    cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.selinux_relabel,
        propagation: propagation.into(),
        uid_mappings: id_mappings(&mount.uid_mappings),
        gid_mappings: id_mappings(&mount.gid_mappings),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|image| cri::ImageSpec {
            image: image.image.clone(),
            annotations: image.annotations.clone(),
            user_specified_image: image.user_specified_image.clone(),
            runtime_handler: image.runtime_handler.clone(),
            image_ref: String::new(),
        }),
        image_sub_path: mount.image_sub_path.clone(),
        mount_options: mount.mount_options.clone(),
    }
}

fn id_mappings(mappings: &[IdMapping]) -> Vec<cri::IdMapping> {
    mappings
        .iter()
        .map(|m| cri::IdMapping {
            host_id: m.host_id,
            container_id: m.container_id,
            length: m.length,
        })
        .collect()
}

/// Resources as they are in force.
pub(super) fn resources(of: &Resources) -> cri::LinuxContainerResources {
    cri::LinuxContainerResources {
        cpu_period: of.cpu_period,
        cpu_quota: of.cpu_quota,
        cpu_shares: of.cpu_shares,
        memory_limit_in_bytes: of.memory_limit_in_bytes,
        oom_score_adj: of.oom_score_adj,
        cpuset_cpus: of.cpuset_cpus.clone(),
        cpuset_mems: of.cpuset_mems.clone(),
        hugepage_limits: of
            .hugepage_limits
            .iter()
            .map(|limit| cri::HugepageLimit {
                page_size: limit.page_size.clone(),
                limit: limit.limit,
            })
            .collect(),
        unified: of.unified.clone(),
        memory_swap_limit_in_bytes: of.memory_swap_limit_in_bytes,
    }
}
