//! Network namespaces that live as long as their file does.
//!
//! A namespace is pinned by a bind mount on a file, under `/run/netns` as operators and plugins expect, so
//! that it needs no process. It is made on a thread that ends at once; the calling thread's own network is
//! never changed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Error, Result};
use crate::link;
use crate::sys;

/// Where `ip netns` and everybody else looks for them.
pub const DEFAULT_DIR: &str = "/run/netns";

/// Makes a network namespace, with its loopback interface up, and pins it at `path`, which must not exist.
/// Its directory becomes a shared mount if it is not one, as `ip netns` has it: a namespace that is pinned
/// or unpinned there is so in every mount namespace.
pub fn create(path: &Path) -> Result<()> {
    pinned(path, || {
        on_thread(|| {
            sys::unshare_network().map_err(|e| Error::io("unshare the network for", path, e))?;
            link::loopback_up().map_err(|e| Error::io("bring up the loopback of", path, e))?;
            mount_bind("/proc/thread-self/ns/net", path).map_err(|e| Error::io("pin", path, e))
        })
    })
}

/// Pins an existing network namespace, `/proc/<pid>/ns/net` for instance, at `path`, which must not exist.
pub fn pin(namespace: &Path, path: &Path) -> Result<()> {
    if !is_netns(namespace) {
        return Err(not_a_namespace(namespace));
    }
    pinned(path, || mount_bind(namespace, path).map_err(|e| Error::io("pin", path, e)))
}

/// Unpins the namespace at `path` and removes the file. Idempotent. The namespace itself lives on as long
/// as anything is in it.
pub fn remove(path: &Path) -> Result<()> {
    loop {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be several mounts on top of each other; EINVAL says that there are no more.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => break,
            Err(e) => return Err(Error::io("unmount", path, e)),
        }
    }
    match fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::io("remove", path, e))
        }
        _ => Ok(()),
    }
}

/// Is there a network namespace at `path`?
pub fn is_netns(path: &Path) -> bool {
    open(path).is_ok_and(sys::is_network_namespace)
}

/// Runs `f` on a thread of its own whose network is the namespace at `path`.
pub fn run_in<T: Send>(path: &Path, f: impl FnOnce() -> T + Send) -> Result<T> {
    enter(&open_checked(path)?, path, f)
}

/// The namespace at `path`, open.
pub(crate) fn open_checked(path: &Path) -> Result<File> {
    let namespace = open(path).map_err(|e| Error::io("open", path, e))?;
    if sys::is_network_namespace(&namespace) { Ok(namespace) } else { Err(not_a_namespace(path)) }
}

/// Runs `f` on a thread of its own whose network is `namespace`, which was opened at `path`.
pub(crate) fn enter<T: Send>(
    namespace: &File,
    path: &Path,
    f: impl FnOnce() -> T + Send,
) -> Result<T> {
    on_thread(|| {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|e| Error::io("enter", path, e))?;
        Ok(f())
    })
}

/// Brings the loopback interface of the namespace at `path` up. [`create`] has done so already.
pub fn loopback_up(path: &Path) -> Result<()> {
    run_in(path, link::loopback_up)?.map_err(|e| Error::io("bring up the loopback of", path, e))
}

fn not_a_namespace(path: &Path) -> Error {
    Error::invalid(format!("{} is not a network namespace", path.display()))
}

/// Without blocking: what lies there may be anything.
fn open(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Makes the file, mounts on it, and takes it away again if that fails.
fn pinned(path: &Path, mount: impl FnOnce() -> Result<()>) -> Result<()> {
    let dir = path.parent().ok_or_else(|| Error::invalid("a namespace needs a path"))?;
    share(dir)?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .map_err(|e| Error::io("create", path, e))?;
    mount().inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Makes `dir` a shared mount. Whoever else does the same holds the directory's lock, as `ip netns` does,
/// so that it is mounted over itself once.
fn share(dir: &Path) -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let propagation = MountPropagationFlags::SHARED;
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(|e| Error::io("create", dir, e))?;
    match mount_change(dir, propagation) {
        Err(Errno::INVAL) => {}
        other => return other.map_err(|e| Error::io("share", dir, e)),
    }
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let lock = File::open(dir).map_err(|e| Error::io("open", dir, e))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| Error::io("lock", dir, e))?;
    match mount_change(dir, propagation) {
        Err(Errno::INVAL) => mount_bind_recursive(dir, dir)
            .and_then(|()| mount_change(dir, propagation))
            .map_err(|e| Error::io("share", dir, e)),
        other => other.map_err(|e| Error::io("share", dir, e)),
    }
}

/// Namespaces belong to threads: a change on one that ends reaches nobody else.
fn on_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| match scope.spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
