//! The mounts of a container, in the order in which they are made.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;

use super::super::config::{self, Propagation, UsernsOptions};
use super::{Input, namespaces};
use crate::error::{Error, Result};

/// Bind mount options that the CRI's `mount_options` may hold: those that restrict or tune this mount alone.
pub(crate) const MOUNT_OPTIONS: [&str; 13] = [
    "noexec",
    "exec",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noatime",
    "atime",
    "relatime",
    "strictatime",
    "nodiratime",
    "diratime",
    "nosymfollow",
];

/// The group of terminals, as every distribution has it.
const TTY: u32 = 5;

/// All mounts, and the propagation that the root needs for them.
pub(super) fn all(input: &Input<'_>) -> Result<(Vec<Mount>, Option<&'static str>)> {
    let mut ours = of_pod(input);
    ours.retain(|mount| !is_given(input, mount.destination()));
    for (i, mount) in input.config.mounts.iter().enumerate() {
        ours.push(given(input, i, mount)?);
    }
    // Stable: of two at one depth, the pod's comes first, then as the request has them.
    ours.sort_by_key(|mount| depth(mount.destination()));
    let mut all = system(input);
    all.retain(|mount| {
        let under_dev = mount.destination().starts_with("/dev");
        !(is_given(input, mount.destination()) || under_dev && is_given(input, Path::new("/dev")))
    });
    all.extend(ours);
    Ok((all, root_propagation(&input.config.mounts)))
}

fn system(input: &Input<'_>) -> Vec<Mount> {
    let privileged = input.config.security.privileged;
    let access = if privileged { "rw" } else { "ro" };
    let cgroup = ["nosuid", "noexec", "nodev", "relatime", access];
    let host_cgroup_namespace = input.node.cgroup_v2 && privileged;
    let extra: &[String] = if host_cgroup_namespace { &input.node.cgroup2_options } else { &[] };
    let cgroup: Vec<&str> = cgroup.into_iter().chain(extra.iter().map(String::as_str)).collect();
    // Terminals belong to group 5, where the pod has one.
    let has_tty = |users: &UsernsOptions| users.gids.iter().any(|gids| gids.length > TTY);
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    if input.place.users.as_ref().is_none_or(has_tty) {
        pts.push("gid=5");
    }
    // A sysfs belongs to a network, and one that is not the pod's own cannot be mounted by its users.
    let host_sys = input.place.users.is_some() && input.place.host_network;
    let sys = match host_sys {
        true => bind(Path::new("/sys"), "/sys", &["nosuid", "noexec", "nodev", "rslave", "ro"]),
        false => mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", access]),
    };
    vec![
        mount("proc", "proc", "/proc", &["nosuid", "noexec", "nodev"]),
        mount("tmpfs", "tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("devpts", "devpts", "/dev/pts", &pts),
        mount("mqueue", "mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("cgroup", "cgroup", "/sys/fs/cgroup", &cgroup),
    ]
}

/// `all` with `more`, which take the places of what was to be mounted there.
pub(super) fn with(mut all: Vec<Mount>, more: &[Mount]) -> Vec<Mount> {
    for mount in more {
        let target = clean(mount.destination());
        all.retain(|other| clean(other.destination()) != target);
        all.push(mount.clone());
    }
    // Stable: nothing is mounted before what it lies on.
    all.sort_by_key(|mount| depth(mount.destination()));
    all
}

/// What a container shares with its pod.
fn of_pod(input: &Input<'_>) -> Vec<Mount> {
    let place = input.place;
    let access = if input.config.security.readonly_rootfs { "ro" } else { "rw" };
    let shm = if place.host_ipc { PathBuf::from("/dev/shm") } else { place.dir.join("shm") };
    vec![
        bind(&place.dir.join("hostname"), "/etc/hostname", &["rprivate", access]),
        bind(&place.dir.join("hosts"), "/etc/hosts", &["rprivate", access]),
        bind(&place.dir.join("resolv.conf"), "/etc/resolv.conf", &["rprivate", access]),
        bind(&shm, "/dev/shm", &["rprivate", "rw"]),
    ]
}

fn given(input: &Input<'_>, i: usize, asked: &config::Mount) -> Result<Mount> {
    let mut options = vec![match asked.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    }];
    if asked.recursive_read_only {
        if !asked.readonly || asked.propagation != Propagation::Private {
            return Err(Error::invalid(
                format!("mounts[{i}].recursive_read_only"),
                "needs readonly and private propagation",
            ));
        }
        if !input.facts.runtime.recursive_read_only {
            // The kubelet knows this one by its first word.
            return Err(Error::Runtime(format!(
                "RROUnsupported: mounts[{i}]: the runtime handler cannot make {:?} recursively read-only",
                asked.host_path
            )));
        }
        options.push("rro");
    } else {
        options.push(if asked.readonly { "ro" } else { "rw" });
    }
    for option in &asked.mount_options {
        match MOUNT_OPTIONS.iter().find(|known| *known == option) {
            Some(known) => options.push(known),
            None => {
                return Err(Error::invalid(
                    format!("mounts[{i}].mount_options"),
                    format!("{option:?} is none of {}", MOUNT_OPTIONS.join(", ")),
                ));
            }
        }
    }
    let mut mount = bind(&input.facts.mount_sources[i], &asked.container_path, &options);
    // Images are mounted with the pod's owners before the runtime sees them.
    let mapped = !asked.uid_mappings.is_empty() && asked.image.is_none();
    if mapped && !input.facts.runtime.user_namespaces {
        return Err(Error::Unsupported(format!(
            "mounts[{i}]: the runtime handler cannot map the owners of {:?}",
            asked.host_path
        )));
    }
    if mapped {
        mount
            .set_uid_mappings(Some(namespaces::ids(&asked.uid_mappings)))
            .set_gid_mappings(Some(namespaces::ids(&asked.gid_mappings)));
    }
    Ok(mount)
}

fn bind(source: &Path, target: &str, options: &[&str]) -> Mount {
    let mut mount = mount("bind", "", target, &[&["rbind"], options].concat());
    mount.set_source(Some(source.to_owned()));
    mount
}

fn mount(kind: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_destination(target.into())
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// Whether the request mounts something there itself.
fn is_given(input: &Input<'_>, target: &Path) -> bool {
    input.config.mounts.iter().any(|mount| clean(Path::new(&mount.container_path)) == target)
}

fn depth(path: &Path) -> usize {
    clean(path).components().count()
}

/// Without `.`, `..` and doubled separators, as path text only.
fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Runtimes make the root private; it may not be more private than a mount on it.
fn root_propagation(mounts: &[config::Mount]) -> Option<&'static str> {
    let has = |wanted| mounts.iter().any(|mount| mount.propagation == wanted);
    if has(Propagation::Bidirectional) {
        Some("rshared")
    } else if has(Propagation::HostToContainer) {
        Some("rslave")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_compared_as_they_will_be() {
        for (path, is) in [
            ("/etc/hosts/", "/etc/hosts"),
            ("//etc/./hosts", "/etc/hosts"),
            ("/a/../etc/hosts", "/etc/hosts"),
            ("/../..", "/"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(is), "{path}");
        }
    }
}
