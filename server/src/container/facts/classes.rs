//! Classes of service that annotations name, as containerd and CRI-O read them: RDT's for caches and memory
//! bandwidth, block I/O's for disks.
//!
//! Where the node has no such classes, the annotation is passed over, as there: it moves with a pod from node to
//! node. Where it has some, one that is not among them is an error.

mod blockio;

use std::path::Path;

use oci_spec::runtime::LinuxBlockIo;

use crate::container::config::ContainerConfig;
use crate::container::place::Place;
use crate::error::{Error, Result};

const RESCTRL: &str = "/sys/fs/resctrl";

/// A kind of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rdt,
    BlockIo,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Rdt => "rdt",
            Self::BlockIo => "blockio",
        }
    }
}

/// The class of a container, and the annotation that names it: the container's own counts before the pod's for it,
/// and that before the pod's for all.
fn named(kind: Kind, config: &ContainerConfig, place: &Place) -> Option<(String, String)> {
    let kind = kind.name();
    let own = format!("io.kubernetes.cri.{kind}-class");
    let mine = format!("{kind}.resources.beta.kubernetes.io/container.{}", config.metadata.name);
    let all = format!("{kind}.resources.beta.kubernetes.io/pod");
    [
        (own, &config.annotations),
        (mine, &place.sandbox_annotations),
        (all, &place.sandbox_annotations),
    ]
    .into_iter()
    .find_map(|(key, annotations)| {
        let class = annotations.get(&key).filter(|class| !class.is_empty())?.clone();
        Some((class, key))
    })
}

fn unknown(key: &str, class: &str) -> Error {
    Error::invalid(format!("annotations[{key:?}]"), format!("this node has no class {class:?}"))
}

/// The RDT class, which is a directory of resctrl. `knows` is whether the OCI runtime has heard of it. Blocks.
///
/// # Errors
/// `Invalid` for a class that there is not.
pub(crate) fn rdt(config: &ContainerConfig, place: &Place, knows: bool) -> Result<Option<String>> {
    rdt_of(config, place, knows, Path::new(RESCTRL))
}

fn rdt_of(
    config: &ContainerConfig,
    place: &Place,
    knows: bool,
    resctrl: &Path,
) -> Result<Option<String>> {
    let Some((class, key)) = named(Kind::Rdt, config, place) else { return Ok(None) };
    if !knows || !resctrl.join("schemata").exists() {
        tracing::debug!(class, key, "this node has no RDT: passed over");
        return Ok(None);
    }
    let plain = class.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !plain || class.starts_with('.') || !resctrl.join(&class).join("schemata").exists() {
        return Err(unknown(&key, &class));
    }
    Ok(Some(class))
}

/// What the block I/O class says, by the node's file of classes. Blocks.
///
/// # Errors
/// `Invalid` for a class that there is not, or a file that cannot be read.
pub(crate) fn block_io(
    config: &ContainerConfig,
    place: &Place,
    file: Option<&Path>,
) -> Result<Option<LinuxBlockIo>> {
    let Some((class, key)) = named(Kind::BlockIo, config, place) else { return Ok(None) };
    let Some(file) = file else {
        tracing::debug!(class, key, "no classes of block I/O are configured: passed over");
        return Ok(None);
    };
    let wrong = |err: String| {
        Error::invalid(format!("annotations[{key:?}]"), format!("{}: {err}", file.display()))
    };
    let found = blockio::class(file, &class).map_err(wrong)?;
    found.ok_or_else(|| unknown(&key, &class)).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::spec::fixture;

    fn with(own: &str, mine: &str, all: &str) -> (ContainerConfig, Place) {
        let (mut config, mut place) = (fixture::config(), fixture::place());
        config.annotations.insert("io.kubernetes.cri.rdt-class".into(), own.into());
        let mut of_pod = |key: &str, class: &str| {
            let key = format!("rdt.resources.beta.kubernetes.io/{key}");
            place.sandbox_annotations.insert(key, class.into());
        };
        of_pod("container.web", mine);
        of_pod("container.other", "not-mine");
        of_pod("pod", all);
        (config, place)
    }

    #[test]
    fn the_nearest_annotation_counts() {
        for (own, mine, all, expected) in [
            ("a", "b", "c", Some("a")),
            ("", "b", "c", Some("b")),
            ("", "", "c", Some("c")),
            ("", "", "", None),
        ] {
            let (config, place) = with(own, mine, all);
            let found = named(Kind::Rdt, &config, &place).map(|(class, _)| class);
            assert_eq!(found.as_deref(), expected);
            assert_eq!(named(Kind::BlockIo, &config, &place), None);
        }
    }

    #[test]
    fn classes_of_resctrl_are_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let (config, place) = with("gold", "", "");
        let rdt = |knows| rdt_of(&config, &place, knows, dir.path());
        assert_eq!(rdt(true).unwrap(), None, "no resctrl");
        std::fs::write(dir.path().join("schemata"), "").unwrap();
        let err = rdt(true).unwrap_err().to_string();
        assert!(err.ends_with("this node has no class \"gold\""), "{err}");
        std::fs::create_dir(dir.path().join("gold")).unwrap();
        std::fs::write(dir.path().join("gold/schemata"), "").unwrap();
        assert_eq!(rdt(true).unwrap().as_deref(), Some("gold"));
        assert_eq!(rdt(false).unwrap(), None);
        for class in ["..", ".", "gold/../gold", "a\0"] {
            let (config, place) = with(class, "", "");
            rdt_of(&config, &place, true, dir.path()).unwrap_err();
        }
    }
}
