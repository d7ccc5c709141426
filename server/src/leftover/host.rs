//! The host's side: every object that bears our name, with the id that it bears. Looks and never changes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::container::node::Node;
use crate::error::{Error, Result};
use crate::host::process;
use crate::resource::Resource;

/// Largest bundle that is read for its cgroup.
const MAX_SPEC: u64 = 16 << 20;
/// Digits of an id by which what belongs together is put together: as many as short names have.
const OWNER_LEN: usize = 13;

/// One object that has a name of ours.
#[derive(Debug)]
pub(super) struct Object {
    /// The beginning of the id in its name.
    pub owner: String,
    pub resource: Resource,
    /// What goes with it.
    pub within: Vec<Resource>,
}

fn object(name: &str, resource: Resource, within: Vec<Resource>) -> Object {
    Object { owner: name.get(..OWNER_LEN).unwrap_or(name).to_owned(), resource, within }
}

/// Everything that there is. Blocks.
///
/// # Errors
/// When one of our own directories cannot be read.
pub(super) fn list(node: &Node) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    let bundles = pods(node, &mut objects)?;
    states(node, &bundles, &mut objects)?;
    let snapshots = node.hands.snapshotter.list().map_err(|err| Error::Image(err.to_string()))?;
    objects.extend(snapshots.into_iter().map(|key| {
        let name = key.clone();
        object(&name, Resource::Snapshot { key }, Vec::new())
    }));
    for path in node.instance.pinned() {
        let owner = node.instance.short_id(&path).unwrap_or_default().to_owned();
        objects.push(object(&owner, Resource::Netns { path }, Vec::new()));
    }
    attachments(node, &mut objects);
    Ok(objects)
}

/// Names of the directories in `dir`; none if there is no `dir`.
fn directories(dir: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(err) => return Err(Error::io("read", dir)(err)),
    };
    let entries = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()));
    Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Where a container's bundle is, and its cgroup; empty where that is not known.
#[derive(Debug, Clone, Default)]
struct Bundle {
    path: PathBuf,
    cgroup: String,
}

/// The pods' directories and the bundles in them, by container.
fn pods(node: &Node, objects: &mut Vec<Object>) -> Result<HashMap<String, Bundle>> {
    let (dir, mounts) = (node.config.state.join("pods"), mounts_below(&node.config.state)?);
    // One look for all pods: a look for each took most of a start with a hundred.
    let working = process::working_directories();
    let mut bundles = HashMap::new();
    for pod in directories(&dir)? {
        let path = dir.join(&pod);
        let mut within: Vec<Resource> = mounts
            .iter()
            .filter(|mount| mount.starts_with(&path))
            .map(|mount| Resource::Mount { path: mount.clone() })
            .collect();
        let shim = path.join("shim");
        if working.contains(&shim) {
            within.push(Resource::Shim { dir: shim });
        }
        for id in directories(&path.join("ctr"))? {
            let bundle = path.join("ctr").join(&id);
            let cgroup = cgroups_path(&bundle);
            let known = Bundle { path: bundle.clone(), cgroup: cgroup.clone().unwrap_or_default() };
            bundles.insert(id, known);
            let cgroup = cgroup.map(|path| Resource::Cgroup { path });
            within.extend(cgroup.clone());
            let within = cgroup.into_iter().collect();
            // Its pod is its owner, whose directory may have to go with it: one thing after the other.
            objects.push(object(&pod, Resource::Directory { path: bundle }, within));
        }
        objects.push(object(&pod, Resource::Directory { path }, within));
    }
    Ok(bundles)
}

/// What OCI runtimes remember of containers.
fn states(node: &Node, bundles: &HashMap<String, Bundle>, objects: &mut Vec<Object>) -> Result<()> {
    let dir = node.config.state.join("runtime");
    for handler in directories(&dir)? {
        let root = dir.join(&handler);
        for id in directories(&root)? {
            let Bundle { path: bundle, cgroup: cgroups_path } =
                bundles.get(&id).cloned().unwrap_or_default();
            let name = id.clone();
            let resource = match node.host.handlers.get(&handler) {
                Some(handler) => {
                    let (runtime, root) = (handler.binary.clone(), root.clone());
                    Resource::Task { runtime, root, id, cgroups_path, bundle }
                }
                // Its runtime is not here any more: only files are left of it, and its cgroup.
                None => Resource::Directory { path: root.join(id) },
            };
            objects.push(object(&name, resource, Vec::new()));
        }
    }
    Ok(())
}

/// Entries of CNI's cache for network namespaces that are ours; the directory may be every runtime's.
fn attachments(node: &Node, objects: &mut Vec<Object>) {
    for entry in node.hands.cni.cached().unwrap_or_default() {
        let attachment = entry.attachment();
        let ours = attachment.netns.as_deref().is_some_and(|netns| node.instance.made(netns));
        if ours {
            let name = attachment.container_id.clone();
            let conflist = String::from_utf8_lossy(&entry.config).into_owned();
            let resource = Resource::Attachment { conflist, attachment: Box::new(attachment) };
            objects.push(object(&name, resource, Vec::new()));
        }
    }
}

/// Where a bundle's container has its cgroup.
fn cgroups_path(bundle: &Path) -> Option<String> {
    let path = bundle.join("config.json");
    let metadata = std::fs::symlink_metadata(&path).ok()?;
    if !metadata.is_file() || metadata.len() > MAX_SPEC {
        return None;
    }
    let spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    let path = spec.pointer("/linux/cgroupsPath")?.as_str()?;
    (!path.is_empty()).then(|| path.to_owned())
}

/// Mounts strictly below `dir`, outermost first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Error::io("read", Path::new("/proc/self/mountinfo")))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut below: Vec<PathBuf> =
        points.filter(|point| point.starts_with(dir) && point != dir).collect();
    below.sort();
    Ok(below)
}
