//! Image volumes: an image, or a directory in it, that a container sees read-only.
//!
//! Each is a read-only snapshot, planned and released like the container's own. Like its root file system it is
//! mounted by the shim, in a mount namespace that ends with the OCI runtime's create, at [`source`], from where the
//! spec binds it: on the host it is mounted nowhere and never. A sub path is looked up here, in the layers, by a
//! walk that cannot leave the image; what is mounted then are the directories that make it up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snapshotter::mount::{Kind, Mount};
use snapshotter::{LayerId, Snapshotter};

use super::config::{self, ContainerConfig};
use super::facts;
use super::node::Node;
use super::relabel::relabel;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::image::Image;
use crate::resource::Resource;

/// What a record keeps of a volume.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    /// Which of the configuration's mounts it is.
    pub mount: usize,
    /// Id of the image, as a pull answers with it.
    pub image: String,
    /// Bottom first.
    pub layers: Vec<String>,
}

impl Volume {
    /// The layers by name; one that is no name is damage, and nobody's layer.
    pub(crate) fn layer_ids(&self) -> impl Iterator<Item = LayerId> {
        self.layers.iter().filter_map(|layer| layer.parse().ok())
    }
}

/// A volume's image, found.
#[derive(Debug)]
pub(super) struct Wanted {
    mount: usize,
    image: Arc<Image>,
}

/// The images that the mounts name.
///
/// # Errors
/// For one that is not here, in words that the kubelet knows.
pub(super) fn images(node: &Node, config: &ContainerConfig) -> Result<Vec<Wanted>> {
    let of = |(mount, asked): (usize, &config::Mount)| {
        let name = &asked.image.as_ref()?.image;
        Some(match node.images.resolve(name) {
            Some(image) => Ok(Wanted { mount, image }),
            None => Err(failed(mount, format!("image {name:?}: not found"))),
        })
    };
    config.mounts.iter().enumerate().filter_map(of).collect()
}

/// Whether the node's operator lets them be used.
///
/// # Errors
/// For the first that may not, in words that the kubelet knows.
pub(super) async fn permit(node: &Node, config: &ContainerConfig, wanted: &[Wanted]) -> Result<()> {
    for Wanted { mount, image } in wanted {
        let Some(spec) = &config.mounts[*mount].image else { continue };
        let permitted = node.images.permit(image, &spec.image, &spec.user_specified_image).await;
        permitted.map_err(|err| failed(*mount, err))?;
    }
    Ok(())
}

/// Every layer that the volumes need.
pub(super) fn layers(wanted: &[Wanted]) -> impl Iterator<Item = LayerId> {
    wanted.iter().flat_map(|wanted| wanted.image.layers().iter().cloned())
}

/// What the volumes will hold.
pub(super) fn plan(id: &ContainerId, wanted: &[Wanted]) -> Vec<Resource> {
    wanted.iter().map(|wanted| Resource::Snapshot { key: key(id, wanted.mount) }).collect()
}

/// Makes the snapshots, and sees to it that each sub path is there. Blocks.
pub(super) fn prepare(
    snapshotter: &Snapshotter,
    id: &ContainerId,
    config: &ContainerConfig,
    wanted: &[Wanted],
    label: Option<&str>,
) -> Result<Vec<Volume>> {
    let one = |wanted: &Wanted| {
        let Wanted { mount, image } = wanted;
        let because = |err: String| failed(*mount, err);
        let view = snapshotter.view(&key(id, *mount), image.layers());
        let mounts = view.map_err(|err| because(err.to_string()))?;
        if let Some(label) = label {
            relabel_copies(snapshotter, &mounts, label).map_err(because)?;
        }
        at_sub_path(mounts, &config.mounts[*mount].image_sub_path, &snapshotter.empty())
            .map_err(|err| because(err.to_string()))?;
        let layers = image.layers().iter().map(ToString::to_string).collect();
        Ok(Volume { mount: *mount, image: image.id.to_string(), layers })
    };
    wanted.iter().map(one).collect()
}

/// Labels what was copied for one container alone; an overlay is mounted with its label. Blocks.
pub(super) fn relabel_copies(
    snapshotter: &Snapshotter,
    mounts: &[Mount],
    label: &str,
) -> Result<(), String> {
    let of_all = snapshotter.empty();
    let mut copies = mounts.iter().filter(|mount| mount.kind == Kind::Bind);
    copies.try_for_each(|copy| match copy.source == of_all {
        true => Ok(()),
        false => relabel(&copy.source, label, &|| false),
    })
}

/// Where the spec binds the volume from.
pub(super) fn source(bundle: &Path, mount: usize) -> PathBuf {
    bundle.join("volumes").join(mount.to_string())
}

/// What the shim mounts, and where. Blocks.
pub(super) fn mounts(
    snapshotter: &Snapshotter,
    container: &super::Fixed,
) -> Result<Vec<(Mount, PathBuf)>> {
    let mut all = Vec::new();
    for volume in &container.volumes {
        let key = key(&container.id, volume.mount);
        let because = |err: String| failed(volume.mount, err);
        let view = snapshotter
            .mounts(&key)
            .map_err(|err| because(err.to_string()))?
            .ok_or_else(|| because(format!("snapshot {key} is gone")))?;
        let sub_path = &container.config.mounts[volume.mount].image_sub_path;
        let view = at_sub_path(view, sub_path, &snapshotter.empty());
        let view = view.map_err(|err| because(err.to_string()))?;
        all.extend(view.into_iter().map(|mount| (mount, source(&container.bundle, volume.mount))));
    }
    Ok(all)
}

fn key(id: &ContainerId, mount: usize) -> String {
    format!("{id}-volume-{mount}")
}

/// The kubelet knows this failure by its first word.
fn failed(mount: usize, why: impl std::fmt::Display) -> Error {
    Error::Image(format!("ImageVolumeMountFailed: mounts[{mount}]: {why}"))
}

/// The same view from a directory below its root; `empty` has nothing in it.
fn at_sub_path(mounts: Vec<Mount>, sub_path: &str, empty: &Path) -> Result<Vec<Mount>> {
    if sub_path.is_empty() {
        return Ok(mounts);
    }
    let one = |mut mount: Mount| {
        let roots = directories(&mount);
        let missing = || Error::invalid("image_sub_path", format!("{sub_path:?} is no directory"));
        let mut found = facts::image_directory(&roots, Path::new(sub_path))?.ok_or_else(missing)?;
        match (&mount.kind, found.len()) {
            // A read-only overlay takes two directories at least. It stays one: a label can be laid over its files.
            (Kind::Overlay, 1) => found.push(empty.to_owned()),
            (Kind::Overlay, _) => {}
            _ => return Ok(found.pop().map_or(mount, |only| Mount::bind(only, true))),
        }
        mount.layers = found;
        Ok(mount)
    };
    mounts.into_iter().map(one).collect()
}

/// Where the files of a mount can be read without mounting it, topmost first.
pub(super) fn directories(mount: &Mount) -> Vec<PathBuf> {
    match mount.kind {
        Kind::Overlay => mount.layers.clone(),
        Kind::Bind | Kind::Other(_) => vec![mount.source.clone()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_is_made_of_the_layers_that_have_it() {
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "middle", "bottom"].map(|l| dir.path().join(l)).into();
        for (layer, path) in [(0, "a/b"), (1, "x"), (2, "a/b/c"), (2, "only")] {
            std::fs::create_dir_all(layers[layer].join(path)).unwrap();
        }
        std::fs::write(layers[0].join("file"), "").unwrap();
        std::os::unix::fs::symlink("/../../a", layers[0].join("link")).unwrap();
        std::os::unix::fs::symlink(dir.path(), layers[0].join("out")).unwrap();
        let overlay =
            Mount { kind: Kind::Overlay, layers: layers.clone(), ..Mount::bind("", true) };
        let empty = dir.path().join("empty");
        let of = |mount: &Mount, path: &str| {
            at_sub_path(vec![mount.clone()], path, &empty).map(|mounts| mounts[0].clone())
        };
        let at = |path: &str| of(&overlay, path);
        assert_eq!(at("").unwrap(), overlay);
        for path in ["a/b", "/a/./b", "link/b", "../a/b", "a/b/c/.."] {
            let both = [layers[0].join("a/b"), layers[2].join("a/b")];
            assert_eq!(at(path).unwrap().layers, both, "{path}");
        }
        let only = at("only").unwrap();
        assert_eq!(only.kind, Kind::Overlay, "a label needs one");
        assert_eq!(only.layers, [layers[2].join("only"), empty.clone()]);
        let native = of(&Mount::bind(&layers[2], true), "only").unwrap();
        assert_eq!(native, Mount::bind(layers[2].join("only"), true));
        assert_eq!(at("/").unwrap().layers, layers);
        for path in ["none", "file", "file/x", "out"] {
            let err = at(path).unwrap_err().to_string();
            assert!(err.starts_with("image_sub_path: "), "{err}");
        }
    }
}
