//! What holds of every spec, whatever was asked and whatever the image says: for tests, and for those who try harder.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};

use super::caps;
use super::fixture::{CAPABILITIES, Fixture, ID};

/// In every value of an image, so that it can be searched for.
pub(crate) const MARK: &str = "IMAGE\u{2620}";

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
    let asked = caps::Sets::of(security, u64::MAX).map_err(|err| err.to_string())?;
    let granted = process.capabilities().as_ref().ok_or("no capabilities")?;
    let within = |set: &Option<oci_spec::runtime::Capabilities>, asked: u64| {
        let mut names = set.iter().flatten().map(ToString::to_string);
        names.find(|name| !caps::has(asked & CAPABILITIES, name))
    };
    let sets = [granted.bounding(), granted.effective(), granted.permitted()];
    let too_much = sets.into_iter().find_map(|set| within(set, asked.bounding));
    if let Some(name) = too_much.or_else(|| within(granted.ambient(), asked.ambient)) {
        return Err(format!("{name} was not asked for, or is not ours to give"));
    }
    // What can be inherited is at most what is ambient.
    if let Some(name) = within(granted.inheritable(), asked.ambient) {
        return Err(format!("{name} can be inherited"));
    }
    Ok(())
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
        if !(sources.iter().any(|one| one == source) || source.starts_with(&place.dir) || shm) {
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
