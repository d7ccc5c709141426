//! Where a container's cgroup is.

use std::path::{Path, PathBuf};

use crate::config::CgroupDriver;
use crate::error::{Error, Result};

/// The name before the id in a scope's name.
const NAME: &str = "podwright";
const FIELD: &str = "linux.cgroup_parent";

/// What a slice's name ends with.
const SLICE: &str = ".slice";

/// Of pods for which nobody named one.
pub(crate) fn default_parent(driver: CgroupDriver) -> &'static str {
    match driver {
        CgroupDriver::Cgroupfs => "/podwright",
        CgroupDriver::Systemd => "podwright.slice",
    }
}

/// The OCI `cgroupsPath` of `leaf` below `parent`: `<slice>:podwright:<leaf>` with systemd, else
/// `<parent>/<leaf>`, absolute, so that a runtime does not place it below its own.
///
/// # Errors
/// `Invalid` when the parent is not one that this driver can have, or leads out of the hierarchy.
pub(crate) fn path(driver: CgroupDriver, parent: &str, leaf: &str) -> Result<PathBuf> {
    check_parent(parent)?;
    let parent = if parent.is_empty() { default_parent(driver) } else { parent };
    let last = parent.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    match driver {
        CgroupDriver::Cgroupfs if last.ends_with(SLICE) => Err(Error::invalid(
            FIELD,
            format!(
                "{parent:?} is a slice of systemd's, but this node's cgroup driver is cgroupfs: set cgroup.driver to \
                 \"systemd\" in podwrightd's configuration, or cgroupDriver to cgroupfs in the kubelet's"
            ),
        )),
        CgroupDriver::Cgroupfs => {
            Ok(Path::new("/").join(parent.trim_start_matches('/')).join(leaf))
        }
        CgroupDriver::Systemd if is_slice(last) => Ok(format!("{last}:{NAME}:{leaf}").into()),
        CgroupDriver::Systemd => Err(Error::invalid(
            FIELD,
            format!(
                "{parent:?} is no slice, but this node's cgroup driver is systemd: set cgroupDriver to systemd in the \
                 kubelet's configuration, or cgroup.driver to \"cgroupfs\" in podwrightd's"
            ),
        )),
    }
}

/// Whether systemd has a slice of that name, whose dashes say what it lies in.
fn is_slice(name: &str) -> bool {
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    name.strip_suffix(SLICE)
        .is_some_and(|stem| stem.chars().all(valid) && stem.split('-').all(|part| !part.is_empty()))
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
            (Cgroupfs, "/a.slice/b", "/a.slice/b/ID"),
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
    }

    #[test]
    fn a_parent_of_the_other_driver_is_refused_with_what_to_set() {
        for (driver, parent, set) in [
            (CgroupDriver::Systemd, "/kubepods/pod1", "set cgroupDriver to systemd"),
            (CgroupDriver::Systemd, "/", "set cgroupDriver to systemd"),
            (CgroupDriver::Systemd, "a--b.slice", "is no slice"),
            (CgroupDriver::Systemd, "-a.slice", "is no slice"),
            (CgroupDriver::Systemd, "-.slice", "is no slice"),
            (CgroupDriver::Cgroupfs, "kubepods-pod1.slice", "set cgroup.driver to \"systemd\""),
            (CgroupDriver::Cgroupfs, "/kubepods.slice/kubepods-pod1.slice/", "set cgroup.driver"),
        ] {
            let refused = path(driver, parent, "ID").unwrap_err().to_string();
            assert!(refused.contains(set), "{refused}");
        }
    }
}
