//! What the CRI can ask for and this version does not do: refused here, in one list, and never ignored.
//!
//! Honouring one of these means removing its line.

use super::super::config::{ContainerConfig, SecurityProfile, UsernsOptions};
use super::Node;
use crate::error::{Error, Result};

struct Refusal<T: ?Sized> {
    asks: fn(&T) -> bool,
    what: &'static str,
}

const CONTAINER: [Refusal<ContainerConfig>; 2] = [
    Refusal {
        asks: |config| config.security.userns.is_some(),
        what: "linux.security_context.namespace_options.userns_options: user namespaces",
    },
    Refusal {
        asks: |config| {
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
    match CONTAINER.iter().find(|refusal| (refusal.asks)(config)) {
        Some(refusal) => Err(not_yet(refusal.what)),
        None => Ok(()),
    }
}

/// The same for a sandbox.
///
/// # Errors
/// `Unsupported`, as for a container.
pub(crate) fn sandbox(userns: Option<&UsernsOptions>) -> Result<()> {
    if userns.is_some() {
        return Err(not_yet(
            "linux.security_context.namespace_options.userns_options: user namespaces",
        ));
    }
    Ok(())
}

fn not_yet(what: &str) -> Error {
    Error::Unsupported(format!("{what} are not supported by this version"))
}
