//! Layers: made from a tar stream ([`Ingest`]), described beside their tree ([`About`], the index),
//! put into place among others (`settle`), checked later (`verify`).

mod about;
mod archive;
mod dangling;
mod entry;
mod extract;
mod file;
mod index;
mod ingest;
mod lean;
mod marks;
mod merged;
mod parents;
mod settle;
mod stream;
mod verify;

pub(crate) use about::About;
pub use ingest::{Extracted, Ingest};
pub(crate) use marks::{Look, Marks, OPAQUE, OVERLAY_OPAQUE, PREFIX};

/// What a layer may cost. Exceeding a limit is [`crate::Error::Limit`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the uncompressed tar stream, whatever they turn out to be.
    pub max_bytes: u64,
    /// Files, directories and everything else that gets an inode.
    pub max_inodes: u64,
    /// Bytes of a path or of a symlink's target.
    pub max_path: u32,
    /// Bytes of all headers of one entry: long names, extended attributes, sparse maps.
    pub max_header: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_bytes: 64 << 30, max_inodes: 4 << 20, max_path: 4095, max_header: 1 << 20 }
    }
}

/// The directory of `path` and the name in it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}
