//! Pods with users of their own: their root is somebody else on the host, who may nothing there.
//!
//! The shim makes the user namespace and, inside it, all others of the pod. Files of images stay as they are on the
//! disk and are mounted with mapped owners; the few files of ours that a container sees are given to its root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use super::config::{PodOrHost, PodPid, SandboxConfig};
use crate::container::config::UsernsOptions;
use crate::container::create::open_to;
use crate::container::shim::Namespaces;
use crate::error::{Error, Result};
use crate::host::Handler;

const FIELD: &str = "linux.security_context.namespace_options";

/// Whether a pod can have what it asks for with this handler.
///
/// # Errors
/// `Unsupported` where the runtime or the kernel has no user namespaces, `Invalid` for namespaces of the host in which
/// the pod's root could do nothing.
pub(super) fn check(config: &SandboxConfig, handler: &Handler) -> Result<()> {
    if config.security.userns.is_none() {
        return Ok(());
    }
    if !handler.features.user_namespaces {
        return Err(Error::Unsupported(format!(
            "{FIELD}.userns_options: the runtime handler {:?} has no user namespaces on this node",
            handler.name
        )));
    }
    for (field, host) in [
        ("ipc", config.namespaces.ipc == PodOrHost::Host),
        ("pid", config.namespaces.pid == PodPid::Host),
    ] {
        if host {
            let reason = "NODE, which a pod with a user namespace of its own cannot have";
            return Err(Error::invalid(format!("{FIELD}.{field}"), reason));
        }
    }
    Ok(())
}

/// Gives the user namespace a name in the pod's directory. runc takes whatever begins with `/proc/<pid>` for that
/// process's own namespace, and would read the map of the shim's. Blocks.
pub(super) fn named(dir: &Path, mut namespaces: Namespaces) -> Result<Namespaces> {
    if let Some(held) = namespaces.user.take() {
        let path = dir.join("user");
        std::os::unix::fs::symlink(held, &path).map_err(Error::io("make the link", &path))?;
        namespaces.user = Some(path);
    }
    Ok(namespaces)
}

/// Keeps others out of a pod's new directory, and lets its users' root pass. Blocks.
pub(super) fn admit(dir: &Path, users: Option<&UsernsOptions>) -> Result<()> {
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .map_err(Error::io("restrict", path))
    };
    mode(dir, 0o700)?;
    let Some(users) = users else { return Ok(()) };
    open_to(dir, users)?;
    open_to(&dir.join("ctr"), users)?;
    mode(&dir.join("shim"), 0o700)?;
    // Names below are ids that nobody can guess, and everything there has its own mode.
    for above in dir.ancestors().skip(1).take(2) {
        mode(above, 0o711)?;
    }
    Ok(())
}

/// Gives files to the users' root, so that it may change them as root may elsewhere. Blocks.
pub(super) fn give(files: &[&Path], users: Option<&UsernsOptions>) -> Result<()> {
    let Some((uid, gid)) = users.map(UsernsOptions::root) else { return Ok(()) };
    for file in files {
        chown(file, Some(uid), Some(gid)).map_err(Error::io("give to the pod's users", file))?;
    }
    Ok(())
}
