//! Whether the owners of files can be mapped on a file system: what pods with users of their own need of the one that
//! their root file systems lie on.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys;

/// Tries it, on a copy of the mount that appears nowhere. Blocks.
///
/// # Errors
/// Why they cannot be.
pub(crate) fn can_be_mapped(dir: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, dir, flags)?;
    sys::in_user_namespace(|process| {
        let of_process = |file: &str| format!("/proc/{process}/{file}");
        // Any ids: a namespace without them is refused for that alone.
        for map in ["uid_map", "gid_map"] {
            std::fs::write(of_process(map), "0 0 1")?;
        }
        let namespace = std::fs::File::open(of_process("ns/user"))?;
        shim::sys::map_owners(tree.as_fd(), namespace.as_fd())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_of_the_attempt() {
        let children = || {
            let own = format!("/proc/self/task/{}/children", rustix::thread::gettid());
            std::fs::read_to_string(own).unwrap_or_default()
        };
        let (dir, before) = (tempfile::tempdir_in("/var/tmp").unwrap(), children());
        if let Err(err) = can_be_mapped(dir.path()) {
            eprintln!("skipped: owners cannot be mapped here: {err}");
        }
        assert_eq!(children(), before);
        assert!(can_be_mapped(&dir.path().join("none")).is_err());
        // proc is of those that cannot, for whomever.
        assert!(can_be_mapped(Path::new("/proc")).is_err());
    }
}
