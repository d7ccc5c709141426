//! What registries, archives and clients say of images, as targets of `crate::fuzz`.

use std::fs::File;
use std::io::Write;

use super::archive::Archive;
use super::config::{self, ImageUser, MAX_LAYERS};
use super::manifest::{self, Document};
use super::platform::Supported;
use super::pull::stack;
use super::reference::Reference;

/// A reference.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = Reference::parse(text) else { return };
    let written = reference.to_string();
    assert_eq!(Reference::parse(&written).as_ref(), Ok(&reference), "as it is written");
    // The one names a directory of hosts.toml, both are parts of URLs.
    let registry = reference.registry();
    assert!(!registry.contains(['/', '\\', '\0', '?', '#', '@', ' ']), "{registry:?}");
    assert!(!matches!(registry, "" | "." | ".."), "{registry:?}");
    let parts = reference.repository().split('/');
    for part in parts {
        assert!(!matches!(part, "" | "." | ".."), "{written:?}");
        assert!(!part.contains(['\\', '\0', '?', '#', '%', '@', ' ']), "{written:?}");
    }
}

/// A line with the type that a document is served as, the document, a NUL, an image config.
pub(crate) fn documents(data: &[u8]) {
    let (kind, rest) = halves(data, b'\n');
    let (document, config) = halves(rest, 0);
    let kind = String::from_utf8_lossy(kind);
    let parsed = config::parse(config);
    match manifest::parse(document, &kind) {
        Ok(Document::Index(entries)) => {
            if let Some(chosen) = Supported::host().choose(&entries) {
                assert!(entries.contains(chosen));
            }
        }
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= MAX_LAYERS);
            assert!(manifest.config.size <= manifest::MAX_CONFIG);
            if let Ok(parsed) = &parsed
                && let Ok(wanted) = stack(&manifest, parsed)
            {
                assert_eq!(wanted.len(), manifest.layers.len());
            }
        }
        Err(err) => drop(err.to_string()),
    }
    let Ok(parsed) = parsed else { return };
    let config = parsed.config;
    let words = config.env.iter().chain(&config.entrypoint).chain(&config.cmd);
    let words = words.chain([&config.working_dir, &config.user]).chain(&config.volumes);
    assert!(words.chain(&config.exposed_ports).all(|word| !word.contains('\0')));
    if let Some(ImageUser::Uid(uid)) = config.image_user() {
        assert!(
            i32::try_from(uid).is_ok() && config.user.starts_with(|c: char| c.is_ascii_digit())
        );
    }
}

/// An archive of images, which is a tar file.
pub(crate) fn archive(data: &[u8]) {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let Ok(memory) = rustix::fs::memfd_create("archive", flags) else { return };
    let mut file = File::from(memory);
    if file.write_all(data).is_err() {
        return;
    }
    let Ok(archive) = Archive::tar(file, &Supported::host()) else { return };
    for image in archive.images() {
        let bytes = &image.top.bytes;
        assert!(image.top.digest.matches(bytes), "what is named by a digest has it");
        if let Ok(Document::Manifest(manifest)) = manifest::parse(bytes, &image.top.media_type) {
            for descriptor in manifest.layers.iter().chain([&manifest.config]) {
                if let Ok(piece) = archive.blob(descriptor) {
                    assert_eq!(piece.len(), descriptor.size);
                }
                archive.document(descriptor, manifest::MAX_CONFIG).ok();
            }
        }
    }
}

/// What is before and after the first such byte.
fn halves(data: &[u8], at: u8) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == at) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
