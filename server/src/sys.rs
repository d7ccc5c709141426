//! The daemon's only unsafe code: telling tokio that a descriptor stays what it is.

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
