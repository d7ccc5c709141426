//! What can go wrong with an image, one variant for each decision of the caller.

use std::path::{Path, PathBuf};

use super::reference::InvalidReference;

/// A failure to get, keep or find an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The client's text is no reference.
    #[error(transparent)]
    Reference(#[from] InvalidReference),
    /// The credentials that the client passed cannot be used.
    #[error("credentials: {0}")]
    Credentials(&'static str),
    /// No registry that may serve the image has it.
    #[error("{0}: not found")]
    NotFound(String),
    /// No registry could be reached, or none was able to answer.
    #[error("RegistryUnavailable: {0}")]
    Unavailable(String),
    /// A registry answered and refused.
    #[error("{0}")]
    Refused(String),
    /// What the registry sent is not what it should be: a digest, a size or a format is wrong.
    #[error("{0}")]
    Content(String),
    /// The node's operator does not let it be used; the kubelet knows this failure by its first word.
    #[error("SignatureValidationFailed: {0}")]
    Signature(String),
    /// An image of a kind that is not run here.
    #[error("{0}")]
    Unsupported(String),
    /// The node's own registry configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// An operating system call failed.
    #[error("{op} {}: {source}", path.display())]
    Io { op: &'static str, path: PathBuf, source: std::io::Error },
    /// A layer could not be unpacked or found.
    #[error("{0}")]
    Snapshot(String),
    /// The record of an image could not be kept.
    #[error("{0}")]
    Store(String),
    /// An image of an archive could not be imported.
    #[error("{name}: {err}")]
    Import { name: String, err: std::sync::Arc<Error> },
    /// The work on a layer, shared with other pulls, ended so.
    #[error(transparent)]
    Layer(std::sync::Arc<Error>),
    /// A fault of ours.
    #[error("internal: {0}")]
    Internal(String),
}

#[cfg(feature = "failpoints")]
impl crate::failpoint::Injected for Error {
    fn injected(point: &str) -> Self {
        Self::Internal(format!("told to fail at {point}"))
    }
}

impl Error {
    /// The image is not what it should be.
    pub(super) fn content(text: impl Into<String>) -> Self {
        Self::Content(text.into())
    }

    /// The same, with what others said who were asked before.
    pub(super) fn after(self, others: &str) -> Self {
        let with = |text: String| format!("{text} (before it: {others})");
        match self {
            Self::NotFound(text) => Self::NotFound(with(text)),
            Self::Unavailable(text) => Self::Unavailable(with(text)),
            Self::Refused(text) => Self::Refused(with(text)),
            Self::Content(text) => Self::Content(with(text)),
            Self::Config(text) => Self::Config(with(text)),
            other => other,
        }
    }

    /// For `map_err` on a system call.
    pub(super) fn io<E: Into<std::io::Error>>(
        op: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source: source.into() }
    }
}
