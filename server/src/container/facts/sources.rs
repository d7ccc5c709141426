//! Where the mounts of a container come from on the host.

use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;

use super::mountinfo::{self, MountInfo};
use crate::container::config::{Mount, Propagation};
use crate::error::{Error, Result};
use crate::host::storage::{Refusal, Storage};
use crate::operation::Operation;
use crate::telemetry::Tasks;

/// The source of each mount, without symbolic links; made as a directory where it is missing, as the field's
/// runtimes do. A mount of an image has none on the host: its place stays empty.
///
/// # Errors
/// `Invalid` names the mount, its path, and what is wrong with it; `DeadlineExceeded`, for how long its storage has
/// not answered.
pub(crate) async fn sources(
    storage: &Storage,
    tasks: &Tasks,
    mounts: &[Mount],
    operation: &Operation,
) -> Result<Vec<PathBuf>> {
    let sources = mounts.iter().enumerate().map(|(i, mount)| async move {
        if mount.image.is_some() {
            return Ok(PathBuf::new());
        }
        let path = Path::new(&mount.host_path);
        let _waiting = operation.waits_for(path.to_string_lossy());
        storage.directory(tasks, path).await.map_err(|refusal| {
            let (field, text) =
                (format!("mounts[{i}].host_path"), format!("{}: {refusal}", path.display()));
            match refusal {
                Refusal::Refused(_) => Error::invalid(field, text),
                Refusal::Silent(_) => Error::DeadlineExceeded(format!("{field}: {text}")),
            }
        })
    });
    let sources = try_join_all(sources).await?;
    if mounts.iter().any(|mount| mount.propagation != Propagation::Private) {
        // Read after the sources exist: resolving may trigger an automount.
        let table = mountinfo::read()?;
        for (i, (mount, source)) in mounts.iter().zip(&sources).enumerate() {
            check(&table, mount.propagation, source)
                .map_err(|reason| Error::invalid(format!("mounts[{i}].propagation"), reason))?;
        }
    }
    Ok(sources)
}

/// Events must have a way to go where the request wants them to.
fn check(table: &[MountInfo], propagation: Propagation, source: &Path) -> Result<(), String> {
    let (wanted, holds): (&str, fn(&MountInfo) -> bool) = match propagation {
        Propagation::Private => return Ok(()),
        Propagation::HostToContainer => ("shared or slave", |mount| mount.shared || mount.slave),
        Propagation::Bidirectional => ("shared", |mount| mount.shared),
    };
    match mountinfo::of(table, source) {
        Some(mount) if holds(mount) => Ok(()),
        Some(mount) => Err(format!(
            "{} is on the mount {}, which is not {wanted}",
            source.display(),
            mount.point.display()
        )),
        None => Err(format!("{} is on no mount", source.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(host_path: &Path, propagation: Propagation) -> Mount {
        Mount {
            container_path: "/data".into(),
            host_path: host_path.to_str().unwrap().into(),
            readonly: false,
            recursive_read_only: false,
            selinux_relabel: false,
            propagation,
            image: None,
            image_sub_path: String::new(),
            uid_mappings: vec![],
            gid_mappings: vec![],
            mount_options: vec![],
        }
    }

    #[tokio::test]
    async fn an_error_names_the_mount() {
        let dir = tempfile::tempdir().unwrap();
        let dangling = dir.path().join("dangling");
        std::os::unix::fs::symlink("gone", &dangling).unwrap();
        let mounts =
            [mount(dir.path(), Propagation::Private), mount(&dangling, Propagation::Private)];
        let operation = crate::operation::Operations::default().begin("create c");
        let found = sources(&Storage::default(), &Tasks::default(), &mounts, &operation).await;
        let err = found.unwrap_err().to_string();
        let expected = format!("mounts[1].host_path: {}: ", dangling.display());
        assert!(err.starts_with(&expected), "{err}");
    }

    #[test]
    fn propagation_has_preconditions() {
        let at = |point: &str, shared, slave| MountInfo {
            point: point.into(),
            shared,
            slave,
            fs_type: "tmpfs".into(),
            options: String::new(),
        };
        let table = [at("/", false, false), at("/s", true, false), at("/l", false, true)];
        for (path, slave, shared) in
            [("/x", false, false), ("/s/x", true, true), ("/l", true, false)]
        {
            let path = Path::new(path);
            assert_eq!(check(&table, Propagation::HostToContainer, path).is_ok(), slave);
            assert_eq!(check(&table, Propagation::Bidirectional, path).is_ok(), shared);
            assert!(check(&table, Propagation::Private, path).is_ok());
        }
    }
}
