//! What an object may hold on the host, and the one way in which all of it is given back.
//!
//! A plan is written, in the order of acquisition, before the first of its resources is acquired. `release`
//! walks it backwards, goes on past failures, and may be run any number of times: for the rollback of a failed
//! operation, for Stop and Remove, and for recovery after a crash.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use snapshotter::Snapshotter;

use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::{cgroup, process};
use crate::operation;
use crate::telemetry::apart;

/// One thing on the host that has to be given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Resource {
    /// A directory of ours and all that is in it.
    Directory { path: PathBuf },
    /// A mount below our state directory.
    Mount { path: PathBuf },
    /// A pinned network namespace.
    Netns { path: PathBuf },
    /// An attachment to a pod network: released with the conflist that made it, whatever is configured by now.
    Attachment { conflist: String, attachment: Box<cni::Attachment> },
    /// A pod's shim: `dir` holds its pid file and socket.
    Shim { dir: PathBuf },
    /// The writable layer of a container.
    Snapshot { key: String },
    /// A container of an OCI runtime, and its cgroup. The runtime's calls have the bundle for their working
    /// directory.
    Task {
        runtime: PathBuf,
        root: PathBuf,
        id: String,
        cgroups_path: String,
        #[serde(default)]
        bundle: PathBuf,
    },
    /// A cgroup that no OCI runtime made.
    Cgroup { path: String },
}

/// What releasing takes.
#[derive(Debug, Clone)]
pub(crate) struct Hands {
    pub cni: Arc<cni::Runtime>,
    pub snapshotter: Arc<Snapshotter>,
}

/// How long a shim may take to end once killed, and an OCI runtime to delete.
const PROCESS_LIMIT: Duration = Duration::from_secs(10);

/// Gives back everything in `plan`, last first. Returns what could not be given back, in the plan's order,
/// with the reason of each.
pub(crate) async fn release(plan: &[Resource], hands: &Hands) -> Vec<(Resource, Error)> {
    let mut left = Vec::new();
    for resource in plan.iter().rev() {
        let (one, hands) = (resource.clone(), hands.clone());
        let operation = operation::current();
        let (kind, name) = resource.describe();
        let waiting = operation.as_ref().map(|all| all.waits_for(format!("{kind} {name}")));
        let told = waiting.as_ref().map(|waiting| waiting.text().clone()).unwrap_or_default();
        // Plugins, runtimes and their processes may hang.
        let release = move || failpoint::step(one.release_name(), || one.release(&hands, &told));
        if let Err(err) = apart(release).await {
            tracing::warn!(?resource, %err, "not released");
            left.insert(0, (resource.clone(), err));
        }
    }
    left
}

impl Resource {
    /// The failpoint of its release.
    fn release_name(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "release/directory",
            Self::Mount { .. } => "release/mount",
            Self::Netns { .. } => "release/netns",
            Self::Attachment { .. } => "release/attachment",
            Self::Shim { .. } => "release/shim",
            Self::Snapshot { .. } => "release/snapshot",
            Self::Task { .. } => "release/task",
            Self::Cgroup { .. } => "release/cgroup",
        }
    }

    /// What it is, and which one.
    pub(crate) fn describe(&self) -> (&'static str, String) {
        match self {
            Self::Directory { path } => ("directory", path.display().to_string()),
            Self::Mount { path } => ("mount", path.display().to_string()),
            Self::Netns { path } => ("network namespace", path.display().to_string()),
            Self::Attachment { attachment, .. } => {
                let cni::Attachment { container_id, ifname, .. } = attachment.as_ref();
                ("network attachment", format!("{container_id} {ifname}"))
            }
            Self::Shim { dir } => ("shim", dir.display().to_string()),
            Self::Snapshot { key } => ("snapshot", key.clone()),
            Self::Task { root, id, .. } => ("runtime state", root.join(id).display().to_string()),
            Self::Cgroup { path } => ("cgroup", path.clone()),
        }
    }

    /// Blocks. Releasing what is not held is no error. `told` is where it says what it waits for, if it knows better.
    fn release(&self, hands: &Hands, told: &Arc<Mutex<String>>) -> Result<()> {
        match self {
            Self::Directory { path } => remove_dir_all(path),
            Self::Mount { path } => {
                snapshotter::mount::umount(path).map_err(|err| Error::Runtime(err.to_string()))
            }
            Self::Netns { path } => {
                cni::netns::remove(path).map_err(|err| Error::Network(err.to_string()))
            }
            Self::Attachment { conflist, attachment } => {
                detach(&hands.cni, conflist, attachment, told)
            }
            Self::Shim { dir } => end_shim(dir),
            Self::Snapshot { key } => {
                hands.snapshotter.remove(key).map_err(|err| Error::Image(err.to_string()))
            }
            Self::Task { runtime, root, id, cgroups_path, bundle } => {
                if bundle.join(shim::record::RUNTIME_NOTE).exists() {
                    end_calls(bundle)?;
                }
                let deleted = delete_task(runtime, root, id);
                cgroup::end(cgroups_path).map_err(Error::Runtime)?;
                // With its processes gone, what the runtime could not delete is only its own state.
                deleted.or_else(|err| {
                    tracing::warn!(id, %err, "removing the state of the OCI runtime");
                    remove_dir_all(&root.join(id))
                })
            }
            Self::Cgroup { path } => cgroup::end(path).map_err(Error::Runtime),
        }
    }
}

fn remove_dir_all(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(err))
        }
        _ => Ok(()),
    }
}

fn detach(
    cni: &cni::Runtime,
    conflist: &str,
    attachment: &cni::Attachment,
    told: &Arc<Mutex<String>>,
) -> Result<()> {
    let failed = |err: cni::Error| Error::Network(err.to_string());
    let network = cni::Network::parse(conflist.as_bytes()).map_err(failed)?;
    cni.del(&network, attachment, &cni.deadline().telling(told)).map_err(failed)
}

/// The pid file of a shim: its pid and start time.
const SHIM_PID: &str = "shim.pid";

/// Remembers which process a shim is, so that it can be ended without its help.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn remember_shim(dir: &Path, pid: u32, started: u64) -> Result<()> {
    let path = dir.join(SHIM_PID);
    failpoint::step("launch/remember", || {
        std::fs::write(&path, format!("{pid} {started}\n")).map_err(Error::io("write", &path))
    })
}

/// The process that `remember_shim` wrote down.
pub(crate) fn recall_shim(dir: &Path) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(dir.join(SHIM_PID)).ok()?;
    let (pid, started) = text.trim().split_once(' ')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

/// Ends the shim that was written down, or, if the daemon died before it could write, whatever works in `dir`, and what
/// that starts meanwhile: a shim's working directory is its own, and nobody else's.
fn end_shim(dir: &Path) -> Result<()> {
    let ended = match recall_shim(dir) {
        Some((pid, started)) => process::kill(pid, started, PROCESS_LIMIT),
        None => process::end_working_in(dir, PROCESS_LIMIT),
    };
    ended.map_err(Error::Runtime)
}

/// Ends calls of the OCI runtime that a shim was cut off in, or that hang, and what failed ones left running: what they
/// make has nobody to hold it. Blocks.
///
/// # Errors
/// When one does not end.
pub(crate) fn end_calls(bundle: &Path) -> Result<()> {
    process::end_working_in(bundle, PROCESS_LIMIT).map_err(Error::Runtime)
}

/// `<runtime> delete --force` if the runtime still knows the container.
fn delete_task(runtime: &Path, root: &Path, id: &str) -> Result<()> {
    if !root.join(id).exists() {
        return Ok(());
    }
    let output = process::run(
        std::process::Command::new(runtime).arg("--root").arg(root).args(["delete", "--force", id]),
        PROCESS_LIMIT,
    )
    .map_err(|err| Error::Runtime(format!("{} delete {id}: {err}", runtime.display())))?;
    if output.success || !root.join(id).exists() {
        return Ok(());
    }
    Err(Error::Runtime(format!("{} delete {id}: {}", runtime.display(), output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_kept_as_json() {
        let plan = vec![
            Resource::Directory { path: "/run/x".into() },
            Resource::Task {
                runtime: "/usr/bin/crun".into(),
                root: "/run/r".into(),
                id: "abc".into(),
                cgroups_path: "/a/abc".into(),
                bundle: "/run/x".into(),
            },
        ];
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Resource>>(&text).unwrap(), plan);
    }

    #[test]
    fn releasing_what_is_not_held_is_no_error() {
        assert!(remove_dir_all(Path::new("/run/podwright-none")).is_ok());
        assert!(snapshotter::mount::umount(Path::new("/run/podwright-none")).is_ok());
        assert!(end_shim(Path::new("/run/podwright-none")).is_ok());
        assert!(
            delete_task(Path::new("/bin/false"), Path::new("/run/podwright-none"), "x").is_ok()
        );
    }
}
