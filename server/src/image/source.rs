//! Where the parts of an image come from: a registry, or an archive. Either may lie; what they give is verified by
//! whoever asked.

use std::sync::Arc;

use bytes::Bytes;

use super::archive::{Archive, Piece, Top};
use super::digest::Digest;
use super::error::Error;
use super::manifest::{Descriptor, MAX_CONFIG, MAX_MANIFEST};
use super::pull::blocking;
use super::reference::Target;
use super::registry::{Blob, Fetched, Session};

/// One image's source.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Registry(Arc<Session>),
    Archive { archive: Arc<Archive>, top: Top },
}

/// A layer's blob on its way, in order.
#[derive(Debug)]
pub(super) enum Flow {
    Registry(Box<Blob>),
    Archive(Piece),
}

impl Source {
    /// What the reference leads to.
    pub(super) async fn top(&self, target: &Target) -> Result<Fetched, Error> {
        match self {
            Self::Registry(session) => session.manifest(target).await,
            Self::Archive { top, .. } => {
                if let Target::Digest(digest) = target
                    && *digest != top.digest
                {
                    let has = &top.digest;
                    return Err(Error::content(format!("the archive has {has} as {digest}")));
                }
                Ok(Fetched { bytes: top.bytes.clone(), content_type: top.media_type.clone() })
            }
        }
    }

    /// A manifest or index that another names, verified.
    pub(super) async fn manifest(&self, entry: &Descriptor) -> Result<Vec<u8>, Error> {
        match self {
            Self::Registry(session) => {
                Ok(session.manifest(&Target::Digest(entry.digest.clone())).await?.bytes)
            }
            Self::Archive { archive, .. } => document(archive, entry, MAX_MANIFEST).await,
        }
    }

    /// A config, verified.
    pub(super) async fn config(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        match self {
            Self::Registry(session) => session.small_blob(descriptor).await,
            Self::Archive { archive, .. } => document(archive, descriptor, MAX_CONFIG).await,
        }
    }

    /// A layer's blob, not verified yet.
    pub(super) async fn blob(&self, descriptor: &Descriptor) -> Result<Flow, Error> {
        match self {
            Self::Registry(session) => {
                Ok(Flow::Registry(Box::new(session.blob(descriptor).await?)))
            }
            Self::Archive { archive, .. } => {
                let (archive, descriptor) = (archive.clone(), descriptor.clone());
                let piece = blocking(move || archive.blob(&descriptor)).await?;
                Ok(Flow::Archive(piece))
            }
        }
    }

    /// True if there is another place to try, now that a blob was wrong.
    pub(super) fn distrust(&self, digest: &Digest) -> bool {
        match self {
            Self::Registry(session) => session.distrust(digest),
            Self::Archive { .. } => false,
        }
    }
}

async fn document(
    archive: &Arc<Archive>,
    descriptor: &Descriptor,
    cap: u64,
) -> Result<Vec<u8>, Error> {
    let (archive, descriptor) = (archive.clone(), descriptor.clone());
    blocking(move || archive.document(&descriptor, cap)).await
}

impl Flow {
    /// The next bytes; `None` at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Self::Registry(blob) => blob.chunk().await,
            Self::Archive(piece) => piece.chunk().await,
        }
    }
}
