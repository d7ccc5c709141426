//! The cache of results on disk, in libcni's layout: `<dir>/results/<network>-<container id>-<ifname>`.
//!
//! DEL and CHECK hand a plugin what ADD gave. An entry that is missing or unreadable is no error: DEL has
//! to work without one.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attachment::{Attachment, Capabilities};
use crate::config::Network;
use crate::engine::Engines;
use crate::error::{Error, Result};
use crate::lease;
use crate::result::CniResult;

const KIND: &str = "cniCacheV1";
/// No entry is larger: a result and a list of plugins.
const MAX_ENTRY: u64 = 8 << 20;

/// An attachment as the cache recorded it. JSON names, order and encoding are libcni's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedAttachment {
    kind: String,
    /// The id of the sandbox.
    pub container_id: String,
    /// The list of plugins that the attachment was made with, as [`Network::bytes`].
    #[serde(with = "base64_bytes")]
    pub config: Vec<u8>,
    /// The interface.
    pub if_name: String,
    /// The network.
    pub network_name: String,
    /// The network namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub netns: String,
    /// `CNI_ARGS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni_args: Option<Vec<(String, String)>>,
    /// All capability arguments, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_args: Option<BTreeMap<String, Value>>,
    /// The result of the ADD.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub result: Value,
}

impl CachedAttachment {
    fn of(network: &Network, attachment: &Attachment, result: &CniResult) -> Self {
        let capabilities = attachment.capabilities.by_name();
        let netns = attachment.netns.as_deref().unwrap_or(Path::new(""));
        Self {
            kind: KIND.to_owned(),
            container_id: attachment.container_id.clone(),
            config: network.bytes().to_vec(),
            if_name: attachment.ifname.clone(),
            network_name: network.name().to_owned(),
            netns: netns.to_string_lossy().into_owned(),
            cni_args: Some(attachment.args.clone()).filter(|args| !args.is_empty()),
            capability_args: Some(capabilities).filter(|args| !args.is_empty()),
            result: result.raw.clone(),
        }
    }

    /// What a DEL needs, as it was given to the ADD.
    pub fn attachment(&self) -> Attachment {
        Attachment {
            container_id: self.container_id.clone(),
            netns: Some(PathBuf::from(&self.netns)).filter(|path| !path.as_os_str().is_empty()),
            ifname: self.if_name.clone(),
            args: self.cni_args.clone().unwrap_or_default(),
            // Untyped: other runtimes spell the fields of their arguments in ways that plugins understand too.
            capabilities: Capabilities {
                other: self.capability_args.clone().unwrap_or_default(),
                ..Capabilities::default()
            },
            // libcni's entries do not say.
            engines: Engines::default(),
        }
    }
}

fn path(dir: &Path, network: &Network, attachment: &Attachment) -> PathBuf {
    let (id, ifname) = (&attachment.container_id, &attachment.ifname);
    dir.join("results").join(format!("{}-{id}-{ifname}", network.name()))
}

/// What an entry is written as before it gets its name: one file for each interface of a container, which the DEL
/// finds where the ADD was killed. No network's name begins so.
fn draft(dir: &Path, attachment: &Attachment) -> PathBuf {
    let (id, ifname) = (&attachment.container_id, &attachment.ifname);
    dir.join("results").join(format!(".{id}-{ifname}"))
}

/// Records a result. The entry appears whole or not at all; it need not survive a loss of power, since the
/// attachment does not either. An attachment is added by one caller at a time.
pub(crate) fn write(
    dir: &Path,
    network: &Network,
    attachment: &Attachment,
    result: &CniResult,
) -> Result<()> {
    let entry = CachedAttachment::of(network, attachment, result);
    let target = path(dir, network, attachment);
    let results = dir.join("results");
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&results)
        .map_err(|e| Error::io("create", &results, e))?;
    let draft = draft(dir, attachment);
    let json = serde_json::to_vec(&entry)
        .map_err(|e| Error::io("write", &target, std::io::Error::from(e)))?;
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)
        .and_then(|mut file| file.write_all(&json))
        .and_then(|()| fs::rename(&draft, &target));
    written.map_err(|e| {
        let _ = fs::remove_file(&draft);
        Error::io("write", &target, e)
    })
}

/// The entry of an attachment, if there is a usable one.
pub(crate) fn read(
    dir: &Path,
    network: &Network,
    attachment: &Attachment,
) -> Option<CachedAttachment> {
    let path = path(dir, network, attachment);
    let json = read_entry(&path)?;
    if let Some(entry) = parse(&json) {
        return Some(entry);
    }
    // Before libcni 0.7 the file was the result alone.
    let result: Value = serde_json::from_slice(&json).ok()?;
    let legacy = result.get("cniVersion").is_some() && result.get("kind").is_none();
    legacy.then(|| CachedAttachment {
        kind: KIND.to_owned(),
        container_id: attachment.container_id.clone(),
        config: network.bytes().to_vec(),
        if_name: attachment.ifname.clone(),
        network_name: network.name().to_owned(),
        netns: String::new(),
        cni_args: None,
        capability_args: None,
        result,
    })
}

/// Forgets an attachment, durably, and what a killed ADD left of its entry.
pub(crate) fn remove(dir: &Path, network: &Network, attachment: &Attachment) -> Result<()> {
    let mut removed = false;
    for path in [draft(dir, attachment), path(dir, network, attachment)] {
        match fs::remove_file(&path) {
            Ok(()) => removed = true,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove", &path, e)),
        }
    }
    if removed { lease::sync_dir(&dir.join("results")) } else { Ok(()) }
}

/// Every attachment in the cache, in the order of the file names; what cannot be read is left out.
pub(crate) fn list(dir: &Path) -> Result<Vec<CachedAttachment>> {
    let results = dir.join("results");
    let entries = match fs::read_dir(&results) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read", &results, e)),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let entries = paths.iter().filter_map(|path| parse(&read_entry(path)?));
    Ok(entries.filter(|e| !e.if_name.is_empty() && !e.network_name.is_empty()).collect())
}

/// The same, or an error where one cannot be read: for who has to know all of them.
pub(crate) fn list_all(dir: &Path) -> Result<Vec<CachedAttachment>> {
    let results = dir.join("results");
    let failed = |e| Error::io("read", &results, e);
    let entries = match fs::read_dir(&results) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut all = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // A file under way; its ADD is not done.
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        match read_entry(&path).as_deref().and_then(parse) {
            Some(entry) => all.push(entry),
            // Removed meanwhile, with its attachment.
            None if !path.exists() => {}
            None => {
                let problem = std::io::Error::new(ErrorKind::InvalidData, "no cached attachment");
                return Err(Error::io("read", &path, problem));
            }
        }
    }
    Ok(all)
}

fn read_entry(path: &Path) -> Option<Vec<u8>> {
    let metadata = fs::symlink_metadata(path).ok()?;
    (metadata.is_file() && metadata.len() <= MAX_ENTRY).then(|| fs::read(path).ok())?
}

fn parse(json: &[u8]) -> Option<CachedAttachment> {
    serde_json::from_slice(json).ok().filter(|entry: &CachedAttachment| entry.kind == KIND)
}

/// Go writes a byte slice as a base64 string.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use serde::Deserialize;
    use serde::{Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(d)?.unwrap_or_default();
        BASE64.decode(text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
