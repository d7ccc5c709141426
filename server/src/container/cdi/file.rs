//! A CDI file: JSON or YAML, of the versions 0.3 to 1.1.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::name::{check_device, check_kind};

/// What a vendor says of its devices.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct File {
    cdi_version: String,
    pub kind: String,
    /// For people; nothing reads them.
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub devices: Vec<Device>,
    /// For whoever uses any of the devices.
    #[serde(default)]
    pub container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub name: String,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
    pub container_edits: Edits,
}

/// What is to be changed in a container's spec.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<DeviceNode>,
    pub mounts: Vec<Mount>,
    pub hooks: Vec<Hook>,
    pub additional_gids: Vec<u32>,
    pub intel_rdt: Option<IntelRdt>,
    /// Needs an OCI runtime of the future; a file that has some is refused.
    net_devices: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeviceNode {
    pub path: String,
    pub host_path: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub major: i64,
    pub minor: i64,
    pub file_mode: Option<u32>,
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mount {
    pub host_path: String,
    pub container_path: String,
    pub options: Vec<String>,
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Hook {
    pub hook_name: String,
    pub path: String,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: String,
    #[serde(rename = "l3CacheSchema")]
    pub l3_cache_schema: String,
    pub mem_bw_schema: String,
    #[serde(rename = "enableCMT")]
    enable_cmt: bool,
    #[serde(rename = "enableMBM")]
    enable_mbm: bool,
    pub schemata: Vec<String>,
    enable_monitoring: bool,
}

pub(super) const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Reads a file's text by its name's ending.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, String> {
    let json = path.extension().is_some_and(|ending| ending == "json");
    let file: File = match json {
        true => serde_json::from_str(text).map_err(|err| err.to_string())?,
        false => serde_saphyr::from_str(text).map_err(|err| err.to_string())?,
    };
    check(&file)?;
    Ok(file)
}

fn check(file: &File) -> Result<(), String> {
    let version = file.cdi_version.strip_prefix('v').unwrap_or(&file.cdi_version);
    let known = ["0.3.", "0.4.", "0.5.", "0.6.", "0.7.", "0.8.", "1.0.", "1.1."];
    if !known.iter().any(|known| version.starts_with(known)) {
        return Err(format!("cdiVersion: {:?} is not known", file.cdi_version));
    }
    check_kind(&file.kind).map_err(|err| format!("kind: {:?}: {err}", file.kind))?;
    if file.devices.is_empty() {
        return Err("devices: has none".into());
    }
    check_edits(&file.container_edits).map_err(|err| format!("containerEdits: {err}"))?;
    let mut names = std::collections::HashSet::new();
    for (i, device) in file.devices.iter().enumerate() {
        let at = |err: String| format!("devices[{i}]: {err}");
        check_device(&device.name).map_err(at)?;
        if !names.insert(device.name.as_str()) {
            return Err(at(format!("{:?} is there twice", device.name)));
        }
        check_edits(&device.container_edits).map_err(at)?;
    }
    Ok(())
}

fn check_edits(edits: &Edits) -> Result<(), String> {
    for variable in &edits.env {
        if !variable.contains('=') || variable.starts_with('=') || variable.contains('\0') {
            return Err(format!("env: {variable:?} is not NAME=VALUE"));
        }
    }
    for node in &edits.device_nodes {
        let kinds = ["", "b", "c", "u", "p"];
        if !kinds.contains(&node.kind.as_str()) {
            return Err(format!("deviceNodes: {}: {:?} is no type", node.path, node.kind));
        }
        if !node.permissions.bytes().all(|b| matches!(b, b'r' | b'w' | b'm')) {
            return Err(format!("deviceNodes: {}: permissions {:?}", node.path, node.permissions));
        }
        absolute("deviceNodes", &node.path)?;
    }
    for mount in &edits.mounts {
        absolute("mounts: containerPath", &mount.container_path)?;
        if mount.host_path.is_empty() {
            return Err(format!("mounts: {}: has no hostPath", mount.container_path));
        }
    }
    for hook in &edits.hooks {
        if !HOOKS.contains(&hook.hook_name.as_str()) {
            return Err(format!("hooks: {:?} is none of {}", hook.hook_name, HOOKS.join(", ")));
        }
        absolute("hooks", &hook.path)?;
    }
    if !edits.net_devices.is_empty() {
        return Err("netDevices: are not supported".into());
    }
    match &edits.intel_rdt {
        Some(rdt) if rdt.enable_cmt || rdt.enable_mbm || rdt.enable_monitoring => {
            Err("intelRdt: monitoring is not supported".into())
        }
        _ => Ok(()),
    }
}

fn absolute(what: &str, path: &str) -> Result<(), String> {
    if path.starts_with('/') && !path.contains('\0') {
        return Ok(());
    }
    Err(format!("{what}: {path:?} is not an absolute path"))
}
