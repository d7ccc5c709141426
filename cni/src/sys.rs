//! The system calls that need `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// `_IO(0xb7, 0x3)`: asks a namespace's descriptor which kind it is.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// Where the fall-back for kernels before 5.11 stops looking for descriptors.
const FALLBACK_LAST_FD: libc::c_int = 1024;

/// Makes the child die with the thread that spawned it, and close every descriptor but 0, 1 and 2 when it
/// executes the plugin. Ours are close-on-exec anyway; this is for those of a C library or of who started us.
pub(crate) fn isolate(command: &mut Command) {
    let parent = std::process::id();
    let hook = move || {
        die_with(parent)?;
        close_on_exec_from(3);
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The hook makes plain system
    // calls (prctl, getppid, close_range, fcntl) on integers: it neither allocates nor takes a lock. It
    // marks descriptors and closes none, so the pipe on which std reports a failed exec keeps working.
    unsafe { command.pre_exec(hook) };
}

fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes one integer and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getppid takes nothing and cannot fail.
    let now = unsafe { libc::getppid() };
    // The parent may have died before the request stood; then nobody wants this child.
    if now.cast_unsigned() == parent {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ESRCH))
    }
}

fn close_on_exec_from(first: libc::c_uint) {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets a flag on descriptors of this process.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done != 0 {
        for fd in first.cast_signed()..FALLBACK_LAST_FD {
            // SAFETY: F_SETFD sets a flag on a descriptor, or fails with EBADF where there is none.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Is this descriptor a network namespace?
pub(crate) fn is_network_namespace(fd: impl AsFd) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument; on anything that is no namespace it fails with ENOTTY.
    unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

/// Gives the calling thread a network namespace of its own.
pub(crate) fn unshare_network() -> rustix::io::Result<()> {
    // SAFETY: CLONE_NEWNET changes the network of this thread alone. It unshares neither descriptors nor
    // memory, which is what makes other uses of unshare unsound.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
}

/// Makes a netlink socket's dumps be of what was asked for alone.
pub(crate) fn netlink_strict(socket: impl AsFd) -> io::Result<()> {
    netlink_option(socket.as_fd(), libc::NETLINK_GET_STRICT_CHK, 1)
}

/// Makes a netlink socket get what happens in `group`.
pub(crate) fn netlink_join(socket: impl AsFd, group: u32) -> io::Result<()> {
    netlink_option(socket.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group)
}

fn netlink_option(socket: BorrowedFd<'_>, option: libc::c_int, value: u32) -> io::Result<()> {
    const LEN: libc::socklen_t = size_of::<u32>() as libc::socklen_t;
    let value = &raw const value;
    // SAFETY: the kernel reads LEN bytes at the pointer, which is to a local of that size, and keeps none of it.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, value.cast(), LEN)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
