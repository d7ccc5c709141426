//! What can go wrong, one variant per decision that a caller can make.

use std::io;
use std::path::{Path, PathBuf};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a system call.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A mount was refused, with the kernel's own words where it gave any.
    #[error("mount {fs} at {}: {source}{}", target.display(), reason(.log))]
    Mount {
        /// The file system's type.
        fs: String,
        /// Where it was to appear.
        target: PathBuf,
        /// The messages that the kernel left in the file system context.
        log: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A root file system of more layers than the kernel's overlay takes.
    #[error("{count} layers, but an overlay takes at most {limit}")]
    TooManyLayers {
        /// How many were asked for.
        count: usize,
        /// How many the kernel takes.
        limit: usize,
    },
    /// The options do not fit the one page that mount(2) passes to the kernel.
    #[error("mount options of {0} bytes do not fit one page")]
    OptionsTooLong(usize),
    /// Not `sha256:` and 64 lower-case hex digits.
    #[error("{0:?} is not a layer id")]
    BadLayerId(String),
    /// A snapshot's key is 1 to 128 letters, digits, `-` and `_`, the first a letter or digit.
    #[error("{0:?} is not a snapshot key")]
    BadKey(String),
    /// A layer that is not there.
    #[error("layer {0} is not stored")]
    MissingLayer(String),
    /// A layer that a snapshot stands on.
    #[error("layer {layer} is used by snapshot {key}")]
    InUse {
        /// The layer.
        layer: String,
        /// One snapshot that uses it.
        key: String,
    },
    /// The key names a snapshot of other layers, or of the other access.
    #[error("snapshot {0} exists with other layers")]
    KeyInUse(String),
    /// The directory was filled by the other kind of snapshotter.
    #[error("{} holds layers of the {stored} snapshotter, not of {asked}", root.display())]
    OtherKind {
        /// The snapshotter's directory.
        root: PathBuf,
        /// The kind that filled it.
        stored: &'static str,
        /// The kind asked for.
        asked: &'static str,
    },
    /// No overlay can be mounted on this file system with these privileges.
    #[error("overlay does not work in {}: {source}", root.display())]
    NoOverlay {
        /// The snapshotter's directory.
        root: PathBuf,
        /// The step that failed.
        source: Box<Error>,
    },
    /// The layer's bytes are not what a layer may be.
    #[error("bad layer archive: {reason}{}", at(.entry))]
    BadArchive {
        /// The entry's path, empty where no entry is to blame.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The layer's bytes could not be read from the caller's reader.
    #[error("read the layer: {0}")]
    Read(io::Error),
    /// The layer exceeds a limit.
    #[error("the layer exceeds the limit of {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
}

fn reason(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

fn at(entry: &str) -> String {
    if entry.is_empty() { String::new() } else { format!(": {entry:?}") }
}

impl Error {
    /// For `map_err`: the operation `op` on `path`.
    pub(crate) fn io<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { op, path: path.to_owned(), source: source.into() }
    }

    /// For `map_err`: the operation `op` on a path of bytes.
    #[cfg(feature = "unpack")]
    pub(crate) fn at<E: Into<io::Error>>(op: &'static str, path: &[u8]) -> impl FnOnce(E) -> Error {
        use std::os::unix::ffi::OsStrExt as _;
        Error::io(op, Path::new(std::ffi::OsStr::from_bytes(path)))
    }

    #[cfg(feature = "unpack")]
    pub(crate) fn archive(entry: &[u8], reason: impl Into<String>) -> Error {
        let entry = String::from_utf8_lossy(entry).into_owned();
        Error::BadArchive { entry, reason: reason.into() }
    }
}
