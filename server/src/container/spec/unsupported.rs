//! What the CRI can ask for and this version does not do: refused here, in one list, and never ignored.
//!
//! Honouring one of these means removing its line.

use super::super::config::{ContainerConfig, SecurityProfile, SelinuxOption, UsernsOptions};
use super::Node;
use crate::error::{Error, Result};

struct Refusal<T: ?Sized> {
    asks: fn(&T, &Node) -> bool,
    what: &'static str,
}

const CONTAINER: [Refusal<ContainerConfig>; 3] = [
    Refusal {
        asks: |config, _| config.security.userns.is_some(),
        what: "linux.security_context.namespace_options.userns_options: user namespaces",
    },
    Refusal {
        asks: |config, node| node.selinux && asks_selinux(config.security.selinux.as_ref()),
        what: "linux.security_context.selinux_options: SELinux labels",
    },
    Refusal {
        asks: |config, _| {
            config.mounts.iter().any(|m| !m.uid_mappings.is_empty() || !m.gid_mappings.is_empty())
        },
        what: "mounts: mounts with mapped ids",
    },
];

/// # Errors
/// `Unsupported` for the first thing that the container asks for and we cannot do.
pub(crate) fn container(config: &ContainerConfig, node: &Node) -> Result<()> {
    // A node without AppArmor can never honour a profile, with whatever version of ours.
    let confined = match &config.security.apparmor {
        None | Some(SecurityProfile::Unconfined) => false,
        Some(SecurityProfile::RuntimeDefault) => !config.security.privileged,
        Some(SecurityProfile::Localhost(_)) => true,
    };
    if confined && !node.apparmor {
        return Err(Error::Unsupported(
            "linux.security_context.apparmor: this node has no AppArmor".into(),
        ));
    }
    match CONTAINER.iter().find(|refusal| (refusal.asks)(config, node)) {
        Some(refusal) => Err(not_yet(refusal.what)),
        None => Ok(()),
    }
}

/// The same for a sandbox.
///
/// # Errors
/// `Unsupported`, as for a container.
pub(crate) fn sandbox(
    userns: Option<&UsernsOptions>,
    selinux: Option<&SelinuxOption>,
    node: &Node,
) -> Result<()> {
    if userns.is_some() {
        return Err(not_yet(
            "linux.security_context.namespace_options.userns_options: user namespaces",
        ));
    }
    if node.selinux && asks_selinux(selinux) {
        return Err(not_yet("linux.security_context.selinux_options: SELinux labels"));
    }
    Ok(())
}

/// Where the node has no SELinux, its options have nothing to act on: pods that carry them run as everywhere.
fn asks_selinux(options: Option<&SelinuxOption>) -> bool {
    options.is_some_and(|o| {
        [&o.user, &o.role, &o.r#type, &o.level].into_iter().any(|part| !part.is_empty())
    })
}

fn not_yet(what: &str) -> Error {
    Error::Unsupported(format!("{what} are not supported by this version"))
}
