//! A root file system, assembled from the mounts that the daemon named.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use api::types::Mount;
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};
use shim::mounts::from_wire;
use snapshotter::mount;

use crate::sys;

/// Beside a root file system, while it is mounted.
const MAPPED: &str = "mapped";

/// A user namespace, and the directory whose files get owners of it.
pub(super) struct Users {
    pub(super) namespace: PathBuf,
    pub(super) root: PathBuf,
}

/// That directory once more, with the owners mapped: what is mounted of it from here is mapped too.
pub(super) struct Mapped {
    root: PathBuf,
    at: PathBuf,
}

/// Enters a new mount namespace, in which nothing that is mounted below `rootfs` reaches the host.
pub(super) fn enter(rootfs: &Path, users: Option<&Users>) -> Result<Option<Mapped>, String> {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    sys::unshare(libc::CLONE_NEWNS).map_err(|error| failed("unshare", error))?;
    fs::create_dir_all(rootfs).map_err(|error| failed("directory", error))?;
    seclude(rootfs).map_err(|error| failed("propagation", error))?;
    let Some(users) = users else { return Ok(None) };
    let at = rootfs.with_file_name(MAPPED);
    fs::create_dir_all(&at).map_err(|error| failed("directory", error))?;
    let mapped = |error: io::Error| {
        format!(
            "{}: the kernel cannot mount this file system with the pod's users: {error}",
            users.root.display()
        )
    };
    map(users, &at).map_err(mapped)?;
    Ok(Some(Mapped { root: users.root.clone(), at }))
}

/// Mounts everything there.
pub(super) fn assemble(
    mounts: &[Mount],
    rootfs: &Path,
    mapped: Option<&Mapped>,
) -> Result<(), String> {
    for mount in mounts {
        let target = rootfs.join(mount.target.trim_start_matches('/'));
        mount_mapped(mount, &target, mapped)?;
    }
    Ok(())
}

/// Mounts each volume at its own target, in the namespace of [`enter`]. The target is made only
/// here: where a volume is not mounted, the runtime finds nothing to bind, and says so.
pub(super) fn add(volumes: &[Mount], mapped: Option<&Mapped>) -> Result<(), String> {
    for volume in volumes {
        let target = Path::new(&volume.target);
        if !target.is_absolute() {
            return Err(format!("{target:?} is not absolute"));
        }
        fs::create_dir_all(target).map_err(|error| format!("{}: {error}", target.display()))?;
        seclude(target).map_err(|error| format!("{}: {error}", target.display()))?;
        mount_mapped(volume, target, mapped)?;
    }
    Ok(())
}

fn mount_mapped(mount: &Mount, target: &Path, mapped: Option<&Mapped>) -> Result<(), String> {
    let mut mount = from_wire(mount);
    if let Some(mapped) = mapped {
        mapped.translate(&mut mount)?;
    }
    mount::mount(&mount, target).map_err(|error| error.to_string())
}

/// A detached copy of the directory's mount, its owners mapped, attached at `at`.
fn map(users: &Users, at: &Path) -> io::Result<()> {
    let namespace = fs::File::open(&users.namespace)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, &users.root, flags)?;
    shim::sys::map_owners(tree.as_fd(), namespace.as_fd())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree.as_fd(), c"", CWD, at, flags)?)
}

impl Mapped {
    /// Has a mount take its files from the mapped copy.
    ///
    /// What is written goes to the disk under the owners that the pod's users have on the host: the kernel would
    /// make files in a mapped directory only for owners that the map has, and whoever mounts an overlay is none.
    fn translate(&self, mount: &mut mount::Mount) -> Result<(), String> {
        let there = |path: &Path| -> Result<PathBuf, String> {
            let root = self.root.display();
            let below = path
                .strip_prefix(&self.root)
                .map_err(|_| format!("{} is not below {root}", path.display()))?;
            Ok(self.at.join(below))
        };
        for layer in &mut mount.layers {
            *layer = there(layer)?;
        }
        if let (Some(upper), Some(top)) = (&mount.upper, mount.layers.first()) {
            let failed = |error: io::Error| format!("{}: {error}", upper.display());
            let like = fs::metadata(top).map_err(failed)?;
            chown(upper, Some(like.uid()), Some(like.gid())).map_err(failed)?;
        }
        if mount.kind == mount::Kind::Bind {
            mount.source = there(&mount.source)?;
        }
        Ok(())
    }

    /// The copy goes; what was mounted of it stays.
    pub(super) fn done(self) -> Result<(), String> {
        mount::umount(&self.at).map_err(|error| error.to_string())
    }
}

/// Keeps what is mounted below `path` from reaching the host, where its mount is shared.
///
/// Under podwrightd it is not (`/run/podwright` is private), and nothing is changed. Elsewhere
/// that one mount becomes a slave of the host's, in this namespace only.
pub(super) fn seclude(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // The last one wins: a mount hides what was mounted below its place before.
    let mut holder: Option<(PathBuf, bool)> = None;
    for line in table.lines() {
        let mut fields = line.split(' ');
        let (Some(place), Some(_)) = (fields.nth(4), fields.next()) else { continue };
        let place = unescape(place);
        let deeper = holder.as_ref().is_none_or(|(best, _)| place.starts_with(best));
        if path.starts_with(&place) && deeper {
            let shared = fields.take_while(|field| *field != "-");
            holder = Some((place, shared.into_iter().any(|field| field.starts_with("shared:"))));
        }
    }
    if let Some((place, true)) = holder {
        rustix::mount::mount_change(place, MountPropagationFlags::DOWNSTREAM)?;
    }
    Ok(())
}

/// `\040` and its like, as the kernel writes blanks in paths.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &more[3..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    OsString::from_vec(bytes).into()
}
