//! OCI image layouts: `oci-layout`, `index.json` and `blobs/<algorithm>/<hex>`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::config::object;
use super::super::digest::clip;
use super::super::error::Error;
use super::super::manifest::{Descriptor, MAX_MANIFEST};
use super::super::platform::Supported;
use super::super::reference::Reference;
use super::{Archive, Listed, Name};

/// The file that makes a directory a layout.
pub(super) const MARK: &str = "oci-layout";
const INDEX: &str = "index.json";
/// Largest mark.
const MAX_MARK: u64 = 4096;
/// Whole names, as containerd, Docker and nerdctl write them.
const WHOLE_NAME: &str = "io.containerd.image.name";
/// The specification's: a tag, or a whole name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// The images of a layout, one for each name.
pub(super) fn list(archive: &Archive, platform: &Supported) -> Result<Vec<Listed>, Error> {
    let needed = |name: &'static str, cap| match archive.find(name)? {
        Some(piece) => piece.read(name, cap),
        None => Err(Error::content(format!("the archive has no {name}"))),
    };
    let mark: Mark = object(&needed(MARK, MAX_MARK)?, MARK)?;
    if !mark.image_layout_version.starts_with("1.") {
        let version = clip(&mark.image_layout_version);
        return Err(Error::Unsupported(format!("OCI image layouts of version {version:?}")));
    }
    let index: Index = object(&needed(INDEX, MAX_MANIFEST)?, INDEX)?;
    let mut groups: Vec<(Name, Vec<Descriptor>)> = Vec::new();
    for entry in index.manifests {
        let name = name(&entry)?;
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(entry.descriptor),
            None => groups.push((name, vec![entry.descriptor])),
        }
    }
    groups.into_iter().map(|(name, group)| one(archive, platform, name, &group)).collect()
}

/// Some tools list an image's platforms here instead of in an index of its own.
fn one(
    archive: &Archive,
    platform: &Supported,
    name: Name,
    group: &[Descriptor],
) -> Result<Listed, Error> {
    let chosen = match group {
        [only] => Some(only),
        several => platform.choose(several),
    };
    let none = || Error::Unsupported(format!("the archive has nothing for {}", platform.name()));
    Ok(Listed { name, top: archive.top(chosen.ok_or_else(none)?)? })
}

fn name(entry: &Entry) -> Result<Name, Error> {
    let Some(annotations) = &entry.annotations else { return Ok(Name::Nothing) };
    let parse = |text: &str| Ok::<_, Error>(Name::Reference(Reference::parse(text)?));
    match (annotations.get(WHOLE_NAME), annotations.get(REF_NAME)) {
        (Some(whole), _) => parse(whole),
        (None, Some(name)) if name.contains(['/', ':']) => parse(name),
        (None, Some(tag)) => Ok(Name::Tag(tag.clone())),
        (None, None) => Ok(Name::Nothing),
    }
}
