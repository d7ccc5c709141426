//! A root file system, assembled from the mounts that the daemon named.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use api::types::Mount;
use rustix::mount::MountPropagationFlags;
use shim::mounts::from_wire;
use snapshotter::mount;

use crate::sys;

/// Enters a new mount namespace and mounts everything there.
pub(super) fn assemble(mounts: &[Mount], rootfs: &Path) -> Result<(), String> {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    sys::unshare(libc::CLONE_NEWNS).map_err(|error| failed("unshare", error))?;
    fs::create_dir_all(rootfs).map_err(|error| failed("directory", error))?;
    seclude(rootfs).map_err(|error| failed("propagation", error))?;
    for mount in mounts {
        let target = rootfs.join(mount.target.trim_start_matches('/'));
        mount::mount(&from_wire(mount), &target).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Mounts each volume at its own target, in the namespace of [`assemble`]. The target is made only
/// here: where a volume is not mounted, the runtime finds nothing to bind, and says so.
pub(super) fn add(volumes: &[Mount]) -> Result<(), String> {
    for volume in volumes {
        let target = Path::new(&volume.target);
        if !target.is_absolute() {
            return Err(format!("{target:?} is not absolute"));
        }
        fs::create_dir_all(target).map_err(|error| format!("{}: {error}", target.display()))?;
        seclude(target).map_err(|error| format!("{}: {error}", target.display()))?;
        mount::mount(&from_wire(volume), target).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Keeps what is mounted below `path` from reaching the host, where its mount is shared.
///
/// Under podwrightd it is not (`/run/podwright` is private), and nothing is changed. Elsewhere
/// that one mount becomes a slave of the host's, in this namespace only.
fn seclude(path: &Path) -> io::Result<()> {
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
