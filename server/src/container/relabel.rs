//! Gives the files of a volume the SELinux label of the containers that use it.
//!
//! The volume may be in use by somebody hostile at the same time. So no path is walked: every file is reached from
//! the descriptor of its directory, and links are labelled, not followed. The root gets its label last, which makes
//! a volume that was done once recognisable, and one that was cut short not.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, XattrFlags, openat, statat};
use rustix::io::Errno;

/// Trees of the system: nothing in them is a volume.
const SYSTEM: [&str; 12] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/sbin", "/sys",
    "/usr",
];
/// Directories that hold what is not the pod's beside what may be.
const SHARED: [&str; 14] = [
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/run",
    "/srv",
    "/tmp",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lib/kubelet",
    "/var/log",
    "/var/spool",
    "/var/tmp",
];
const ATTRIBUTE: &str = "security.selinux";
/// Longest label that is compared.
const MAX_LABEL: usize = 4096;
/// Directories below one another: each keeps a descriptor open.
const MAX_DEPTH: usize = 512;
/// Who is at it at a time.
const THREADS: usize = 4;

/// Labels everything below `path` that lies on its file system, unless that was done before. Blocks.
///
/// # Errors
/// A text, for a path of the system, and for a file that cannot be labelled. A file system that has no labels is none.
pub(crate) fn relabel(
    path: &Path,
    label: &str,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<(), String> {
    if is_of_system(path) {
        return Err("is a directory of the system, which is not relabelled".into());
    }
    let open = |flags| openat(CWD, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty());
    let root = open(OFlags::PATH).map_err(|err| err.to_string())?;
    if has(&root, label) {
        return Ok(());
    }
    let about = rustix::fs::fstat(&root).map_err(|err| err.to_string())?;
    if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
        let dir = open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(|err| err.to_string())?;
        let work = Work {
            label,
            device: about.st_dev,
            stopped,
            state: Mutex::default(),
            more: Condvar::new(),
        };
        work.lock().waiting.push(Task::Open(Arc::new(dir), 0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| work.run());
            }
        });
        if let Some(failure) = work.lock().failure.take() {
            return Err(failure);
        }
    }
    set(&root, label).map_err(|err| err.to_string())
}

/// It, or something that it holds, is the system's.
fn is_of_system(path: &Path) -> bool {
    let all = || SYSTEM.iter().chain(&SHARED);
    SYSTEM.iter().any(|tree| path.starts_with(tree))
        || all().any(|dir| Path::new(dir).starts_with(path))
}

/// A directory to be gone through.
enum Task {
    Open(Arc<OwnedFd>, usize),
    /// Not opened before its turn, so that few are open at a time.
    Below(Arc<OwnedFd>, CString, usize),
}

#[derive(Default)]
struct State {
    waiting: Vec<Task>,
    /// Directories that somebody is at.
    busy: usize,
    failure: Option<String>,
}

struct Work<'a> {
    label: &'a str,
    device: u64,
    stopped: &'a (dyn Fn() -> bool + Sync),
    state: Mutex<State>,
    more: Condvar,
}

impl Work<'_> {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until nothing is left, or something went wrong.
    fn run(&self) {
        while let Some(task) = self.next() {
            let done = self.directory(task);
            let mut state = self.lock();
            state.busy -= 1;
            match done {
                Ok(found) => state.waiting.extend(found),
                Err(err) => state.failure = Some(err),
            }
            drop(state);
            self.more.notify_all();
        }
    }

    /// The last one found first, so that few directories are open.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(task) = state.waiting.pop() {
                state.busy += 1;
                return Some(task);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn directory(&self, task: Task) -> Result<Vec<Task>, String> {
        if (self.stopped)() {
            return Err("was not relabelled in time".into());
        }
        let (dir, depth) = match task {
            Task::Open(dir, depth) => (dir, depth),
            Task::Below(parent, name, depth) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(&*parent, &name, flags, Mode::empty()) {
                    Ok(dir) => (Arc::new(dir), depth),
                    // Somebody took it away, or put something else in its place.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Vec::new()),
                    Err(err) => return Err(err.to_string()),
                }
            }
        };
        if depth > MAX_DEPTH {
            return Err(format!("has more than {MAX_DEPTH} directories below one another"));
        }
        let mut found = Vec::new();
        for entry in Dir::read_from(&*dir).map_err(|err| err.to_string())? {
            let entry = entry.map_err(|err| err.to_string())?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..")
                && self.entry(&dir, entry.file_name()).map_err(|err| err.to_string())?
            {
                found.push(Task::Below(dir.clone(), entry.file_name().to_owned(), depth + 1));
            }
        }
        Ok(found)
    }

    /// Labels one file; true for a directory to be gone through.
    fn entry(&self, dir: &OwnedFd, name: &std::ffi::CStr) -> rustix::io::Result<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            file => file?,
        };
        let about = statat(&file, c"", AtFlags::EMPTY_PATH)?;
        // What is mounted in a volume is not the volume's.
        if about.st_dev != self.device {
            return Ok(false);
        }
        if !has(&file, self.label) {
            set(&file, self.label)?;
        }
        Ok(FileType::from_raw_mode(about.st_mode) == FileType::Directory)
    }
}

/// A descriptor as a path; a link's is the link's own.
fn path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

fn has(file: &OwnedFd, label: &str) -> bool {
    let mut now = [0; MAX_LABEL];
    let length = rustix::fs::getxattr(path(file), ATTRIBUTE, &mut now[..]).unwrap_or(0);
    now[..length].strip_suffix(b"\0").unwrap_or(&now[..length]) == label.as_bytes()
}

fn set(file: &OwnedFd, label: &str) -> rustix::io::Result<()> {
    let value = format!("{label}\0");
    match rustix::fs::setxattr(path(file), ATTRIBUTE, value.as_bytes(), XattrFlags::empty()) {
        // A file system without labels, or one whose mount gives all files the same.
        Err(Errno::OPNOTSUPP) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    fn label_of(path: &Path) -> String {
        let mut bytes = [0; MAX_LABEL];
        let length = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut bytes[..]).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).trim_end_matches('\0').to_owned()
    }

    /// A tree with a link that leads out of it; `None` where files cannot be labelled as we like.
    fn tree() -> Option<(tempfile::TempDir, std::path::PathBuf)> {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let probe = dir.path().join("probe");
        std::fs::write(&probe, "").unwrap();
        let labelled =
            rustix::fs::setxattr(&probe, ATTRIBUTE, LABEL.as_bytes(), XattrFlags::empty());
        if let Err(err) = labelled {
            eprintln!("not tested: {ATTRIBUTE} cannot be set here: {err}");
            return None;
        }
        let volume = dir.path().join("volume");
        for i in 0..20 {
            std::fs::create_dir_all(volume.join(format!("a{i}/b/c"))).unwrap();
            std::fs::write(volume.join(format!("a{i}/b/file")), "").unwrap();
        }
        std::fs::write(dir.path().join("outside"), "").unwrap();
        std::os::unix::fs::symlink("../outside", volume.join("link")).unwrap();
        std::os::unix::fs::symlink("..", volume.join("up")).unwrap();
        Some((dir, volume))
    }

    #[test]
    fn everything_below_and_nothing_beside() {
        let Some((dir, volume)) = tree() else { return };
        relabel(&volume, LABEL, &|| false).unwrap();
        for path in ["", "a0", "a19/b/c", "a7/b/file", "link", "up"] {
            assert_eq!(label_of(&volume.join(path)), LABEL, "{path}");
        }
        assert_eq!(label_of(&dir.path().join("outside")), "");
        assert_eq!(label_of(dir.path()), "");
    }

    #[test]
    fn what_was_done_is_skipped_and_what_was_cut_short_is_not() {
        let Some((_dir, volume)) = tree() else { return };
        assert!(relabel(&volume, LABEL, &|| true).unwrap_err().contains("in time"));
        assert_eq!(label_of(&volume), "", "the root is the last");
        relabel(&volume, LABEL, &|| false).unwrap();
        std::fs::write(volume.join("late"), "").unwrap();
        relabel(&volume, LABEL, &|| panic!("nothing is walked again")).unwrap();
        assert_eq!(label_of(&volume.join("late")), "");
        let other = LABEL.replace("c2", "c3");
        relabel(&volume, &other, &|| false).unwrap();
        assert_eq!(label_of(&volume.join("late")), other);
    }

    #[test]
    fn a_file_alone() {
        let Some((dir, _)) = tree() else { return };
        relabel(&dir.path().join("outside"), LABEL, &|| false).unwrap();
        assert_eq!(label_of(&dir.path().join("outside")), LABEL);
        assert!(relabel(&dir.path().join("none"), LABEL, &|| false).is_err());
    }

    #[test]
    fn the_system_is_refused() {
        for path in [
            "/",
            "/usr",
            "/usr/lib/x",
            "/etc/hosts",
            "/var",
            "/var/lib",
            "/home",
            "/proc/1",
            "/var/lib/kubelet",
        ] {
            assert!(is_of_system(Path::new(path)), "{path}");
        }
        for path in
            ["/var/lib/kubelet/pods/1/volumes/x", "/srv/data", "/home/user", "/data", "/usrdata"]
        {
            assert!(!is_of_system(Path::new(path)), "{path}");
        }
        assert!(relabel(Path::new("/etc"), LABEL, &|| false).unwrap_err().contains("system"));
    }

    /// A directory that is swapped for a link while it is walked leads nowhere (CVE-2021-43816).
    #[test]
    fn links_that_appear_meanwhile_are_not_followed() {
        let Some((dir, volume)) = tree() else { return };
        let (inside, target) = (volume.join("a0"), dir.path().join("precious"));
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("file"), "").unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    std::fs::rename(&inside, volume.join("moved")).ok();
                    std::os::unix::fs::symlink(&target, &inside).ok();
                    std::fs::remove_file(&inside).ok();
                    std::fs::rename(volume.join("moved"), &inside).ok();
                }
            });
            for round in 0..50 {
                relabel(&volume, &format!("{LABEL},c{round}"), &|| false).ok();
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(label_of(&target), "");
        assert_eq!(label_of(&target.join("file")), "");
    }
}
