//! The CDI files of the node, as they are now.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{self, File};
use super::name::Name;
use super::{FIELD, asked};
use crate::container::config::ContainerConfig;
use crate::container::facts;
use crate::container::spec::{DeviceKind, DeviceNode, Edits, EditsDevice};
use crate::error::{Error, Result};

/// Longest file that is read.
const MAX_FILE: u64 = 4 << 20;
/// Most files that are read of a directory.
const MAX_FILES: usize = 1000;

/// By which a changed file is known.
type Stamp = (u64, u64, i64, i64, u64);
type Parsed = Arc<Result<File, String>>;

/// What was read last.
#[derive(Debug)]
pub(crate) struct Registry {
    /// A later directory's device takes the place of an earlier one's.
    dirs: Vec<PathBuf>,
    read: Mutex<BTreeMap<PathBuf, (Stamp, Parsed)>>,
}

impl Registry {
    pub(crate) fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, read: Mutex::default() }
    }

    /// What the devices that a container asks for change in its spec. Blocks.
    ///
    /// # Errors
    /// `Invalid` names the device that there is not, and the files that could not be read meanwhile.
    pub(crate) fn edits(&self, config: &ContainerConfig) -> Result<Edits> {
        let names = asked(config)?;
        if names.is_empty() {
            return Ok(Edits::default());
        }
        let files = self.files();
        let mut edits = Edits::default();
        let mut seen = HashSet::new();
        for name in &names {
            let (path, file) = find(&files, name)?;
            if seen.insert(path.to_owned()) {
                add(&mut edits, &file.container_edits).map_err(|err| wrong(path, &err))?;
            }
            for device in file.devices.iter().filter(|device| device.name == name.device) {
                add(&mut edits, &device.container_edits).map_err(|err| wrong(path, &err))?;
            }
        }
        Ok(edits)
    }

    /// Every file with its directory's rank, parsed anew where it has changed.
    fn files(&self) -> Vec<(usize, PathBuf, Parsed)> {
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeMap::new();
        let mut all = Vec::new();
        for (rank, dir) in self.dirs.iter().enumerate() {
            for path in listed(dir) {
                let Ok(meta) = std::fs::metadata(&path) else { continue };
                let stamp = (meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size());
                let parsed = match known.get(&path) {
                    Some((as_before, parsed)) if *as_before == stamp => parsed.clone(),
                    _ => Arc::new(read(&path)),
                };
                now.insert(path.clone(), (stamp, parsed.clone()));
                all.push((rank, path, parsed));
            }
        }
        *known = now;
        all
    }
}

fn listed(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let ending = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ["json", "yaml", "yml"].iter().any(|e| ending == *e))
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ending);
    let mut paths: Vec<PathBuf> = paths.take(MAX_FILES).collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Result<File, String> {
    let file = std::fs::File::open(path).map_err(|err| err.to_string())?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err("is no regular file".into());
    }
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|err| err.to_string())?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("has more than {MAX_FILE} bytes"));
    }
    file::parse(path, &text)
}

/// The file that has the device: the one of the highest rank, if it is alone there.
fn find<'a>(files: &'a [(usize, PathBuf, Parsed)], name: &Name) -> Result<(&'a Path, &'a File)> {
    let has = |file: &File| {
        file.kind == name.kind && file.devices.iter().any(|device| device.name == name.device)
    };
    let mut found: Vec<(usize, &Path, &File)> = files
        .iter()
        .filter_map(|(rank, path, parsed)| {
            Some((*rank, path.as_path(), parsed.as_ref().as_ref().ok()?))
        })
        .filter(|(_, _, file)| has(file))
        .collect();
    let best = found.iter().map(|(rank, ..)| *rank).max();
    found.retain(|(rank, ..)| Some(*rank) == best);
    match found[..] {
        [(_, path, file)] => Ok((path, file)),
        [] => {
            let broken = files.iter().filter_map(|(_, path, parsed)| {
                Some(format!(
                    "; {} is not read: {}",
                    path.display(),
                    parsed.as_ref().as_ref().err()?
                ))
            });
            let broken: String = broken.collect();
            Err(Error::invalid(FIELD, format!("there is no device {name}{broken}")))
        }
        _ => {
            let paths: Vec<_> =
                found.iter().map(|(_, path, _)| path.display().to_string()).collect();
            let reason = format!("the device {name} is in several files: {}", paths.join(", "));
            Err(Error::invalid(FIELD, reason))
        }
    }
}

fn wrong(path: &Path, err: &str) -> Error {
    Error::invalid(FIELD, format!("{}: {err}", path.display()))
}

/// What `new` asks for, its devices looked up.
fn add(edits: &mut Edits, new: &file::Edits) -> Result<(), String> {
    edits.env.extend(new.env.iter().cloned());
    for node in &new.device_nodes {
        edits.devices.push(device(node)?);
    }
    for mount in &new.mounts {
        let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
        edits.add_mount(kind, &mount.host_path, &mount.container_path, &mount.options);
    }
    for hook in &new.hooks {
        edits.add_hook(&hook.hook_name, &hook.path, &hook.args, &hook.env, hook.timeout);
    }
    edits.gids.extend(new.additional_gids.iter().filter(|gid| **gid != 0));
    if let Some(rdt) = &new.intel_rdt {
        edits.set_rdt(&rdt.clos_id, &rdt.l3_cache_schema, &rdt.mem_bw_schema, &rdt.schemata);
    }
    Ok(())
}

/// What the file does not say of a device is as the host has it.
fn device(asked: &file::DeviceNode) -> Result<EditsDevice, String> {
    let host = if asked.host_path.is_empty() { &asked.path } else { &asked.host_path };
    let kind = match asked.kind.as_str() {
        "b" => Some(DeviceKind::Block),
        "c" | "u" => Some(DeviceKind::Char),
        "p" => Some(DeviceKind::Fifo),
        _ => None,
    };
    let numbered = asked.major != 0 || kind == Some(DeviceKind::Fifo);
    let mut node = match kind {
        Some(kind) if numbered => DeviceNode {
            path: String::new(),
            kind,
            major: u32::try_from(asked.major).map_err(|_| format!("{host}: no major number"))?,
            minor: u32::try_from(asked.minor).map_err(|_| format!("{host}: no minor number"))?,
            mode: 0o666,
            uid: 0,
            gid: 0,
            access: String::new(),
        },
        _ => {
            let found = facts::device(Path::new(host)).map_err(|err| format!("{host}: {err}"))?;
            if kind.is_some_and(|kind| kind != found.kind) {
                return Err(format!("{host}: is a device of another type"));
            }
            found
        }
    };
    node.path.clone_from(&asked.path);
    node.mode = asked.file_mode.unwrap_or(node.mode);
    node.access = match asked.permissions.as_str() {
        "" => "rwm".to_owned(),
        said => said.to_owned(),
    };
    Ok(EditsDevice { node, uid: asked.uid, gid: asked.gid })
}
