//! Has executables find an engine's programs under the name of the node's `iptables`.
//!
//! Directories of links, one for each family and engine, which are made when they are first needed and stay: a
//! plugin that looks along its `PATH` meets them before the node's own.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::engine::Engines;
use crate::error::{Error, Result};
use crate::native;

/// Below the directory of the cache.
const DIR: &str = "engines";

/// What comes before the node's own directories, where the attachment's engines are not the node's and their programs
/// are there.
pub(crate) fn directories(cache_dir: &Path, engines: Engines) -> Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for (name, links) in native::elsewhere(engines) {
        let dir = cache_dir.join(DIR).join(name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| Error::io("create", &dir, e))?;
        for (link, target) in links {
            let path = dir.join(link);
            set(&path, &target).map_err(|e| Error::io("link", &path, e))?;
        }
        dirs.push(dir);
    }
    Ok(dirs)
}

/// Others may be reading it.
fn set(path: &Path, target: &Path) -> io::Result<()> {
    // One at a time, so that the draft has one name and a killed one is replaced.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::read_link(path) {
        Ok(found) if found == target => return Ok(()),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    symlink(target, &draft)?;
    fs::rename(&draft, path)
}
