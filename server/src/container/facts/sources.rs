//! Where the mounts of a container come from on the host.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::mountinfo::{self, MountInfo};
use crate::container::config::{Mount, Propagation};
use crate::error::{Error, Result};

/// The source of each mount, without symbolic links; made as a directory where it is missing, as the field's
/// runtimes do. A mount of an image has none on the host: its place stays empty.
pub(super) fn all(mounts: &[Mount]) -> Result<Vec<PathBuf>> {
    let needs_table = mounts.iter().any(|mount| mount.propagation != Propagation::Private);
    let mut sources = Vec::with_capacity(mounts.len());
    for (i, mount) in mounts.iter().enumerate() {
        if mount.image.is_some() {
            sources.push(PathBuf::new());
            continue;
        }
        let path = Path::new(&mount.host_path);
        sources.push(resolve(path).map_err(|err| {
            Error::invalid(format!("mounts[{i}].host_path"), format!("{}: {err}", path.display()))
        })?);
    }
    if needs_table {
        // Read after the sources exist: resolving may trigger an automount.
        let table = mountinfo::read()?;
        for (i, (mount, source)) in mounts.iter().zip(&sources).enumerate() {
            check(&table, mount.propagation, source)
                .map_err(|reason| Error::invalid(format!("mounts[{i}].propagation"), reason))?;
        }
    }
    Ok(sources)
}

fn resolve(path: &Path) -> std::io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(err) if err.kind() == ErrorKind::NotFound => {
            std::fs::create_dir_all(path)?;
            std::fs::canonicalize(path)
        }
        resolved => resolved,
    }
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

    #[test]
    fn links_are_resolved_and_missing_directories_made() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("real")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        std::os::unix::fs::symlink("gone", base.join("dangling")).unwrap();
        let source = |name: &str| all(&[mount(&base.join(name), Propagation::Private)]);
        assert_eq!(source("link").unwrap(), [base.join("real")]);
        assert_eq!(source("new/deep").unwrap(), [base.join("new/deep")]);
        assert!(base.join("new/deep").is_dir());
        let err = source("dangling").unwrap_err().to_string();
        assert!(err.starts_with("mounts[0].host_path: "), "{err}");
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
