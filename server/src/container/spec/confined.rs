//! What holds of every spec, whatever was asked and whatever the image says: for tests, and for those who try harder.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};

use super::super::config::Security;
use super::caps;
use super::fixture::{CAPABILITIES, Fixture, ID};

/// In every value of an image, so that it can be searched for.
pub(crate) const MARK: &str = "IMAGE\u{2620}";

/// What a container has without asking.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// File systems that are the container's own.
const VIRTUAL: [&str; 6] = ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup"];

/// # Errors
/// Says how the spec breaks the confinement.
pub(super) fn confined(fixture: &Fixture, spec: &Spec) -> Result<(), String> {
    let linux = spec.linux().as_ref().ok_or("no linux")?;
    let process = spec.process().as_ref().ok_or("no process")?;
    cgroup(fixture, linux)?;
    capabilities(fixture, process)?;
    identity(process)?;
    devices(fixture, linux)?;
    namespaces(fixture, linux)?;
    mounts(fixture, spec)?;
    if spec.hooks().is_some() {
        return Err("it has hooks".into());
    }
    image_stays_inside(spec)
}

fn cgroup(fixture: &Fixture, linux: &Linux) -> Result<(), String> {
    let path = linux.cgroups_path().as_ref().and_then(|path| path.to_str()).unwrap_or_default();
    let parent = &fixture.place.cgroup_parent;
    let slice = parent.rsplit('/').next().unwrap_or_default();
    let below = path == format!("{parent}/{ID}") || path == format!("{slice}:podwright:{ID}");
    if below { Ok(()) } else { Err(format!("the cgroup {path:?} is not below {parent:?}")) }
}

fn capabilities(fixture: &Fixture, process: &Process) -> Result<(), String> {
    let security = &fixture.config.security;
    let granted = process.capabilities().as_ref().ok_or("no capabilities")?;
    let sets = [granted.bounding(), granted.effective(), granted.permitted()];
    for name in sets.into_iter().flatten().flatten().map(ToString::to_string) {
        if !asks(security, &name) || !caps::has(CAPABILITIES, &name) {
            return Err(format!("{name} was not asked for, or is not ours to give"));
        }
    }
    // What can be inherited outlives an exec, so it has to be asked for as such.
    let ambient = &security.add_ambient_capabilities;
    let sets = [granted.ambient(), granted.inheritable()];
    for name in sets.into_iter().flatten().flatten().map(ToString::to_string) {
        if !names(ambient, &name) && !names(ambient, "ALL") {
            return Err(format!("{name} can be inherited"));
        }
    }
    Ok(())
}

/// Told apart from how the sets are made.
fn asks(security: &Security, name: &str) -> bool {
    let (add, drop) = (&security.add_capabilities, &security.drop_capabilities);
    let ambient = &security.add_ambient_capabilities;
    let kept = !names(drop, name);
    let of_all =
        !names(drop, "ALL") && (USUAL.contains(&short(name).as_str()) || names(add, "ALL"));
    let inherited = names(ambient, "ALL") || names(ambient, name);
    security.privileged || inherited || kept && (of_all || names(add, name))
}

fn names(list: &[String], name: &str) -> bool {
    list.iter().any(|one| short(one) == short(name))
}

fn short(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

fn identity(process: &Process) -> Result<(), String> {
    let user = process.user();
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let in_range = |id: u32| i32::try_from(id).is_ok();
    let ids = [user.uid(), user.gid()].into_iter().chain(groups.iter().copied());
    if !ids.into_iter().all(in_range) || groups.first() != Some(&user.gid()) {
        return Err(format!("the identity {user:?}"));
    }
    Ok(())
}

fn devices(fixture: &Fixture, linux: &Linux) -> Result<(), String> {
    if fixture.config.security.privileged {
        return Ok(());
    }
    let asked = &fixture.facts.devices;
    let nodes = linux.devices().as_deref().unwrap_or_default();
    let known = |path: &Path| asked.iter().any(|device| Path::new(&device.path) == path);
    if let Some(other) = nodes.iter().find(|node| !known(node.path())) {
        return Err(format!("the device {:?} was not asked for", other.path()));
    }
    let rules = linux.resources().as_ref().and_then(|all| all.devices().clone());
    let rules = rules.unwrap_or_default();
    let all_denied_first = rules.first().is_some_and(|rule| !rule.allow() && rule.typ().is_none());
    if !all_denied_first || rules.len() > asked.len() + 1 {
        return Err(format!("the rules for devices {rules:?}"));
    }
    Ok(())
}

/// Of its own or its pod's wherever the pod is not the host's.
fn namespaces(fixture: &Fixture, linux: &Linux) -> Result<(), String> {
    let all = linux.namespaces().as_deref().unwrap_or_default();
    let place = &fixture.place;
    let has = |kind, path: Option<&Path>| {
        let mut of_kind = all.iter().filter(|namespace| namespace.typ() == kind);
        of_kind.any(|namespace| path.is_none() || namespace.path().as_deref() == path)
    };
    if !has(LinuxNamespaceType::Mount, None) {
        return Err("no mount namespace".into());
    }
    let shared = [
        (LinuxNamespaceType::Network, place.host_network, &place.netns),
        (LinuxNamespaceType::Ipc, place.host_ipc, &place.ipc),
    ];
    for (kind, is_hosts, path) in shared {
        if !is_hosts && !has(kind, path.as_deref()) {
            return Err(format!("no namespace {kind:?} of the pod"));
        }
    }
    // The pod's users, and what they are on the host, or the host's own.
    let maps = [linux.uid_mappings(), linux.gid_mappings()];
    let users = maps.iter().all(|map| map.as_ref().is_some_and(|map| !map.is_empty()));
    let mapped = place.user.is_some() && has(LinuxNamespaceType::User, place.user.as_deref());
    if (place.users.is_some() || users) && !(users && mapped) {
        return Err("the pod's users are the host's".into());
    }
    Ok(())
}

/// Nothing of the host but what was asked for and what the pod's own files are.
fn mounts(fixture: &Fixture, spec: &Spec) -> Result<(), String> {
    let (place, sources) = (&fixture.place, &fixture.facts.mount_sources);
    for mount in spec.mounts().iter().flatten() {
        let kind = mount.typ().as_deref().unwrap_or_default();
        if VIRTUAL.contains(&kind) {
            continue;
        }
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        let shm = place.host_ipc && source == Path::new("/dev/shm");
        let options = mount.options().as_deref().unwrap_or_default();
        let read_only = options.iter().any(|option| option == "ro");
        let sys = place.users.is_some() && place.host_network && read_only;
        let sys = sys && source == Path::new("/sys");
        let ours = source.starts_with(&place.dir) || shm || sys;
        if !(ours || sources.iter().any(|one| one == source)) {
            return Err(format!("{source:?} of the host was not asked for"));
        }
    }
    Ok(())
}

fn image_stays_inside(spec: &Spec) -> Result<(), String> {
    let mut outside = serde_json::to_value(spec).map_err(|err| err.to_string())?;
    if let Some(process) = outside["process"].as_object_mut() {
        for inside in ["args", "env", "cwd"] {
            process.remove(inside);
        }
    }
    let text = outside.to_string();
    if text.contains(MARK) { Err(format!("what the image says got out: {text}")) } else { Ok(()) }
}
