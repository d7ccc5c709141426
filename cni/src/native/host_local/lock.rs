//! The lock on the leases of a network: whoever holds it is not between making a lease and filling it.
//!
//! It is host-local's own, an exclusive `flock` of the file `lock` beside the leases, so that executables and we keep
//! out of each other's way. Whoever waits for it waits no longer than the caller does.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::deadline::{Deadline, Over};
use crate::error::{Error, Result};
use crate::native::turn::{Turn, Turns};

/// The file's name.
pub(super) const NAME: &str = "lock";
/// How soon who waits looks again whether another process has let go of it.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Directories that our own threads change. The file is for other processes.
static DIRECTORIES: Turns<PathBuf> = Turns::new();

/// Held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    /// Unlocked when it is closed.
    _file: File,
    _turn: Turn<PathBuf>,
}

impl Lock {
    /// Waits for the lock on the leases in `dir`; `failed` says whose failure it is when nobody waits any more.
    pub(crate) fn take(
        dir: &Path,
        deadline: &Deadline,
        failed: impl Fn(Over) -> Error,
    ) -> Result<Self> {
        let turn = DIRECTORIES.wait(dir.to_owned(), deadline).map_err(&failed)?;
        let path = dir.join(NAME);
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_CREAT).mode(0o750);
        let file = options.open(&path).map_err(|e| Error::io("open", &path, e))?;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file, _turn: turn }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {
                    deadline.check().map_err(&failed)?;
                    std::thread::sleep(LOOK_AGAIN);
                }
                Err(e) => return Err(Error::io("lock", &path, e)),
            }
        }
    }
}
