//! An image whose blobs are gone: the layers concerned are made of their files, and config and manifest tell of them.
//!
//! What is imported from it has equal root file systems and other digests, the id included. The same layers give the
//! same bytes each time. They are read twice, once for their digest and once to be sent, so that none of it needs
//! room on the disk.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use serde_json::{Value, json};
use snapshotter::LayerId;

use super::super::config::object;
use super::super::digest::{Algorithm, Digest, Hasher};
use super::super::error::Error;
use super::super::manifest::{DOCKER_CONFIG, Descriptor, MAX_MANIFEST, Manifest};
use super::super::pull::{Wanted, blocking};
use super::super::{Inner, manifest};
use super::Documents;

const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A layer that is sent as an archive of its files, and what that is.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) layer: LayerId,
    pub(super) descriptor: Descriptor,
}

/// The layers to make, by the digests of their blobs.
pub(super) type Gone = HashMap<Digest, Made>;

/// Reads every layer of `gone` once, to know what its archive is.
pub(super) async fn measure(
    inner: &Arc<Inner>,
    stack: &[Wanted],
    gone: &[Digest],
    of_docker: bool,
) -> Result<Gone, Error> {
    let media_type = if of_docker { DOCKER_LAYER } else { OCI_LAYER };
    let mut made = Gone::new();
    for wanted in stack.iter().filter(|wanted| gone.contains(&wanted.descriptor.digest)) {
        let (layers, layer) = (inner.layers.clone(), wanted.layer.clone());
        let measured = blocking(move || {
            let mut measure = Measure { hasher: Hasher::new(Algorithm::Sha256), size: 0 };
            let read = layers.snapshotter().archive(&layer, &mut measure);
            read.map_err(|err| Error::Snapshot(format!("layer {layer}: {err}")))?;
            Ok((measure.hasher.finish(), measure.size))
        });
        let (digest, size) = measured.await?;
        let descriptor = Descriptor { media_type: media_type.into(), digest, size, platform: None };
        let blob = wanted.descriptor.digest.clone();
        made.insert(blob, Made { layer: wanted.layer.clone(), descriptor });
    }
    Ok(made)
}

struct Measure {
    hasher: Hasher,
    size: u64,
}

impl Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The documents of the image that has those layers in the places of what is gone. An index above them would name
/// the old one, so there is none.
pub(super) fn documents(old: &Documents, gone: &Gone) -> Result<Documents, Error> {
    let [.., (_, manifest), (_, config)] = &old.all[..] else {
        return Err(Error::content("the image has no documents"));
    };
    let mut config: Value = object(config, "image config")?;
    let diff_ids = config["rootfs"]["diff_ids"].as_array_mut().into_iter().flatten();
    for (diff_id, layer) in diff_ids.zip(&old.manifest.layers) {
        if let Some(made) = gone.get(&layer.digest) {
            // Uncompressed: the blob is the content.
            *diff_id = json!(made.descriptor.digest);
        }
    }
    let config = config.to_string().into_bytes();
    let described = |mut value: Value, descriptor: &Descriptor| {
        value["mediaType"] = json!(descriptor.media_type);
        value["digest"] = json!(descriptor.digest);
        value["size"] = json!(descriptor.size);
        value
    };
    let mut manifest: Value = object(manifest, "manifest")?;
    let config_is = Descriptor {
        digest: Digest::sha256(&config),
        size: config.len() as u64,
        ..old.manifest.config.clone()
    };
    manifest["config"] = described(manifest["config"].take(), &config_is);
    let layers = manifest["layers"].as_array_mut().into_iter().flatten();
    for (value, layer) in layers.zip(&old.manifest.layers) {
        if let Some(made) = gone.get(&layer.digest) {
            *value = described(value.take(), &made.descriptor);
        }
    }
    let bytes = manifest.to_string().into_bytes();
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Error::content("the manifest becomes too large"));
    }
    let layers = old.manifest.layers.iter().map(|layer| {
        gone.get(&layer.digest).map_or_else(|| layer.clone(), |made| made.descriptor.clone())
    });
    let media_type = match of_docker(&old.manifest) {
        true => manifest::DOCKER_MANIFEST,
        false => manifest::OCI_MANIFEST,
    };
    let top = Descriptor {
        media_type: media_type.into(),
        digest: Digest::sha256(&bytes),
        size: bytes.len() as u64,
        platform: None,
    };
    let manifest = Manifest { config: config_is.clone(), layers: layers.collect() };
    let all = vec![(top.digest.clone(), bytes), (config_is.digest, config)];
    Ok(Documents { top, manifest, all })
}

/// Which family of types the image is of.
pub(super) fn of_docker(manifest: &Manifest) -> bool {
    manifest.config.media_type == DOCKER_CONFIG
}

/// Sends what a layer writes, and hashes it.
pub(super) struct Sending<'a> {
    to: &'a super::Sender,
    hasher: Hasher,
}

impl<'a> Sending<'a> {
    pub(super) fn new(to: &'a super::Sender) -> Self {
        Self { to, hasher: Hasher::new(Algorithm::Sha256) }
    }

    /// What it was.
    pub(super) fn is(&self) -> Digest {
        self.hasher.clone().finish()
    }
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::ErrorKind::BrokenPipe.into();
        self.hasher.update(bytes);
        let piece = super::Sent::Data(bytes.to_vec().into());
        self.to.blocking_send(Ok(piece)).map(|()| bytes.len()).map_err(gone)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
