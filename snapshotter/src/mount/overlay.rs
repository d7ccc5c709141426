//! Overlay mounts, through the new mount API where it takes layers one by one, else the old one.

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags};

use super::options::{PAGE, Parsed, c_string};
use super::{MAX_LAYERS, Mount, refused};
use crate::{Error, Result};

/// The longest string that fsconfig(2) takes, without its terminator.
const MAX_STRING: usize = 255;

pub(super) fn mount(mount: &Mount, parsed: &Parsed<'_>, target: &Path) -> Result<()> {
    if mount.layers.len() > MAX_LAYERS {
        return Err(Error::TooManyLayers { count: mount.layers.len(), limit: MAX_LAYERS });
    }
    match attach(mount, parsed, target) {
        // The answers of a kernel that has no fsopen, or whose overlayfs has no `lowerdir+`, and of
        // a seccomp filter that knows mount(2) only.
        Err(Error::Mount { source, .. })
            if [Errno::NOSYS, Errno::INVAL, Errno::PERM, Errno::OPNOTSUPP]
                .iter()
                .any(|errno| source.raw_os_error() == Some(errno.raw_os_error())) =>
        {
            classic(mount, parsed, target)
        }
        done => done,
    }
}

fn attach(mount: &Mount, parsed: &Parsed<'_>, target: &Path) -> Result<()> {
    let fd = detached(mount, parsed, target)?;
    rustix::mount::move_mount(fd.as_fd(), c"", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| refused("overlay", target, errno))
}

/// A detached mount. The kernel has checked everything; it appears nowhere yet.
pub(super) fn detached(mount: &Mount, parsed: &Parsed<'_>, target: &Path) -> Result<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(|errno| refused("overlay", target, errno))?;
    configure(&fs, mount, parsed)
        .and_then(|()| {
            let flags = FsMountFlags::FSMOUNT_CLOEXEC;
            rustix::mount::fsmount(fs.as_fd(), flags, parsed.attributes())
        })
        .map_err(|errno| Error::Mount {
            fs: "overlay".to_owned(),
            target: target.to_owned(),
            log: complaints(&fs),
            source: errno.into(),
        })
}

fn configure(fs: &OwnedFd, mount: &Mount, parsed: &Parsed<'_>) -> rustix::io::Result<()> {
    let mut aliases = Aliases::default();
    let set = |key: &str, value: &[u8]| {
        let value = CString::new(value).map_err(|_| Errno::INVAL)?;
        rustix::mount::fsconfig_set_string(fs.as_fd(), key, value.as_c_str())
    };
    set("source", b"overlay")?;
    for layer in &mount.layers {
        set("lowerdir+", &aliases.short(layer, MAX_STRING)?)?;
    }
    if let Some(upper) = &mount.upper {
        set("upperdir", &aliases.short(upper, MAX_STRING)?)?;
    }
    if let Some(work) = &mount.work {
        set("workdir", &aliases.short(work, MAX_STRING)?)?;
    }
    for option in &parsed.data {
        match option.split_once('=') {
            // Marks are for the one string of mount(2).
            Some((key, value)) => set(key, value.trim_matches('"').as_bytes())?,
            None => rustix::mount::fsconfig_set_flag(fs.as_fd(), *option)?,
        }
    }
    if mount.upper.is_none() {
        rustix::mount::fsconfig_set_flag(fs.as_fd(), "ro")?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())
}

/// What the kernel has to say about a context that it refused.
fn complaints(fs: &OwnedFd) -> String {
    let mut log = String::new();
    let mut line = [0u8; 512];
    while let Ok(length @ 1..) = rustix::io::read(fs, &mut line[..]) {
        let text = String::from_utf8_lossy(&line[..length]);
        let separator = if log.is_empty() { "" } else { "; " };
        let _ = write!(log, "{separator}{}", text.trim_end());
    }
    log
}

/// Through mount(2): paths as they are while they fit a page, else all by descriptor.
pub(super) fn classic(mount: &Mount, parsed: &Parsed<'_>, target: &Path) -> Result<()> {
    let mut aliases = Aliases::default();
    let refuse = |errno| refused("overlay", target, errno);
    let mut data = data(mount, parsed, |path| aliases.short(path, MAX_STRING)).map_err(refuse)?;
    if data.len() >= PAGE {
        data = self::data(mount, parsed, |path| aliases.short(path, 0)).map_err(refuse)?;
    }
    rustix::mount::mount("overlay", target, "overlay", parsed.flags, c_string(data)?.as_c_str())
        .map_err(refuse)
}

fn data<'m>(
    mount: &'m Mount,
    parsed: &Parsed<'_>,
    mut name: impl FnMut(&'m PathBuf) -> rustix::io::Result<Cow<'m, [u8]>>,
) -> rustix::io::Result<Vec<u8>> {
    let mut data = b"lowerdir=".to_vec();
    for (position, layer) in mount.layers.iter().enumerate() {
        if position > 0 {
            data.push(b':');
        }
        data.extend_from_slice(&name(layer)?);
    }
    for (key, path) in [("upperdir", &mount.upper), ("workdir", &mount.work)] {
        if let Some(path) = path {
            data.extend_from_slice(format!(",{key}=").as_bytes());
            data.extend_from_slice(&name(path)?);
        }
    }
    for option in &parsed.data {
        data.push(b',');
        data.extend_from_slice(option.as_bytes());
    }
    Ok(data)
}

/// Short names for long paths: the descriptors behind them stay open until the mount exists.
#[derive(Default)]
struct Aliases(Vec<OwnedFd>);

impl Aliases {
    fn short<'p>(&mut self, path: &'p Path, longest: usize) -> rustix::io::Result<Cow<'p, [u8]>> {
        let bytes = path.as_os_str().as_bytes();
        let special = |byte: &u8| matches!(byte, b':' | b',' | b'\\' | b'\n');
        if bytes.len() <= longest && !bytes.iter().any(special) {
            return Ok(Cow::Borrowed(bytes));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let alias = format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes();
        self.0.push(fd);
        Ok(Cow::Owned(alias))
    }
}
