//! The daemon's only unsafe code: telling tokio that a descriptor stays what it is, and calls that no crate has.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

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

/// Takes variables out of the environment; not once there are other threads, which may be reading it.
#[allow(clippy::disallowed_methods, reason = "there is no other thread")]
pub(crate) fn forget_variables(names: &[&str]) {
    if std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count) != 1 {
        return;
    }
    for name in names {
        // SAFETY: /proc shows one thread, this one, and it starts none here: nobody else reads or writes the
        // environment, in Rust or in C, while it changes.
        unsafe { std::env::remove_var(name) };
    }
}

/// The calling thread's, as ioprio_get(2) tells it.
#[cfg(test)]
pub(crate) fn io_priority() -> i32 {
    let (which, who) = THIS_THREAD;
    // SAFETY: ioprio_get takes two numbers and touches no memory of the process.
    let told = unsafe { libc::syscall(libc::SYS_ioprio_get, which, who) };
    i32::try_from(told).unwrap_or(-1)
}

/// Makes a user namespace and hands it to `with`, beside the pid of the process in it, which ends with this call.
///
/// # Errors
/// When the kernel makes none.
pub(crate) fn in_user_namespace<T>(with: impl FnOnce(u32) -> io::Result<T>) -> io::Result<T> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let (end, other) = (reader.as_raw_fd(), writer.as_raw_fd());
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and without a stack of its own the child is a copy of this thread, as after fork(2). It
    // takes no lock and frees nothing: it makes three system calls, on descriptors of its own copy and a byte of its own
    // stack, and ends.
    let child = unsafe {
        match libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) {
            0 => {
                let mut byte = 0_u8;
                libc::close(other);
                libc::read(end, (&raw mut byte).cast(), 1);
                libc::_exit(0)
            }
            child => child,
        }
    };
    let child = u32::try_from(child).map_err(|_| io::Error::last_os_error())?;
    drop(reader);
    let result = with(child);
    drop(writer);
    let pid = i32::try_from(child).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())?;
    result
}
