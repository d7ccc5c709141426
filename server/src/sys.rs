//! The daemon's only unsafe code: telling tokio that a descriptor stays what it is, and a call that no crate has.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A pidfd that tokio waits for: readable once its process has ended (pidfd_open(2)).
///
/// # Errors
/// When the kernel does not take it.
pub(crate) fn pidfd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd owns its descriptor, and AsyncFd hands out no way to replace it while it is registered.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

/// A watch on CNI's configuration that tokio waits for.
///
/// # Errors
/// When the kernel does not take it.
pub(crate) fn watcher(watcher: cni::Watcher) -> io::Result<AsyncFd<cni::Watcher>> {
    // SAFETY: a Watcher opens its inotify descriptor when it is made and closes it when it is dropped; in between
    // none of its methods replaces it.
    unsafe { AsyncFd::register_with_interest(watcher, Interest::READABLE) }.map_err(Into::into)
}

/// IOPRIO_WHO_PROCESS; the process 0 is the calling thread.
const THIS_THREAD: (libc::c_int, libc::c_int) = (1, 0);
/// The class for those without a deadline, 2, and in it the last of eight levels.
pub(crate) const LOWEST_IO_PRIORITY: i32 = 2 << 13 | 7;

/// Puts the calling thread last where threads wait for a disk (ioprio_set(2)); the class of idle ones might never get
/// its turn.
///
/// # Errors
/// When the kernel does not take it.
pub(crate) fn lowest_io_priority() -> io::Result<()> {
    let (which, who) = THIS_THREAD;
    // SAFETY: ioprio_set takes three numbers and touches no memory of the process.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, which, who, LOWEST_IO_PRIORITY) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The calling thread's, as ioprio_get(2) tells it.
#[cfg(test)]
pub(crate) fn io_priority() -> i32 {
    let (which, who) = THIS_THREAD;
    // SAFETY: ioprio_get takes two numbers and touches no memory of the process.
    let told = unsafe { libc::syscall(libc::SYS_ioprio_get, which, who) };
    i32::try_from(told).unwrap_or(-1)
}
