//! Becomes the init of a shared pid namespace: a tiny program that reaps and does nothing else.
//!
//! A container in that namespace sees it as process 1, perhaps as root, and could reach whatever
//! it can. So it has nothing: an empty read-only root in a mount namespace of its own, no
//! capabilities, no descriptors, nobody's user, no dumpable memory, and a program that exists
//! only as a sealed memory file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::FdFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::cgroup::Leaf;
use crate::sys;

static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/init"));
const NOBODY: u32 = 65534;

/// Returns only when something went wrong. That is said on standard output, where the parent
/// waits for it.
pub(super) fn run(arguments: &[OsString]) -> Result<(), String> {
    let cgroup = match arguments {
        [flag, path] if flag == "--cgroup" => path.to_str(),
        _ => None,
    };
    let error = match prepare(cgroup) {
        Ok(program) => format!("exec: {}", sys::exec_descriptor(program.as_fd(), c"init")),
        Err(error) => error,
    };
    print!("{error}");
    let _ = io::stdout().flush();
    Err(String::new())
}

fn prepare(cgroup: Option<&str>) -> Result<OwnedFd, String> {
    let what = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Until it can be found in its cgroup, it ends with the stage that started it, and that with the shim.
    super::die_with_parent().map_err(what("parent"))?;
    let program = sealed(PROGRAM).map_err(what("memory file"))?;
    let nobody = nobody();
    if let Some(path) = cgroup {
        Leaf::new(path).and_then(|leaf| leaf.enter()).map_err(what("cgroup"))?;
    }
    rustix::process::setsid().map_err(|error| what("session")(error.into()))?;
    empty_root().map_err(what("root"))?;
    rustix::process::set_parent_process_death_signal(None)
        .map_err(|error| what("parent")(error.into()))?;
    drop_privileges(nobody).map_err(what("privileges"))?;
    for fd in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)
            .map_err(|error| what("descriptors")(error.into()))?;
    }
    sys::reset_signals();
    Ok(program)
}

fn sealed(program: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know that memory files can be non-executable.
    let memory = rustix::fs::memfd_create("init", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("init", flags))?;
    let mut file = File::from(memory);
    file.write_all(program)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// A mount namespace in which there is nothing.
fn empty_root() -> io::Result<()> {
    sys::unshare(libc::CLONE_NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    // Any directory does: this namespace is nobody else's.
    let here = Path::new("/proc");
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("none", here, "tmpfs", flags, c"size=4k,nr_inodes=1,mode=555")?;
    std::env::set_current_dir(here)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

/// Nobody's id; in a user namespace that does not reach so far, its last one.
fn nobody() -> u32 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ranges = map.lines().filter_map(|line| {
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
        let (first, _, length) = (numbers.next()??, numbers.next()??, numbers.next()??);
        first.checked_add(length.checked_sub(1)?)
    });
    ranges.max().map_or(NOBODY, |last| last.min(NOBODY))
}

fn drop_privileges(nobody: u32) -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter() {
        // Those newer than the kernel are refused.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::clear_ambient_capability_set()?;
    let (user, group) = (Uid::from_raw(nobody), Gid::from_raw(nobody));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(group, group, group)?;
    rustix::thread::set_thread_res_uid(user, user, user)?;
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    Ok(rustix::thread::set_capabilities(None, none)?)
}
