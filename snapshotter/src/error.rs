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
}

fn reason(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

impl Error {
    /// For `map_err`: the operation `op` on `path`.
    pub(crate) fn io<E: Into<io::Error>>(op: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { op, path: path.to_owned(), source: source.into() }
    }
}
