//! Manifests and indexes as registries serve them: Docker's schema 2 and OCI's, told apart strictly.
//!
//! A document that could be read as two kinds is refused (the confusion of GHSA-5j5w-g665-5m35), as are kinds
//! that are no image.

use serde::Deserialize;

use super::config::{MAX_LAYERS, null, object};
use super::digest::{Digest, clip};
use super::error::Error;

/// Largest manifest or index, as in containerd and the distribution project.
pub(super) const MAX_MANIFEST: u64 = 4 << 20;
/// Largest image config.
pub(super) const MAX_CONFIG: u64 = 8 << 20;
/// Most entries of an index.
const MAX_INDEX: usize = 1024;

pub(super) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1";
pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What is asked for, best first.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default, deserialize_with = "null")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// Which machine an image is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default, deserialize_with = "null")]
    pub os: String,
    #[serde(default, deserialize_with = "null")]
    pub architecture: String,
    #[serde(default, deserialize_with = "null")]
    pub variant: String,
}

/// One image's config and layers, bottom first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// A checked document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u64,
    #[serde(default, deserialize_with = "null")]
    media_type: String,
    #[serde(default, deserialize_with = "null")]
    artifact_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Parses a document; `served_as` is the Content-Type it came with, or the type its descriptor gave it.
pub(super) fn parse(bytes: &[u8], served_as: &str) -> Result<Document, Error> {
    let raw: Raw = object(bytes, "manifest")?;
    let served_as = served_as.split(';').next().unwrap_or_default().trim();
    let says = if raw.media_type.is_empty() { served_as } else { raw.media_type.as_str() };
    if raw.schema_version == 1 || raw.fs_layers.is_some() || says.starts_with(DOCKER_SCHEMA1) {
        return Err(Error::Unsupported(
            "a manifest of Docker's schema 1 is no longer supported: push the image again with a current tool".into(),
        ));
    }
    if raw.schema_version != 2 {
        return Err(Error::content("manifest: schemaVersion is not 2"));
    }
    let kinds_differ =
        is_index(says) != is_index(served_as) && is_known(says) && is_known(served_as);
    if kinds_differ || (raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some())) {
        return Err(Error::content(
            "manifest: it is ambiguous whether this is an index or an image",
        ));
    }
    match raw.manifests {
        Some(manifests) if is_index(says) || !is_known(says) => {
            if manifests.len() > MAX_INDEX {
                return Err(Error::content(format!("index: more than {MAX_INDEX} entries")));
            }
            Ok(Document::Index(manifests))
        }
        None if !is_index(says) => {
            let manifest = Manifest {
                config: raw.config.ok_or_else(|| Error::content("manifest: no config"))?,
                layers: raw.layers.unwrap_or_default(),
            };
            check(&manifest, &raw.artifact_type)?;
            Ok(Document::Manifest(manifest))
        }
        _ => Err(Error::content(format!(
            "manifest: its content is not of its type {:?}",
            clip(says)
        ))),
    }
}

/// The type of a document that was accepted once: what it says itself, else what its content makes it. `None`: it is
/// neither manifest nor index.
pub(super) fn media_type(bytes: &[u8]) -> Option<String> {
    let raw: Raw = object(bytes, "manifest").ok()?;
    if is_known(&raw.media_type) {
        return Some(raw.media_type);
    }
    let inferred = match raw.config {
        None if raw.manifests.is_some() => OCI_INDEX,
        Some(config) if config.media_type == DOCKER_CONFIG => DOCKER_MANIFEST,
        Some(_) => OCI_MANIFEST,
        None => return None,
    };
    Some(inferred.to_owned())
}

fn is_index(media_type: &str) -> bool {
    matches!(media_type, DOCKER_LIST | OCI_INDEX)
}

/// Some registries serve manifests as plain JSON: only the four types say anything.
fn is_known(media_type: &str) -> bool {
    is_index(media_type) || matches!(media_type, DOCKER_MANIFEST | OCI_MANIFEST)
}

fn check(manifest: &Manifest, artifact_type: &str) -> Result<(), Error> {
    let config = &manifest.config;
    if !matches!(config.media_type.as_str(), DOCKER_CONFIG | OCI_CONFIG) {
        let kind = if artifact_type.is_empty() { &config.media_type } else { artifact_type };
        return Err(Error::Unsupported(format!(
            "this is an artifact of type {:?}, not a container image",
            clip(kind)
        )));
    }
    if config.size > MAX_CONFIG {
        return Err(Error::content(format!(
            "manifest: the config is larger than {MAX_CONFIG} bytes"
        )));
    }
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Error::content(format!("manifest: more than {MAX_LAYERS} layers")));
    }
    manifest.layers.iter().try_for_each(|layer| check_layer(&layer.media_type))
}

/// How a layer is compressed is read from its first bytes, since tools often mislabel it; here only what
/// cannot be unpacked is told apart.
fn check_layer(media_type: &str) -> Result<(), Error> {
    if media_type.contains("foreign") || media_type.contains("nondistributable") {
        return Err(Error::Unsupported(
            "foreign layers (kept outside the registry) are not supported".into(),
        ));
    }
    if media_type.contains("encrypted") {
        return Err(Error::Unsupported("encrypted layers are not supported".into()));
    }
    let layer = media_type.starts_with("application/vnd.oci.image.layer.v1.tar")
        || media_type.starts_with("application/vnd.docker.image.rootfs.diff.tar");
    if !layer {
        return Err(Error::Unsupported(format!(
            "a layer of type {:?} cannot be unpacked",
            clip(media_type)
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn image(config_type: &str, layer_type: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",
            "config":{{"mediaType":"{config_type}","digest":"{D}","size":1}},
            "layers":[{{"mediaType":"{layer_type}","digest":"{D}","size":2}}]}}"#
        )
    }

    #[test]
    fn reads_both_families() {
        let text = image(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+zstd");
        assert!(matches!(parse(text.as_bytes(), OCI_MANIFEST), Ok(Document::Manifest(_))));
        let text = image(DOCKER_CONFIG, "application/vnd.docker.image.rootfs.diff.tar.gzip");
        assert!(parse(text.as_bytes(), "application/json; charset=utf-8").is_ok());
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{D}","size":3,
            "platform":{{"os":"linux","architecture":"arm64"}}}}]}}"#
        );
        let Ok(Document::Index(entries)) = parse(index.as_bytes(), OCI_INDEX) else { panic!() };
        assert_eq!(entries[0].platform.as_ref().unwrap().architecture, "arm64");
        assert!(parse(index.as_bytes(), "text/plain").is_ok());
    }

    #[test]
    fn the_type_of_a_document_that_names_none() {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let mute = |config| {
            let text = image(config, layer);
            text.replace(&format!(r#""mediaType":"{OCI_MANIFEST}","#), "").into_bytes()
        };
        for (bytes, expected) in [
            (image(DOCKER_CONFIG, layer).into_bytes(), Some(OCI_MANIFEST)),
            (mute(DOCKER_CONFIG), Some(DOCKER_MANIFEST)),
            (mute(OCI_CONFIG), Some(OCI_MANIFEST)),
            (br#"{"schemaVersion":2,"manifests":[]}"#.to_vec(), Some(OCI_INDEX)),
            (br#"{"architecture":"amd64"}"#.to_vec(), None),
            (b"no JSON".to_vec(), None),
        ] {
            assert_eq!(media_type(&bytes).as_deref(), expected);
        }
    }

    #[test]
    fn refuses_other_kinds_and_ambiguity_with_a_clear_word() {
        let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
        let both = image(OCI_CONFIG, layer).replace(r#""layers""#, r#""manifests":[],"layers""#);
        for (text, served_as, word) in [
            (image("application/vnd.cncf.helm.config.v1+json", layer), OCI_MANIFEST, "artifact"),
            (
                image(OCI_CONFIG, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
                "",
                "foreign",
            ),
            (
                image(OCI_CONFIG, "application/vnd.oci.image.layer.nondistributable.v1.tar"),
                "",
                "foreign",
            ),
            (
                image(OCI_CONFIG, "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
                "",
                "encrypted",
            ),
            (image(OCI_CONFIG, "text/html"), "", "text/html"),
            (both, OCI_MANIFEST, "ambiguous"),
            (image(OCI_CONFIG, layer), OCI_INDEX, "ambiguous"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "", "schema 1"),
            (r#"{"schemaVersion":2}"#.into(), OCI_INDEX, "not of its type"),
            (r#"{"schemaVersion":2}"#.into(), OCI_MANIFEST, "no config"),
            (r#"{"schemaVersion":3}"#.into(), "", "schemaVersion"),
            ("<html>".into(), "", "manifest"),
        ] {
            let err = parse(text.as_bytes(), served_as).unwrap_err().to_string();
            assert!(err.contains(word), "{err}");
        }
    }
}
