//! The OCI runtime's program, held where nobody can write to it.
//!
//! A container that gets at the runtime's file, as `/proc/<pid>/exe` of the runtime in it, must not be able to write to
//! it. crun sees to that itself: unless its file is on a read-only mount, it makes one and executes itself anew from
//! there, at every call, which is half of what a call takes. So one such mount is held here for the pod's life. It is
//! in no mount namespace, so nobody can make it writable again, and goes with the shim.
//!
//! Whoever is not sure gets nothing: then the program is executed where it lies, and guards itself.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

/// A script would be looked for once more, by its interpreter, where it cannot be found.
const ELF: [u8; 4] = *b"\x7fELF";

struct Held {
    program: PathBuf,
    /// Only a path: what is executed is opened anew each time.
    file: File,
    identity: (u64, u64),
}

thread_local! {
    /// A pod has one runtime.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Holds `program` from now on. To be called while there is something to wait for: the kernel takes its time.
pub(crate) fn hold(program: &Path) {
    let held = Held::new(program);
    if let Err(error) = &held {
        eprintln!("{}: not held: {error}", program.display());
    }
    HELD.set(held.ok());
}

/// Where to execute it from, if it is held. One that has been replaced since is held anew.
pub(crate) fn held(program: &Path) -> Option<PathBuf> {
    let is_held = |held: &Held| held.program == program;
    if !HELD.with_borrow(|held| held.as_ref().is_some_and(is_held)) {
        return None;
    }
    let now = identity(&fs::metadata(program).ok()?);
    if HELD.with_borrow(|held| held.as_ref().is_none_or(|held| held.identity != now)) {
        hold(program);
    }
    HELD.with_borrow(|held| held.as_ref().map(|held| path(&held.file)))
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// A descriptor of ours, also for our children once they have closed theirs.
fn path(of: &impl AsRawFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), of.as_raw_fd()).into()
}

impl Held {
    fn new(program: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = rustix::mount::open_tree(CWD, program, flags)?;
        shim::sys::make_read_only(tree.as_fd())?;
        let mut magic = [0; ELF.len()];
        File::open(path(&tree))?.read_exact(&mut magic)?;
        if magic != ELF {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path(&tree))?;
        // With the tree's descriptor the mount leaves its namespace; what was opened keeps it.
        drop(tree);
        let identity = identity(&file.metadata()?);
        Ok(Self { program: program.to_owned(), file, identity })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::process::CommandExt;

    use super::*;

    #[test]
    fn what_is_held_cannot_be_written_to_and_a_replaced_one_is_let_go() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let program = dir.path().join("runtime");
        // Not copied: a descriptor open for writing, in a child of another test, would keep it from being executed.
        let install = |from: &str| {
            let new = dir.path().join("new");
            symlink(from, &new).expect("made");
            fs::rename(new, &program).expect("in place");
        };
        let status = |program: &Path| {
            std::process::Command::new(program).arg0("sh").args(["-c", "exit 3"]).status()
        };
        install("/bin/sh");
        assert_eq!(held(&program), None);
        hold(&program);
        let there = held(&program).expect("held");
        assert_eq!(status(&there).expect("executed").code(), Some(3));
        // Not tried: while it runs anywhere, that is refused for another reason.
        let flags = rustix::fs::statvfs(&there).expect("a file system").f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
        assert_eq!(held(Path::new("/bin/other")), None);
        install("/bin/true");
        let there = held(&program).expect("held anew");
        assert_eq!(status(&there).expect("executed").code(), Some(0));
        fs::write(dir.path().join("new"), "#!/bin/sh\n").expect("written");
        fs::rename(dir.path().join("new"), &program).expect("in place");
        assert_eq!(held(&program), None);
    }
}
