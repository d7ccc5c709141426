//! Images whose records are lost with every copy, made again from what is kept of them as files.
//!
//! Beside manifests and configs lies a label for each image: its names, and what else only its record knew. It is
//! written after the record and removed before it, so that a label without a record tells of a lost record, never of a
//! removal that was cut off. Where the database itself is new, an image without a label comes back as well, by its id:
//! nobody knows its names. An image comes back only if its manifest, its config and all of its layers are here.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config;
use super::content::Content;
use super::digest::Digest;
use super::error::Error;
use super::gc::Layers;
use super::manifest::{self, Document, Manifest};
use super::pull::{chain_id, stack};
use super::table::ImageRecord;
use super::verify::Proofs;

/// Below the directory of files by digest.
const LABELS: &str = "labels";

/// What the files of an image do not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    tags: Vec<String>,
    digests: Vec<String>,
    files: Vec<Digest>,
    proofs: Proofs,
    pulled_at: u64,
}

impl Label {
    fn of(record: &ImageRecord) -> Self {
        Self {
            tags: record.tags.clone(),
            digests: record.digests.clone(),
            files: record.files.clone(),
            proofs: record.proofs.clone(),
            pulled_at: record.pulled_at,
        }
    }
}

fn path(content: &Content, id: &Digest) -> PathBuf {
    content.dir().join(LABELS).join(id.as_str())
}

/// Writes an image's label; one that cannot be written is done without. One at a time. Blocks.
pub(super) fn keep(content: &Content, record: &ImageRecord) {
    let path = path(content, &record.id);
    let draft = content.dir().join("ingest").join("label");
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(content.dir().join(LABELS))?;
        fs::write(&draft, serde_json::to_vec(&Label::of(record))?)?;
        fs::rename(&draft, &path)
    };
    if let Err(err) = write() {
        tracing::warn!(%err, image = %record.id, "label of an image not kept");
    }
}

/// Removes a label, durably, since a record that goes after it must not come back by it when power fails; no error if
/// there is none. Blocks.
pub(super) fn forget(content: &Content, id: &Digest) -> Result<(), Error> {
    let path = path(content, id);
    match fs::remove_file(&path) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(Error::io("remove", &path))?,
    }
    let dir = content.dir().join(LABELS);
    fs::File::open(&dir).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", &dir))
}

fn labels(content: &Content) -> HashMap<Digest, Label> {
    let entries = fs::read_dir(content.dir().join(LABELS)).into_iter().flatten().flatten();
    let one = |entry: fs::DirEntry| {
        let id = Digest::parse(entry.file_name().to_str()?)?;
        Some((id, serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?))
    };
    entries.filter_map(one).collect()
}

/// The records that are missing among `records`. `all`: those of images without a label, too. Sees to it that every
/// other image has its label. Blocks, for start-up; reads nothing but labels where nothing is missing.
pub(super) fn lost(
    content: &Content,
    layers: &Arc<Layers>,
    records: &[ImageRecord],
    all: bool,
) -> Vec<ImageRecord> {
    let mut labels = labels(content);
    for record in records {
        if labels.remove(&record.id) != Some(Label::of(record)) {
            keep(content, record);
        }
    }
    if labels.is_empty() && !all {
        return Vec::new();
    }
    let known: HashSet<&Digest> = records.iter().flat_map(|record| &record.files).collect();
    let mut found: HashMap<Digest, ImageRecord> = HashMap::new();
    for file in content.list().unwrap_or_default().iter().filter(|file| !known.contains(file)) {
        let Some(manifest) = read(content, file) else { continue };
        let id = &manifest.config.digest;
        let label = labels.get(id).cloned();
        if (label.is_none() && !all) || found.contains_key(id) {
            continue;
        }
        match record(content, layers, file, &manifest, label) {
            Ok(record) => {
                tracing::warn!(image = %record.id, tags = ?record.tags, "a lost record was made again");
                found.insert(record.id.clone(), record);
            }
            Err(err) => tracing::warn!(%err, image = %id, "an image without a record stays so"),
        }
    }
    found.into_values().collect()
}

/// The manifest of an image, if that is what the file is.
fn read(content: &Content, file: &Digest) -> Option<Manifest> {
    let bytes = content.read(file, manifest::MAX_MANIFEST)?;
    match manifest::parse(&bytes, "").ok()? {
        Document::Manifest(manifest) => Some(manifest),
        Document::Index(_) => None,
    }
}

fn record(
    content: &Content,
    layers: &Arc<Layers>,
    file: &Digest,
    manifest: &Manifest,
    label: Option<Label>,
) -> Result<ImageRecord, Error> {
    let id = &manifest.config.digest;
    let bytes = content.read(id, manifest::MAX_CONFIG);
    let bytes = bytes.ok_or_else(|| Error::content("its config is not here"))?;
    let parsed = config::parse(&bytes)?;
    let wanted = stack(manifest, &parsed)?;
    let alone: Vec<_> = wanted.into_iter().map(|wanted| wanted.layer).collect();
    if let Some(missing) = alone.iter().find(|layer| !layers.has(layer)) {
        return Err(Error::Snapshot(format!("layer {missing} is not here")));
    }
    let (settled, _lease) = layers.settle(&alone)?;
    let chain_id = chain_id(&parsed.diff_ids);
    let mut record = ImageRecord::new(id.clone(), &settled, &alone, parsed.config);
    record.size =
        manifest.layers.iter().map(|layer| layer.size).sum::<u64>() + manifest.config.size;
    record.chain_id = chain_id;
    record.files = vec![file.clone(), id.clone()];
    if let Some(Label { tags, digests, files, proofs, pulled_at }) = label {
        record.tags = tags;
        record.digests = digests;
        record.files = files;
        record.proofs = proofs;
        record.pulled_at = pulled_at;
    }
    Ok(record)
}
