//! What `docker save` writes: `manifest.json` lists configs and layers by file name.
//!
//! Such an archive has no manifest, and so no digest that a registry would know. One is made, byte for byte as
//! containerd makes it at its import, so that the digest is the same there and here: Docker's schema 2 over the
//! config and the layers as they lie in the archive.

use serde::{Deserialize, Serialize};

use super::super::config;
use super::super::digest::{Algorithm, Digest, Hasher, clip};
use super::super::error::Error;
use super::super::manifest::{DOCKER_CONFIG, DOCKER_MANIFEST, MAX_CONFIG, MAX_MANIFEST};
use super::super::reference::Reference;
use super::{Archive, Listed, Name, Piece, Top};

/// The list of images.
pub(super) const LIST: &str = "manifest.json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const COMPRESSED_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// In the order in which containerd writes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Described<'a>,
    layers: Vec<Described<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
}

/// The images of the archive, one for each of their tags.
pub(super) fn list(archive: &mut Archive, list: &Piece) -> Result<Vec<Listed>, Error> {
    let items: Vec<Item> = serde_json::from_slice(&list.read(LIST, MAX_MANIFEST)?)
        .map_err(|err| Error::content(format!("{LIST}: {}", clip(&err.to_string()))))?;
    let mut images = Vec::new();
    for item in items {
        let top = manifest(archive, &item)?;
        let tags = item.repo_tags.unwrap_or_default();
        for tag in &tags {
            let name = Name::Reference(Reference::parse(tag)?);
            images.push(Listed { name, top: top.clone() });
        }
        if tags.is_empty() {
            images.push(Listed { name: Name::Nothing, top });
        }
    }
    Ok(images)
}

fn manifest(archive: &mut Archive, item: &Item) -> Result<Top, Error> {
    let needed = |archive: &Archive, name: &str| {
        let missing = || Error::content(format!("the archive has no {:?}", clip(name)));
        archive.find(name)?.ok_or_else(missing)
    };
    let config = needed(archive, &item.config)?.read("the image config", MAX_CONFIG)?;
    let diff_ids = config::parse(&config)?.diff_ids;
    let files = item.layers.as_deref().unwrap_or_default();
    if files.len() != diff_ids.len() {
        return Err(Error::content(format!(
            "{LIST} has {} layers, the image config {}",
            files.len(),
            diff_ids.len()
        )));
    }
    let mut layers = Vec::new();
    for (name, diff_id) in files.iter().zip(diff_ids) {
        let piece = needed(archive, name)?;
        let size = piece.len();
        let (media_type, digest) = match piece.magic()? {
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd] => (COMPRESSED_LAYER, hash(piece)?),
            // The diff id is the digest of just these bytes, and whoever unpacks them holds it against them.
            _ => (LAYER, diff_id),
        };
        archive.by_digest.insert(digest.clone(), name.clone());
        layers.push(Described { media_type, digest, size });
    }
    let digest = Digest::sha256(&config);
    archive.by_digest.insert(digest.clone(), item.config.clone());
    let config = Described { media_type: DOCKER_CONFIG, digest, size: config.len() as u64 };
    let media_type = DOCKER_MANIFEST;
    let written = Written { schema_version: 2, media_type, config, layers };
    let bytes = serde_json::to_vec(&written).map_err(|err| Error::Internal(err.to_string()))?;
    Ok(Top { digest: Digest::sha256(&bytes), media_type: media_type.to_owned(), bytes })
}

fn hash(mut piece: Piece) -> Result<Digest, Error> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    while let Some(bytes) = piece.next()? {
        hasher.update(&bytes);
    }
    Ok(hasher.finish())
}
