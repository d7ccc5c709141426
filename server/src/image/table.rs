//! The images that are here, and every name by which they can be asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snapshotter::LayerId;

use super::config::ImageConfig;
use super::digest::Digest;
use super::gc::Lease;
use super::reference::{Query, Reference, Target};
use super::verify::Proofs;

/// What is kept of an image: one record in the database, under its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Digest of the config blob.
    pub id: Digest,
    /// `registry/repository:tag`.
    pub tags: Vec<String>,
    /// `registry/repository@digest`.
    pub digests: Vec<String>,
    /// Compressed layers and config.
    pub size: u64,
    /// Bottom first; one that occurs twice is here once, topmost.
    layers: Vec<String>,
    /// What the registry's blobs became, where that is not what is mounted; bottom first.
    bases: Vec<String>,
    /// Digest over the stack of layers, as OCI defines it; `None`: no layers.
    pub chain_id: Option<Digest>,
    pub config: ImageConfig,
    /// Documents and blobs kept as files for this image.
    pub files: Vec<Digest>,
    /// What the operator's policy and verifiers may ask for.
    #[serde(default)]
    pub(super) proofs: Proofs,
    /// When it was last pulled, in nanoseconds since 1970.
    pub pulled_at: u64,
}

/// An image that is here. Its layers stay for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Image {
    record: ImageRecord,
    layers: Vec<LayerId>,
    lease: Arc<Lease>,
}

impl std::ops::Deref for Image {
    type Target = ImageRecord;

    fn deref(&self) -> &ImageRecord {
        &self.record
    }
}

impl ImageRecord {
    pub(super) fn new(
        id: Digest,
        layers: &[LayerId],
        bases: &[LayerId],
        config: ImageConfig,
    ) -> Self {
        let bases = bases.iter().filter(|base| !layers.contains(base));
        Self {
            id,
            tags: Vec::new(),
            digests: Vec::new(),
            size: 0,
            layers: layers.iter().map(ToString::to_string).collect(),
            bases: bases.map(ToString::to_string).collect(),
            chain_id: None,
            config,
            files: Vec::new(),
            proofs: Proofs::default(),
            pulled_at: 0,
        }
    }

    /// The layers by name; `None` if the record is damaged.
    pub(super) fn layer_ids(&self) -> Option<Vec<LayerId>> {
        self.layers.iter().map(|layer| layer.parse().ok()).collect()
    }

    /// The layers that are kept for the next image that has them.
    pub(super) fn base_ids(&self) -> Vec<LayerId> {
        self.bases.iter().filter_map(|layer| layer.parse().ok()).collect()
    }

    /// Takes over the names of an earlier record of the same image.
    pub(super) fn inherit(&mut self, earlier: &Self) {
        union(&mut self.tags, &earlier.tags);
        union(&mut self.digests, &earlier.digests);
        self.proofs.inherit(&earlier.proofs);
        for file in &earlier.files {
            if !self.files.contains(file) {
                self.files.push(file.clone());
            }
        }
    }
}

/// Earlier names first: what was pulled first is shown first.
fn union(names: &mut Vec<String>, earlier: &[String]) {
    let new = std::mem::replace(names, earlier.to_vec());
    for name in new {
        if !names.contains(&name) {
            names.push(name);
        }
    }
}

impl Image {
    pub(super) fn new(record: ImageRecord, layers: Vec<LayerId>, lease: Arc<Lease>) -> Self {
        Self { record, layers, lease }
    }

    /// The layers to mount, bottom first.
    pub(crate) fn layers(&self) -> &[LayerId] {
        &self.layers
    }

    /// The same image under another record.
    pub(super) fn with(&self, record: ImageRecord) -> Self {
        Self { record, layers: self.layers.clone(), lease: self.lease.clone() }
    }
}

/// All images by id and by name.
#[derive(Debug, Default)]
pub(super) struct Table {
    images: BTreeMap<Digest, Arc<Image>>,
    names: HashMap<String, Digest>,
}

impl Table {
    /// Adds an image or replaces its record.
    pub(super) fn insert(&mut self, image: Arc<Image>) {
        self.remove(&image.id);
        for name in image.tags.iter().chain(&image.digests) {
            self.names.insert(name.clone(), image.id.clone());
        }
        self.images.insert(image.id.clone(), image);
    }

    pub(super) fn remove(&mut self, id: &Digest) -> Option<Arc<Image>> {
        let image = self.images.remove(id)?;
        for name in image.tags.iter().chain(&image.digests) {
            if self.names.get(name) == Some(id) {
                self.names.remove(name);
            }
        }
        Some(image)
    }

    pub(super) fn get(&self, id: &Digest) -> Option<&Arc<Image>> {
        self.images.get(id)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Arc<Image>> {
        self.names.get(name).and_then(|id| self.images.get(id))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// Finds an image by whatever a client wrote.
    pub(super) fn resolve(&self, text: &str) -> Option<Arc<Image>> {
        match Query::parse(text) {
            Query::Id(id) => self.get(&id).cloned(),
            Query::Name { reference, prefix } => reference
                .and_then(|reference| self.by_reference(&reference))
                .or_else(|| self.by_prefix(&prefix?)),
        }
    }

    /// A digest names the image whether it was pulled by it or by a tag; the manifest of the platform counts as
    /// its index does.
    fn by_reference(&self, reference: &Reference) -> Option<Arc<Image>> {
        match reference.target() {
            Target::Tag(_) => self.named(&reference.to_string()),
            Target::Digest(digest) => self.named(&reference.at(digest)),
        }
        .cloned()
    }

    /// The one image whose id begins so.
    fn by_prefix(&self, hex: &str) -> Option<Arc<Image>> {
        let mut found = self.images.values().filter(|image| image.id.hex().starts_with(hex));
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }
}
