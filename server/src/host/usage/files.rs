//! A cgroup's directory, with those of its files open that are read again and again.
//!
//! To find and open a file costs more than to read it. An open one keeps a page of the kernel's, so there is a bound
//! to all of them, and those that nobody asks for any more are closed.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Resource, getrlimit};

/// Larger than any file of a cgroup that is read but `cgroup.procs` of one with ten thousand processes.
const LIMIT: usize = 128 << 10;
/// As much as a read of a file takes at most where the kernel gives it a page.
const USUAL: usize = 4 << 10;
/// What is shorter is whole: the kernel breaks a list off between two lines, where its page is nearly full. One call
/// instead of two, as there are dozens of these files for each pod.
const SURELY_WHOLE: usize = 3 << 10;
/// Files of all cgroups together that are kept open, if the process may have four times as many: 20 MB of the kernel.
const MAX_KEPT: usize = 4096;
/// Whoever asks more seldom pays for opening.
const PATIENCE: Duration = Duration::from_secs(60);

static KEPT: AtomicUsize = AtomicUsize::new(0);

/// One cgroup's, of one hierarchy. One thread at a time reads a cgroup: its sampler sees to that.
#[derive(Debug)]
pub(super) struct Files {
    dir: OwnedFd,
    kept: RefCell<Kept>,
}

#[derive(Debug)]
struct Kept {
    files: Vec<(&'static str, OwnedFd)>,
    used: Instant,
}

impl Files {
    pub(super) fn of(dir: OwnedFd) -> Self {
        Self { dir, kept: RefCell::new(Kept { files: Vec::new(), used: Instant::now() }) }
    }

    /// The content of the file; `None` if it is not there, or the cgroup is gone.
    pub(super) fn read(&self, name: &'static str) -> Option<String> {
        let mut kept = self.kept.borrow_mut();
        kept.used = Instant::now();
        if let Some((_, file)) = kept.files.iter().find(|(of, _)| *of == name) {
            return content(file);
        }
        let file = self.open(name)?;
        let text = content(&file)?;
        if may_keep_one_more() {
            kept.files.push((name, file));
        }
        Some(text)
    }

    /// The same for a file that is not worth to be kept.
    pub(super) fn read_once(&self, name: &str) -> Option<String> {
        content(&self.open(name)?)
    }

    fn open(&self, name: &str) -> Option<OwnedFd> {
        openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// Closes what nobody has asked for in a while.
    pub(super) fn rest(&self) {
        let mut kept = self.kept.borrow_mut();
        if kept.used.elapsed() >= PATIENCE {
            close(&mut kept);
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        close(self.kept.get_mut());
    }
}

fn close(kept: &mut Kept) {
    KEPT.fetch_sub(kept.files.len(), Ordering::Relaxed);
    kept.files = Vec::new();
}

/// Counts it.
fn may_keep_one_more() -> bool {
    static MOST: OnceLock<usize> = OnceLock::new();
    let most = *MOST.get_or_init(|| {
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(allowed / 4).unwrap_or(MAX_KEPT).min(MAX_KEPT)
    });
    let room = |kept| (kept < most).then_some(kept + 1);
    KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok()
}

/// From the beginning, whatever was read of it before.
fn content(file: &OwnedFd) -> Option<String> {
    let (mut bytes, mut piece) = (Vec::new(), [0; USUAL]);
    loop {
        let read = || rustix::io::pread(file, &mut piece, bytes.len() as u64);
        let count = rustix::io::retry_on_intr(read).ok()?;
        bytes.extend_from_slice(&piece[..count]);
        if count <= SURELY_WHOLE || bytes.len() >= LIMIT {
            return String::from_utf8(bytes).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory;
    use super::*;

    fn files(path: &std::path::Path) -> Files {
        directory(path).unwrap()
    }

    #[test]
    fn files_of_any_length_are_read_whole_again_and_again() {
        let path = tempfile::tempdir().unwrap();
        let dir = files(path.path());
        for size in [0, 1, SURELY_WHOLE, SURELY_WHOLE + 1, USUAL, USUAL + 1, LIMIT, 2] {
            std::fs::write(path.path().join("f"), "x".repeat(size)).unwrap();
            for _ in 0..2 {
                assert_eq!(dir.read("f").unwrap().len(), size);
            }
            assert_eq!(dir.read_once("f").unwrap().len(), size);
        }
        assert_eq!(dir.read("g"), None);
        // A list of the kernel's, which comes in several reads.
        let process = files(std::path::Path::new("/proc/self"));
        for _ in 0..2 {
            assert!(process.read("smaps").unwrap().len() > 2 * USUAL);
        }
    }

    #[test]
    fn what_is_asked_for_stays_open_for_a_while() {
        let path = tempfile::tempdir().unwrap();
        std::fs::write(path.path().join("f"), "1").unwrap();
        let dir = files(path.path());
        let open = || dir.kept.borrow().files.len();
        dir.read("f").unwrap();
        dir.rest();
        assert_eq!(open(), 1);
        dir.kept.borrow_mut().used = Instant::now().checked_sub(PATIENCE).unwrap();
        dir.rest();
        assert_eq!(open(), 0);
        assert_eq!(dir.read("f").unwrap(), "1");
    }
}
