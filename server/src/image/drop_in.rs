//! The drop-in directory: archives that lie there are imported, each once. For nodes without a registry.
//!
//! What has been imported is remembered with size, inode and time of change, so that an archive is read again only
//! when it was replaced, also by the next daemon. One that fails is told and left, and tried again when it changes or
//! the daemon starts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Images;
use super::error::Error;
use super::pull::blocking;

/// The list of what has been imported.
const LIST: &str = "imported.json";
/// Most archives in the directory.
const MAX_ARCHIVES: usize = 4096;
/// What makes a directory an archive; the first one there tells when it changed.
const LISTS: [&str; 2] = ["index.json", "manifest.json"];

/// What an archive looked like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// The directory, and what is known of it.
#[derive(Debug)]
pub(crate) struct DropIn {
    images: Images,
    dir: PathBuf,
    done: BTreeMap<String, Stamp>,
    failed: BTreeMap<String, Stamp>,
}

impl DropIn {
    /// Reads what has been imported before. Blocks on one small file.
    pub(crate) fn open(images: Images, dir: PathBuf) -> Self {
        let list = images.0.content.dir().join(LIST);
        let done = fs::read(list).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { images, dir, done: done.unwrap_or_default(), failed: BTreeMap::new() }
    }

    /// Imports what is new.
    pub(crate) async fn look(&mut self) {
        let dir = self.dir.clone();
        let found = match blocking(move || archives(&dir)).await {
            Ok(found) => found,
            Err(err) => {
                tracing::error!(%err, "the import directory cannot be read");
                return;
            }
        };
        self.done.retain(|name, _| found.contains_key(name));
        self.failed.retain(|name, _| found.contains_key(name));
        for (name, stamp) in found {
            if self.done.get(&name) == Some(&stamp) || self.failed.get(&name) == Some(&stamp) {
                continue;
            }
            let path = self.dir.join(&name);
            match self.images.import_path(&path).await {
                Ok(images) => {
                    tracing::info!(archive = %path.display(), images = images.len(), "archive imported");
                    self.failed.remove(&name);
                    self.done.insert(name, stamp);
                    self.remember().await;
                }
                Err(err) => {
                    tracing::error!(archive = %path.display(), %err, "archive not imported");
                    self.failed.insert(name, stamp);
                }
            }
        }
    }

    async fn remember(&self) {
        let dir = self.images.0.content.dir().to_owned();
        let done = self.done.clone();
        let written = blocking(move || {
            let bytes =
                serde_json::to_vec(&done).map_err(|err| Error::Internal(err.to_string()))?;
            let (path, draft) = (dir.join(LIST), dir.join("ingest").join(LIST));
            let mut file = File::create(&draft).map_err(Error::io("create", &draft))?;
            file.write_all(&bytes)
                .and_then(|()| file.sync_all())
                .map_err(Error::io("write", &draft))?;
            fs::rename(&draft, &path).map_err(Error::io("rename", &draft))
        });
        if let Err(err) = written.await {
            tracing::warn!(%err, "what was imported is not remembered; it is looked at again at the next start");
        }
    }
}

/// Everything that may be an archive, by name. What begins with a dot is somebody's draft.
fn archives(dir: &Path) -> Result<BTreeMap<String, Stamp>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(Error::io("list", dir))?,
    };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", dir))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        if let Some(stamp) = stamp(&entry.path()) {
            found.insert(name, stamp);
        }
        if found.len() == MAX_ARCHIVES {
            tracing::warn!(dir = %dir.display(), "more than {MAX_ARCHIVES} archives; the rest is left");
            break;
        }
    }
    Ok(found)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let mut about = path.metadata().ok()?;
    if about.is_dir() {
        about = LISTS.iter().find_map(|list| path.join(list).metadata().ok())?;
    }
    about.is_file().then(|| Stamp {
        size: about.len(),
        inode: about.ino(),
        seconds: about.mtime(),
        nanoseconds: about.mtime_nsec(),
    })
}
