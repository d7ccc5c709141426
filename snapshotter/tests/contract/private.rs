//! A place of its own for each test: a mount namespace that only the test's thread sees, with a
//! tmpfs of its own, and the check that nothing is left mounted there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A private tmpfs for one test.
pub(crate) struct Place(PathBuf);

impl Place {
    /// Moves the calling thread into a mount namespace of its own and gives it an empty tmpfs.
    pub(crate) fn new() -> Place {
        assert!(rustix::process::geteuid().is_root(), "these tests mount: run them as root");
        // Only this thread changes; what it spawns inherits.
        #[allow(deprecated)]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).expect("a mount namespace");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).expect("private mounts");
        let path = tempfile::tempdir().expect("a directory").keep();
        rustix::mount::mount("tmpfs", &path, "tmpfs", MountFlags::empty(), c"mode=755")
            .expect("a tmpfs");
        Place(path)
    }

    /// The root of the tmpfs.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A new directory in it.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }

    /// What is mounted below it.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        let below = format!("{}/", self.0.display());
        let point = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_owned();
        table.lines().map(point).filter(|point| point.starts_with(&below)).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.mounts(), Vec::<String>::new(), "mounts were left behind");
            // Without laziness: an open file or a working directory left behind makes it busy. So does,
            // until its exec, a process that another test is spawning.
            let limit = Instant::now() + Duration::from_secs(60);
            while let Err(errno) = rustix::mount::unmount(&self.0, UnmountFlags::empty()) {
                assert!(
                    errno == Errno::BUSY && Instant::now() < limit,
                    "the tmpfs is held: {errno}"
                );
                std::thread::yield_now();
            }
        } else {
            let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir(&self.0);
    }
}
