//! What the CRI can ask for and a node cannot give: refused here, and never ignored.

use super::super::config::{ContainerConfig, SecurityProfile};
use super::Node;
use crate::error::{Error, Result};

/// # Errors
/// `Unsupported` for what the container asks for and this node has not.
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
    Ok(())
}
