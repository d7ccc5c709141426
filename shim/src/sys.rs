//! The library's only unsafe code: a call that no crate has, for both sides.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Maps the owners of a detached mount's files into a user namespace (mount_setattr(2) with `MOUNT_ATTR_IDMAP`).
///
/// # Errors
/// `EINVAL` where the file system cannot do that.
pub fn map_owners(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let namespace = u64::try_from(namespace.as_raw_fd()).unwrap_or(u64::MAX);
    set(tree, [MOUNT_ATTR_IDMAP, 0, 0, namespace])
}

/// Makes a detached mount read-only, and keeps it apart from the one that it was made of.
///
/// # Errors
/// `ENOSYS` before Linux 5.12.
pub fn make_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    const MOUNT_ATTR_RDONLY: u64 = 1;
    set(tree, [MOUNT_ATTR_RDONLY, 0, libc::MS_PRIVATE, 0])
}

/// The words of `struct mount_attr`: attr_set, attr_clr, propagation, userns_fd.
fn set(tree: BorrowedFd<'_>, attributes: [u64; 4]) -> io::Result<()> {
    // SAFETY: the path is an empty C string and the attributes, whose size is given, outlive the call, which only reads
    // them; the descriptors, that of a user namespace among the attributes too, are open.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
