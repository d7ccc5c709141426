//! Layers to root file systems.
//!
//! A *layer* is a directory tree, made once from a tar stream and never changed. A *snapshot* is an
//! ordered list of layers plus, if it is to be written to, a directory for the changes. The
//! [`Snapshotter`] keeps both in one directory and says how a snapshot is mounted; it never mounts
//! anything itself. [`mount`] does that, wherever its caller wants it. Layers are stored by their
//! diff id, whatever they lie on, so one that two images share exists once, and all of an image can
//! be unpacked at the same time.
//!
//! The path of an image:
//!
//! ```no_run
//! # fn main() -> snapshotter::Result<()> {
//! # let diff_ids: Vec<snapshotter::LayerId> = Vec::new();
//! # let uncompressed = |_: &snapshotter::LayerId| std::io::empty();
//! use snapshotter::{Kind, Limits, Snapshotter};
//!
//! let snapshotter = Snapshotter::open("/var/lib/podwright/snapshots".as_ref(), Kind::Auto)?;
//! for diff_id in &diff_ids {
//!     // In any order, in parallel; a layer that is there already needs no bytes.
//!     if !snapshotter.has(diff_id) {
//!         let mut ingest = snapshotter.ingest(Limits { max_bytes: 1 << 30, ..Limits::default() })?;
//!         let extracted = ingest.extract(uncompressed(diff_id))?;
//!         assert_eq!(extracted.diff_id, *diff_id, "the registry sent something else");
//!         ingest.commit(diff_id)?;
//!     }
//! }
//! // Once all are there: what to mount, which is `diff_ids` unless a layer leans on those below.
//! let layers = snapshotter.settle(&diff_ids)?;
//! snapshotter.sync()?;
//! // Record the image now: its diff ids and `layers`, both to be kept from `gc`.
//! for mount in snapshotter.prepare("container-1", &layers)? {
//!     snapshotter::mount::mount(&mount, "/run/podwright/pods/1/ctr/1/rootfs".as_ref())?;
//! }
//! # Ok(()) }
//! ```
//!
//! Layer bytes are hostile: every path is resolved inside the layer's own tree, by descriptors, and
//! every read has a limit. It never follows what it unpacked.
//!
//! With the feature `unpack` off only [`mount`] is left, which is all that a shim needs.

#![forbid(unsafe_code)]

#[cfg(feature = "unpack")]
mod copy;
mod error;
#[cfg(feature = "unpack")]
mod id;
#[cfg(feature = "unpack")]
mod layer;
pub mod mount;
#[cfg(feature = "unpack")]
mod probe;
#[cfg(feature = "unpack")]
mod proofs;
#[cfg(feature = "unpack")]
mod snapshot;
#[cfg(feature = "unpack")]
mod snapshotter;
#[cfg(feature = "unpack")]
mod trash;
#[cfg(feature = "unpack")]
mod walk;

pub use error::{Error, Result};
#[cfg(feature = "unpack")]
pub use id::LayerId;
#[cfg(feature = "unpack")]
pub use layer::{Extracted, Ingest, Limits};
#[cfg(feature = "unpack")]
pub use snapshotter::{Kind, Snapshotter};

/// What something takes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Files, directories and everything else that has an inode.
    pub inodes: u64,
}
