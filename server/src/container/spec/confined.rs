//! What holds of every spec, whatever was asked and whatever the image says: for tests, and for those who try harder.

use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxDeviceCgroup, LinuxIdMapping, LinuxNamespaceType, Mount, Process, Spec,
};

use super::super::config::{
    GroupsPolicy, IdMapping, PidMode, Security, SecurityProfile, UsernsOptions,
};
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
/// Where the CDI devices of a fixture take what they mount from.
pub(super) const CDI: &str = "/cdi";
/// File systems that are the container's own.
const VIRTUAL: [&str; 6] = ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup"];

/// # Errors
/// Says how the spec breaks the confinement.
pub(super) fn confined(fixture: &Fixture, spec: &Spec) -> Result<(), String> {
    let linux = spec.linux().as_ref().ok_or("no linux")?;
    let process = spec.process().as_ref().ok_or("no process")?;
    cgroup(fixture, linux)?;
    capabilities(fixture, process)?;
    identity(fixture, process)?;
    kernel(fixture, linux, process)?;
    devices(fixture, linux)?;
    namespaces(fixture, linux)?;
    mounts(fixture, spec)?;
    if spec.hooks().is_some() && fixture.facts.cdi.devices.is_empty() {
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

fn identity(fixture: &Fixture, process: &Process) -> Result<(), String> {
    let (user, security) = (process.user(), &fixture.config.security);
    let groups = user.additional_gids().as_deref().unwrap_or_default();
    let in_range = |id: u32| i32::try_from(id).is_ok();
    let ids = [user.uid(), user.gid()].into_iter().chain(groups.iter().copied());
    if !ids.into_iter().all(in_range) || groups.first() != Some(&user.gid()) {
        return Err(format!("the identity {user:?}"));
    }
    let asked = |id: &u32| security.supplemental_groups.contains(&i64::from(*id));
    let given = |id: &u32| asked(id) || *id == user.gid() || fixture.facts.cdi.gids.contains(id);
    let strict = security.supplemental_groups_policy == GroupsPolicy::Strict;
    if strict && !groups.iter().all(given) {
        return Err(format!("groups of the image in {groups:?}"));
    }
    Ok(())
}

/// What keeps a process from the kernel's less travelled parts, unless it is privileged.
fn kernel(fixture: &Fixture, linux: &Linux, process: &Process) -> Result<(), String> {
    let security = &fixture.config.security;
    if security.no_new_privs && process.no_new_privileges() != Some(true) {
        return Err("new privileges may be had".into());
    }
    if security.privileged {
        return Ok(());
    }
    let filtered = matches!(security.seccomp, Some(SecurityProfile::RuntimeDefault));
    if filtered && linux.seccomp().is_none() {
        return Err("no filter of system calls".into());
    }
    for (asked, given, what) in [
        (&security.masked_paths, linux.masked_paths(), "masked"),
        (&security.readonly_paths, linux.readonly_paths(), "read-only"),
    ] {
        let given = given.as_deref().unwrap_or_default();
        if let Some(path) = asked.iter().find(|path| !given.contains(path)) {
            return Err(format!("{path:?} is not {what}"));
        }
    }
    Ok(())
}

fn devices(fixture: &Fixture, linux: &Linux) -> Result<(), String> {
    if fixture.config.security.privileged {
        return Ok(());
    }
    let facts = &fixture.facts;
    let cdi = facts.cdi.devices.iter().map(|device| &device.node);
    let asked: Vec<_> = facts.devices.iter().chain(cdi).collect();
    let nodes = linux.devices().as_deref().unwrap_or_default();
    let known = |path: &Path| asked.iter().any(|device| Path::new(&device.path) == path);
    if let Some(other) = nodes.iter().find(|node| !known(node.path())) {
        return Err(format!("the device {:?} was not asked for", other.path()));
    }
    let rules = linux.resources().as_ref().and_then(|all| all.devices().clone());
    let rules = rules.unwrap_or_default();
    let is_asked = |rule: &LinuxDeviceCgroup| {
        asked.iter().any(|device| {
            rule.major() == Some(device.major.into())
                && rule.minor() == Some(device.minor.into())
                && rule.access().as_deref() == Some(device.access.as_str())
        })
    };
    let deny_all = |rule: &LinuxDeviceCgroup| {
        !rule.allow() && rule.typ().is_none() && rule.major().is_none() && rule.minor().is_none()
    };
    match rules.split_first() {
        Some((first, others)) if deny_all(first) && others.iter().all(is_asked) => Ok(()),
        _ => Err(format!("the rules for devices {rules:?}")),
    }
}

/// Of its own or its pod's wherever the pod is not the host's, and each kind once.
fn namespaces(fixture: &Fixture, linux: &Linux) -> Result<(), String> {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let all = linux.namespaces().as_deref().unwrap_or_default();
    let (place, security) = (&fixture.place, &fixture.config.security);
    let pid = match &security.pid {
        PidMode::Container => Some(None),
        PidMode::Host => None,
        PidMode::Pod => Some(place.pid.as_deref()).filter(|_| !place.host_pid),
        PidMode::Target(_) => Some(fixture.facts.target_pid.as_deref()),
    };
    let own_cgroup = fixture.node.cgroup_v2 && !security.privileged;
    for (kind, wanted) in [
        (Mount, Some(None)),
        (Network, place.netns.as_deref().map(Some)),
        (Ipc, place.ipc.as_deref().map(Some)),
        (Uts, place.uts.as_deref().map(Some)),
        (User, place.user.as_deref().map(Some)),
        (Pid, pid),
        (Cgroup, own_cgroup.then_some(None)),
    ] {
        let of_kind: Vec<_> = all.iter().filter(|one| one.typ() == kind).collect();
        let is = match of_kind.as_slice() {
            [] => wanted.is_none(),
            [one] => wanted == Some(one.path().as_deref()),
            _ => false,
        };
        if !is {
            return Err(format!("the namespaces {kind:?}: {of_kind:?}, not {wanted:?}"));
        }
    }
    if !place.host_network && place.netns.is_none() || !place.host_ipc && place.ipc.is_none() {
        return Err("the pod has none of its own".into());
    }
    users(place.users.as_ref(), linux)
}

/// The pod's users, and what they are on the host, or the host's own.
fn users(asked: Option<&UsernsOptions>, linux: &Linux) -> Result<(), String> {
    let same = |asked: Option<&Vec<IdMapping>>, given: Option<&Vec<LinuxIdMapping>>| {
        let asked = asked.map(Vec::as_slice).unwrap_or_default();
        let given = given.map(Vec::as_slice).unwrap_or_default();
        let is = |(asked, given): (&IdMapping, &LinuxIdMapping)| {
            let IdMapping { host_id, container_id, length } = *asked;
            let given = (given.host_id(), given.container_id(), given.size());
            (host_id, container_id, length) == given
        };
        asked.len() == given.len() && asked.iter().zip(given).all(is)
    };
    let uids = same(asked.map(|users| &users.uids), linux.uid_mappings().as_ref());
    let gids = same(asked.map(|users| &users.gids), linux.gid_mappings().as_ref());
    if uids && gids { Ok(()) } else { Err("the users are not those of the pod".into()) }
}

/// Nothing of the host but what was asked for and what the pod's own files are, and that as it was asked for.
fn mounts(fixture: &Fixture, spec: &Spec) -> Result<(), String> {
    let all = spec.mounts().as_deref().unwrap_or_default();
    let root = spec.root().as_ref().ok_or("no root")?;
    let read_only = fixture.config.security.readonly_rootfs;
    if root.path() != Path::new("rootfs") || root.readonly() != Some(read_only) {
        return Err(format!("the root {root:?}"));
    }
    all.iter().try_for_each(|mount| of_host(fixture, mount))?;
    for (asked, source) in fixture.config.mounts.iter().zip(&fixture.facts.mount_sources) {
        let target = Path::new(&asked.container_path);
        let is = |mount: &&Mount| {
            mount.source().as_ref() == Some(source) && mount.destination() == target
        };
        let writable = |mount: &Mount| !(has(mount, "ro") || has(mount, "rro"));
        if asked.readonly && all.iter().filter(is).any(writable) {
            return Err(format!("{source:?} can be written to"));
        }
    }
    Ok(())
}

fn has(mount: &Mount, option: &str) -> bool {
    mount.options().iter().flatten().any(|one| one == option)
}

fn of_host(fixture: &Fixture, mount: &Mount) -> Result<(), String> {
    let (place, sources) = (&fixture.place, &fixture.facts.mount_sources);
    if !mount.destination().is_absolute() {
        return Err(format!("{:?} is nowhere", mount.destination()));
    }
    let kind = mount.typ().as_deref().unwrap_or_default();
    if VIRTUAL.contains(&kind) {
        let privileged = fixture.config.security.privileged;
        let of_kernel = matches!(kind, "sysfs" | "cgroup") && !privileged;
        let executes = kind != "tmpfs" && !has(mount, "noexec");
        let open = of_kernel && !has(mount, "ro") || !has(mount, "nosuid") || executes;
        return if open { Err(format!("{mount:?} is open")) } else { Ok(()) };
    }
    let source = mount.source().as_deref().unwrap_or(Path::new(""));
    let shm = place.host_ipc && source == Path::new("/dev/shm");
    let sys = place.users.is_some() && place.host_network && has(mount, "ro");
    let sys = sys && source == Path::new("/sys");
    let cdi = !fixture.facts.cdi.devices.is_empty() && source.starts_with(CDI);
    let ours = source.starts_with(&place.dir) || shm || sys || cdi;
    match ours || sources.iter().any(|one| one == source) {
        true => Ok(()),
        false => Err(format!("{source:?} of the host was not asked for")),
    }
}

fn image_stays_inside(spec: &Spec) -> Result<(), String> {
    let mut outside = serde_json::to_value(spec).map_err(|err| err.to_string())?;
    if let Some(process) = outside["process"].as_object_mut() {
        for inside in ["args", "env", "cwd"] {
            process.remove(inside);
        }
    }
    if for_kernel(spec)?.contains("\\u0000") {
        return Err("a NUL, at which the kernel would stop reading".into());
    }
    let text = outside.to_string();
    if text.contains(MARK) { Err(format!("what the image says got out: {text}")) } else { Ok(()) }
}

/// All but the annotations, which are for people and programs.
fn for_kernel(spec: &Spec) -> Result<String, String> {
    let mut spec = serde_json::to_value(spec).map_err(|err| err.to_string())?;
    spec["annotations"].take();
    Ok(spec.to_string())
}
