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
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    let attributes: [u64; 4] = [MOUNT_ATTR_IDMAP, 0, 0, namespace];
    // SAFETY: the path is an empty C string and the attributes, whose size is given, outlive the call, which only reads
    // them; both descriptors are open.
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
