//! Where a container's cgroup is.

use std::path::{Path, PathBuf};

use crate::config::CgroupDriver;
use crate::error::{Error, Result};

/// The name before the id in a scope's name, and the parent of pods for which none was named.
const NAME: &str = "podwright";
const FIELD: &str = "linux.cgroup_parent";

/// The OCI `cgroupsPath` of `leaf` below `parent`: `<slice>:podwright:<leaf>` with systemd, else
/// `<parent>/<leaf>`, absolute, so that a runtime does not place it below its own.
///
/// # Errors
/// `Invalid` when the parent is not one that this driver can have, or leads out of the hierarchy.
pub(crate) fn path(driver: CgroupDriver, parent: &str, leaf: &str) -> Result<PathBuf> {
    check_parent(parent)?;
    match driver {
        CgroupDriver::Cgroupfs => {
            let parent = if parent.is_empty() { NAME } else { parent.trim_start_matches('/') };
            Ok(Path::new("/").join(parent).join(leaf))
        }
        CgroupDriver::Systemd => {
            let slice = parent.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            if slice.is_empty() {
                return Ok(format!("{NAME}.slice:{NAME}:{leaf}").into());
            }
            if !slice.ends_with(".slice") {
                return Err(Error::invalid(
                    FIELD,
                    format!("{parent:?} is no slice, but this node's cgroup driver is systemd"),
                ));
            }
            Ok(format!("{slice}:{NAME}:{leaf}").into())
        }
    }
}

/// Whether `parent` can be a cgroup's name at all.
///
/// # Errors
/// `Invalid` when it leads upwards or holds what separates the parts of a `cgroupsPath`.
pub(crate) fn check_parent(parent: &str) -> Result<()> {
    if parent.split('/').any(|part| part == "..") {
        return Err(Error::invalid(FIELD, "must not contain \"..\""));
    }
    if parent.contains(|c: char| c == ':' || c.is_control()) {
        return Err(Error::invalid(FIELD, "must not contain ':' or control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_both_drivers() {
        use CgroupDriver::{Cgroupfs, Systemd};
        for (driver, parent, path) in [
            (Cgroupfs, "/kubepods/burstable/pod1", "/kubepods/burstable/pod1/ID"),
            (Cgroupfs, "kubepods/pod1/", "/kubepods/pod1/ID"),
            (Cgroupfs, "//a", "/a/ID"),
            (Cgroupfs, "/a.slice", "/a.slice/ID"),
            (Cgroupfs, "", "/podwright/ID"),
            (Cgroupfs, "/", "/ID"),
            (Systemd, "kubepods-pod1.slice", "kubepods-pod1.slice:podwright:ID"),
            (Systemd, "/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice:podwright:ID"),
            (Systemd, "", "podwright.slice:podwright:ID"),
        ] {
            assert_eq!(super::path(driver, parent, "ID").unwrap(), Path::new(path), "{parent}");
        }
    }

    #[test]
    fn a_parent_that_leads_elsewhere_is_refused() {
        for parent in ["/a/../..", "..", "a:b.slice", "a\nb"] {
            for driver in [CgroupDriver::Cgroupfs, CgroupDriver::Systemd] {
                assert!(path(driver, parent, "ID").is_err(), "{parent:?}");
            }
        }
        assert!(path(CgroupDriver::Systemd, "/kubepods/pod1", "ID").is_err());
    }
}
