//! Says when a directory of configurations may have changed.
//!
//! The directory may not exist yet, may be removed and made again, renamed away, or be a symbolic link: its
//! ancestors are watched too, and the watches are renewed with every event that concerns the path.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Subdirectories hold the plugins of a network in files of their own; no more of them are watched.
const MAX_SUBDIRS: usize = 64;

/// A watch on a directory, readable when there is something to [`Watcher::drain`].
#[derive(Debug)]
pub struct Watcher {
    inotify: OwnedFd,
    dir: PathBuf,
    watches: HashMap<i32, Watched>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Watched {
    /// The directory itself or one in it: any change counts. Has the path.
    Contents(PathBuf),
    /// An ancestor: only what happens to this name counts.
    Ancestor(OsString),
}

impl Watcher {
    /// Watches `dir`, whether it exists or not. Load the configuration after this, not before.
    pub fn new(dir: &Path) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(|e| Error::io("watch", dir, e))?;
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
            .map_err(|e| Error::io("watch", &dir, e))?;
        let mut watcher = Self { inotify, dir, watches: HashMap::new() };
        watcher.arm()?;
        Ok(watcher)
    }

    /// Reads what happened, without waiting. True if the directory has to be loaded again.
    pub fn drain(&mut self) -> Result<bool> {
        let (mut changed, mut moved) = (false, false);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(Error::io("watch", &self.dir, e)),
            };
            let lost = ReadFlags::IGNORED | ReadFlags::UNMOUNT;
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            match self.watches.get(&event.wd()) {
                None => moved |= event.events().contains(ReadFlags::QUEUE_OVERFLOW),
                Some(_) if event.events().intersects(lost) => moved = true,
                Some(Watched::Contents(dir)) => {
                    changed |= !half_written(dir, event.events(), name);
                    let gone = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::ISDIR;
                    moved |= event.events().intersects(gone);
                }
                Some(Watched::Ancestor(child)) => moved |= name == Some(child),
            }
        }
        if moved {
            self.arm()?;
        }
        Ok(changed || moved)
    }

    /// Watches what there is of the path now, from the root downwards: what appears below a directory
    /// after that was watched makes another event, and another call of this.
    fn arm(&mut self) -> Result<()> {
        let mut fresh = HashMap::new();
        let mut above: Vec<&Path> = self.dir.ancestors().skip(1).collect();
        above.reverse();
        let on_path =
            WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE | WatchFlags::ONLYDIR;
        for (ancestor, below) in above.iter().zip(above.iter().skip(1).chain([&self.dir.as_path()]))
        {
            let name = below.file_name().unwrap_or_default().to_owned();
            match inotify::add_watch(&self.inotify, *ancestor, on_path) {
                Ok(wd) => drop(fresh.insert(wd, Watched::Ancestor(name))),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(e) => return Err(Error::io("watch", ancestor, e)),
            }
        }
        let mut dirs = vec![self.dir.clone()];
        dirs.extend(subdirectories(&self.dir));
        let contents = on_path
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        for dir in dirs {
            match inotify::add_watch(&self.inotify, &dir, contents) {
                Ok(wd) => drop(fresh.insert(wd, Watched::Contents(dir))),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => {}
                Err(e) => return Err(Error::io("watch", &dir, e)),
            }
        }
        for stale in self.watches.keys().filter(|wd| !fresh.contains_key(wd)) {
            // One whose directory is gone has been removed by the kernel.
            let _ = inotify::remove_watch(&self.inotify, *stale);
        }
        self.watches = fresh;
        Ok(())
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// A file that was just created is worth no look: when its writer closes it there is another event. Links
/// are complete when they appear.
fn half_written(dir: &Path, events: ReadFlags, name: Option<&OsStr>) -> bool {
    let Some(name) = name.filter(|_| events == ReadFlags::CREATE) else { return false };
    dir.join(name).symlink_metadata().is_ok_and(|m| m.is_file() && m.nlink() == 1)
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.map(|entry| entry.path()).take(MAX_SUBDIRS).collect()
}
