//! Removal in two steps: a rename into `trash/`, which is quick and final, and the deletion of what
//! lies there, which takes as long as it takes and survives any interruption.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::{Error, Result, walk};

/// Deeper directories are moved up to the top of the trash instead of being descended into, so that
/// a container cannot nest itself beyond our descriptors and stack.
const MAX_DEPTH: usize = 32;

/// A name that nothing here has had. All are of one length, so that files with one in them are, too.
pub(crate) fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{now:016x}-{:08x}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Deletes what lies in `trash`, for about `budget`; true if nothing is left.
pub(crate) fn empty(trash: &Path, budget: Duration) -> Result<bool> {
    let started = Instant::now();
    let dir = walk::open_root(trash)?;
    let mut sweep = Sweep { trash: dir.as_fd(), deadline: started + budget };
    // What is moved up while a listing is read may be missed by it.
    loop {
        let before = sweep.names(dir.as_fd()).map_err(Error::io("read", trash))?;
        if before.is_empty() {
            return Ok(true);
        }
        for name in before {
            sweep.remove(dir.as_fd(), &name, 0).map_err(Error::io("delete in", trash))?;
            if Instant::now() >= sweep.deadline {
                return sweep
                    .names(dir.as_fd())
                    .map(|left| left.is_empty())
                    .map_err(Error::io("read", trash));
            }
        }
    }
}

struct Sweep<'a> {
    trash: BorrowedFd<'a>,
    deadline: Instant,
}

impl Sweep<'_> {
    fn names(&self, dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    /// Deletes `name` and what it holds; stops early, without an error, when the time is up.
    fn remove(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        depth: usize,
    ) -> rustix::io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        if depth > MAX_DEPTH {
            return rustix::fs::renameat(parent, name, self.trash, unique());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        for inner in self.names(dir.as_fd())? {
            self.remove(dir.as_fd(), &inner, depth + 1)?;
            if Instant::now() >= self.deadline {
                return Ok(());
            }
        }
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
    }
}
