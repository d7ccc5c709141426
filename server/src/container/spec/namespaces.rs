//! The namespaces of a container: its own, its pod's, or the host's (by not naming one).

use std::path::PathBuf;

use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType,
};

use super::super::config::{IdMapping, PidMode};
use super::Input;
use crate::error::{Error, Result};

const PID_FIELD: &str = "linux.security_context.namespace_options.pid";

pub(super) fn all(input: &Input<'_>) -> Result<Vec<LinuxNamespace>> {
    let Input { config, place, node, .. } = *input;
    let mut all = vec![namespace(LinuxNamespaceType::Mount, None)];
    for (kind, path) in [
        (LinuxNamespaceType::Network, &place.netns),
        (LinuxNamespaceType::Ipc, &place.ipc),
        (LinuxNamespaceType::Uts, &place.uts),
        (LinuxNamespaceType::User, &place.user),
    ] {
        if let Some(path) = path {
            all.push(namespace(kind, Some(path.clone())));
        }
    }
    if let Some(path) = pid(input)? {
        all.push(namespace(LinuxNamespaceType::Pid, path));
    }
    // With cgroup v1 and for privileged containers the field's runtimes leave the host's.
    if node.cgroup_v2 && !config.security.privileged {
        all.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    Ok(all)
}

/// `None`: the host's; `Some(None)`: a new one.
fn pid(input: &Input<'_>) -> Result<Option<Option<PathBuf>>> {
    let place = input.place;
    match &input.config.security.pid {
        PidMode::Container => Ok(Some(None)),
        PidMode::Host => Ok(None),
        PidMode::Pod if place.host_pid => Ok(None),
        PidMode::Pod => match &place.pid {
            Some(path) => Ok(Some(Some(path.clone()))),
            None => Err(Error::invalid(
                PID_FIELD,
                "POD, but the sandbox has no pid namespace of its own",
            )),
        },
        PidMode::Target(id) => match &input.facts.target_pid {
            Some(path) => Ok(Some(Some(path.clone()))),
            None => {
                Err(Error::Internal(format!("the pid namespace of target {id} was not looked up")))
            }
        },
    }
}

/// The ids of the pod's user namespace, where it has one.
pub(super) fn ids(of: &[IdMapping]) -> Vec<LinuxIdMapping> {
    let mapping = |one: &IdMapping| {
        let mapping = LinuxIdMappingBuilder::default()
            .container_id(one.container_id)
            .host_id(one.host_id)
            .size(one.length);
        // All that can be missing is there.
        mapping.build().unwrap_or_default()
    };
    of.iter().map(mapping).collect()
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}
