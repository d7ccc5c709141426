//! An image's life: it is pulled, it is whole, it is removed, and its files are gone.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use anyhow::{bail, ensure};
use e2e::World;
use e2e::cri::{ImageSpec, ImageStatusRequest, RemoveImageRequest};
use e2e::image::catalogue::LAYERS;
use tonic::Status;

use crate::node::Node;

const TRIES: usize = 12;
/// What only an image's files are in.
const STORED: &[&str] = &["images/ingest", "images/sha256", "snapshots/layers", "snapshots/ingest"];
/// What is there waits to be deleted.
const TRASH: &str = "snapshots/trash";

/// Everything that is stored of images, by name, size, mode and owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored(BTreeSet<String>);

impl Stored {
    pub(crate) fn now(world: &World) -> Self {
        let mut found = BTreeSet::new();
        for dir in STORED {
            let root = world.path("root").join(dir);
            list(&root, &root, dir, &mut found);
        }
        Self(found)
    }
}

fn list(root: &Path, dir: &Path, under: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(data) = std::fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        // What the snapshotter writes of a layer may differ in nothing but its name.
        let size = if data.is_file() { data.size() } else { 0 };
        found.insert(format!(
            "{under}/{name} {size} {:o} {}:{}",
            data.mode(),
            data.uid(),
            data.gid()
        ));
        if data.is_dir() {
            list(root, &path, under, found);
        }
    }
}

/// Pulls and removes; returns how many calls failed and were tried again. `whole` is how it has to look in between,
/// and is learned at the first time.
pub(crate) fn live(node: &mut Node, whole: &mut Option<Stored>) -> anyhow::Result<usize> {
    let before = Stored::now(&node.world);
    let mut retries = 0;
    until(node, "pull", &mut retries, |world| {
        world.try_pull(LAYERS)?;
        present(world)
    })?;
    let pulled = Stored::now(&node.world);
    match whole {
        Some(whole) => differ("pulled", whole, &pulled)?,
        None => *whole = Some(pulled),
    }
    until(node, "remove", &mut retries, |world| {
        let image = Some(ImageSpec { image: LAYERS.into(), ..Default::default() });
        world.client.remove_image(RemoveImageRequest { image })?;
        Ok(!present(world)?)
    })?;
    let start = Instant::now();
    loop {
        let after = Stored::now(&node.world);
        let trash = std::fs::read_dir(node.world.path("root").join(TRASH))?.count();
        if after == before && trash == 0 {
            return Ok(retries);
        }
        if start.elapsed() > e2e::poll::LIMIT {
            differ("residue: removed", &before, &after)?;
            bail!("residue: {trash} things in the trash");
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
        node.revive()?;
    }
}

fn present(world: &World) -> Result<bool, Status> {
    let image = Some(ImageSpec { image: LAYERS.into(), ..Default::default() });
    let status = world.client.image_status(ImageStatusRequest { image, verbose: false })?;
    Ok(status.image.is_some())
}

fn until(
    node: &mut Node,
    what: &str,
    retries: &mut usize,
    step: impl Fn(&World) -> Result<bool, Status>,
) -> anyhow::Result<()> {
    let mut said = Vec::new();
    for _ in 0..TRIES {
        match step(&node.world) {
            Ok(true) => return Ok(()),
            Ok(false) => said.push("it is not so".to_owned()),
            Err(status) => {
                *retries += 1;
                said.push(status.to_string());
                node.revive()?;
            }
        }
    }
    bail!("{what}: not in {TRIES} tries: {}", said.join("; "))
}

fn differ(what: &str, wanted: &Stored, found: &Stored) -> anyhow::Result<()> {
    let missing: Vec<_> = wanted.0.difference(&found.0).cloned().collect();
    let more: Vec<_> = found.0.difference(&wanted.0).cloned().collect();
    ensure!(
        missing.is_empty() && more.is_empty(),
        "{what}: missing: {}; too many: {}",
        missing.join(", "),
        more.join(", ")
    );
    Ok(())
}
