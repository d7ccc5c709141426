//! Whether overlayfs works here: tried out, once, with all that layers and snapshots need of it.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::mount::{self, Mount};
use crate::{Error, Result, Snapshotter};

/// Where the trial is mounted on kernels before 6.7, for a moment, in its directory.
pub(crate) const TARGET: &str = "target";

/// Mounts a small overlay that appears nowhere, or says which step did not work.
pub(crate) fn overlay(snapshotter: &Snapshotter) -> Result<()> {
    let dir = snapshotter.scratch()?;
    let tried = attempt(&dir);
    snapshotter.discard(&dir)?;
    tried
}

fn attempt(dir: &Path) -> Result<()> {
    for name in ["lower", "other", "upper", "work", TARGET] {
        let path = dir.join(name);
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
    }
    let opaque = dir.join("other");
    rustix::fs::setxattr(&opaque, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(Error::io("set an attribute of", &opaque))?;
    let whiteout = dir.join("other/whiteout");
    rustix::fs::mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0)
        .map_err(Error::io("create the whiteout", &whiteout))?;
    let trial = Mount {
        kind: mount::Kind::Overlay,
        layers: vec![dir.join("other"), dir.join("lower")],
        upper: Some(dir.join("upper")),
        work: Some(dir.join("work")),
        options: options(),
        ..Mount::bind("", false)
    };
    mount::try_out(&trial, &dir.join(TARGET))
}

/// The options of every overlay that is written to. An index would tie an upper directory to the
/// layers it was first used with and brings nothing to a file system that is never exported.
pub(crate) fn options() -> Vec<String> {
    match Path::new("/sys/module/overlay/parameters/index").exists() {
        true => vec!["index=off".to_owned()],
        false => Vec::new(),
    }
}
