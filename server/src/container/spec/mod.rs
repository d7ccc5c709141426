//! From what was asked (CRI), what the image says and where the container lives, to the OCI runtime spec.
//!
//! Pure: the same input gives the same spec, nothing here opens a file. What has to be looked up on the host
//! or in the image arrives as [`Facts`], gathered by `container/facts.rs`.
//!
//! Invariants, each held by a property test: the container's cgroup lies below its pod's; no capability but the
//! defaults, those asked for, and never one that we lack; nothing an image config says becomes a host path, an
//! annotation or a label. What a node cannot give is refused in `unsupported.rs`, never ignored.

mod annotations;
mod base;
pub(crate) mod caps;
pub(crate) mod cgroup;
mod devices;
mod edits;
pub(crate) mod identity;
mod mounts;
mod namespaces;
mod node;
mod process;
pub(crate) mod resources;
pub(crate) mod seccomp;
pub(crate) mod unsupported;

#[cfg(any(test, fuzzing))]
mod confined;
#[cfg(any(test, fuzzing))]
pub(crate) mod fixture;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use oci_spec::runtime::{Linux, LinuxBlockIo, LinuxIntelRdt, LinuxSeccomp, Root, Spec};

use super::config::{ContainerConfig, SecurityProfile};
use super::place::Place;
use crate::config::HandlerConfig;
use crate::error::{Error, Result};
use crate::host::features::Features;
use crate::host::selinux::Labels;
use crate::id::ContainerId;

pub(crate) use devices::{DeviceKind, DeviceNode};
pub(crate) use edits::{Edits, EditsDevice};
pub(crate) use identity::{Accounts, Identity};
pub(crate) use mounts::MOUNT_OPTIONS;
pub(crate) use node::Node;

/// The version of the runtime spec that ours follow; the oldest that every runtime we call accepts.
const SPEC_VERSION: &str = "1.1.0";

/// All that a spec is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a> {
    pub id: &'a ContainerId,
    pub config: &'a ContainerConfig,
    pub image: &'a ImageView,
    pub place: &'a Place,
    pub node: &'a Node,
    pub handler: &'a HandlerConfig,
    pub facts: &'a Facts,
}

/// What an image's configuration says of a process. Hostile: none of it may reach the host's side of a spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageView {
    pub env: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub working_dir: String,
    pub user: String,
    pub stop_signal: String,
}

/// What was looked up for one container.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// Where each of the configuration's mounts comes from, in its order, symbolic links resolved.
    pub mount_sources: Vec<PathBuf>,
    /// The devices of the configuration, directories expanded.
    pub devices: Vec<DeviceNode>,
    /// Those of the host, for a privileged container.
    pub host_devices: Vec<DeviceNode>,
    /// The image's users and groups.
    pub accounts: Accounts,
    /// The profile that a Localhost seccomp setting names.
    pub seccomp: Option<LinuxSeccomp>,
    /// The AppArmor profile to run under.
    pub apparmor: Option<String>,
    /// The SELinux labels, where the node has it.
    pub labels: Option<Labels>,
    /// The pid namespace of the container that pid mode TARGET names.
    pub target_pid: Option<PathBuf>,
    /// The classes of service that annotations name, where the node has them.
    pub rdt_class: Option<String>,
    pub block_io: Option<LinuxBlockIo>,
    /// What the CDI devices change.
    pub cdi: Edits,
    /// What the OCI runtime can do.
    pub runtime: Features,
}

/// The OCI spec of a container.
///
/// # Errors
/// `Invalid` names the field that cannot be honoured; `Unsupported` what this node or version cannot do.
pub(crate) fn build(input: &Input<'_>) -> Result<Spec> {
    let Input { config, place, node, facts, .. } = *input;
    unsupported::container(config, node)?;
    if config.security.privileged && !place.privileged {
        return Err(Error::invalid(
            "linux.security_context.privileged",
            "the sandbox was not made for privileged containers",
        ));
    }
    if facts.mount_sources.len() != config.mounts.len() {
        return Err(Error::Internal("mounts and their sources differ in number".into()));
    }
    if config.security.userns != place.users {
        return Err(Error::invalid(
            "linux.security_context.namespace_options.userns_options",
            "differs from the sandbox's",
        ));
    }
    let caps = caps::Sets::of(&config.security, node.capabilities)?;
    let identity = identity::resolve(&config.security, &input.image.user, &facts.accounts)?;
    let (mounts, propagation) = mounts::all(input)?;

    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(config.security.readonly_rootfs));

    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::all(input)?))
        .set_cgroups_path(Some(cgroup::path(
            node.cgroup_driver,
            &place.cgroup_parent,
            input.id.as_str(),
        )?))
        .set_devices(Some(devices::nodes(input, &identity)))
        .set_resources(Some(resources::with_devices(input)?))
        .set_seccomp(seccomp_profile(input, &caps)?)
        .set_mount_label(facts.labels.as_ref().map(|labels| labels.mount.clone()))
        .set_rootfs_propagation(propagation.map(str::to_owned))
        .set_masked_paths(Some(unless_privileged(config, &config.security.masked_paths)))
        .set_readonly_paths(Some(unless_privileged(config, &config.security.readonly_paths)));

    if let Some(users) = &place.users {
        linux
            .set_uid_mappings(Some(namespaces::ids(&users.uids)))
            .set_gid_mappings(Some(namespaces::ids(&users.gids)));
    }

    if let Some(class) = &facts.rdt_class {
        let mut rdt = LinuxIntelRdt::default();
        rdt.set_clos_id(Some(class.clone()));
        linux.set_intel_rdt(Some(rdt));
    }

    let mut spec = Spec::default();
    spec.set_version(SPEC_VERSION.into())
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(process::process(input, &caps, identity)?))
        .set_hostname(None)
        .set_annotations(Some(annotations::all(input)))
        .set_linux(Some(linux));
    if let Some(base) = &input.handler.base_spec {
        spec = base::under(&spec, base)?;
    }
    facts.cdi.apply(&mut spec);
    Ok(spec)
}

fn unless_privileged(config: &ContainerConfig, paths: &[String]) -> Vec<String> {
    if config.security.privileged { Vec::new() } else { paths.to_vec() }
}

/// No profile asked for is none applied, as the CRI has it; a privileged container has none either.
fn seccomp_profile(input: &Input<'_>, caps: &caps::Sets) -> Result<Option<LinuxSeccomp>> {
    if input.config.security.privileged {
        return Ok(None);
    }
    match &input.config.security.seccomp {
        None | Some(SecurityProfile::Unconfined) => Ok(None),
        Some(SecurityProfile::RuntimeDefault) => {
            Ok(Some(seccomp::default_profile(caps.bounding, std::env::consts::ARCH)))
        }
        Some(SecurityProfile::Localhost(path)) => match &input.facts.seccomp {
            Some(profile) => Ok(Some(profile.clone())),
            None => Err(Error::Internal(format!("the seccomp profile {path:?} was not read"))),
        },
    }
}
