//! Has executables find an engine's programs under the name of the node's `iptables`.
//!
//! Directories of links, one for each family and engine, which are made when they are first needed and stay: a
//! plugin that looks along its `PATH` meets them before the node's own.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

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
    static NEXT: AtomicU64 = AtomicU64::new(0);
    match fs::read_link(path) {
        Ok(found) if found == target => return Ok(()),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let unique = NEXT.fetch_add(1, Ordering::Relaxed);
    let fresh = path.with_extension(format!("new-{}-{unique}", std::process::id()));
    let _ = fs::remove_file(&fresh);
    symlink(target, &fresh)?;
    fs::rename(&fresh, path).inspect_err(|_| drop(fs::remove_file(&fresh)))
}
