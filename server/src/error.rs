//! What can go wrong, one variant for each decision that a caller can make.
//!
//! `cri/status.rs` maps these to gRPC codes in one exhaustive table. An error is given its context once,
//! where the *what* is known, and is either returned or logged, never both.

use std::path::{Path, PathBuf};

/// The result of everything in the daemon that can fail.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, as the caller has to know it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No such object. The text ends as clients match it.
    #[error("{what} {id:?}: not found")]
    NotFound {
        /// `container`, `sandbox`, `image` …
        what: &'static str,
        /// As the client named it.
        id: String,
    },
    /// Another object bears that name already, with another configuration.
    #[error("{what} {name} exists already as {id}")]
    AlreadyExists {
        /// The kind of object.
        what: &'static str,
        /// The name that is taken.
        name: String,
        /// Who has it.
        id: String,
    },
    /// The request itself is wrong; names the field.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field in the CRI message.
        field: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// Right request, wrong moment.
    #[error("{0}")]
    WrongState(String),
    /// The caller's time, or a limit of ours, ran out.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// A Stop or Remove ended the operation.
    #[error("cancelled while {stage}: the object is being stopped or removed")]
    Cancelled {
        /// Where it was.
        stage: &'static str,
    },
    /// Too many of them at once.
    #[error("{0}")]
    Exhausted(String),
    /// Not now: starting up, shutting down.
    #[error("{0}")]
    Unavailable(String),
    /// Nothing that this version, or this node, can do.
    #[error("{0}")]
    Unsupported(String),
    /// An operating system call failed.
    #[error("{op} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// An OCI runtime or a shim refused or failed; carries its own words.
    #[error("{0}")]
    Runtime(String),
    /// The pod's network could not be made or unmade.
    #[error("pod network: {0}")]
    Network(String),
    /// The record of an object could not be kept.
    #[error("store: {0}")]
    Store(String),
    /// A pull or another image operation failed; the text carries the prefix that the kubelet matches, if any.
    #[error("{0}")]
    Image(String),
    /// A fault of ours.
    #[error("internal: {0}")]
    Internal(String),
}

impl Error {
    /// For `map_err` on a system call: the operation and the path it was about.
    pub(crate) fn io<E: Into<std::io::Error>>(
        op: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { op, path: path.to_owned(), source: source.into() }
    }

    /// A wrong value in a request.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    /// No such object.
    pub(crate) fn not_found(what: &'static str, id: impl Into<String>) -> Self {
        Self::NotFound { what, id: id.into() }
    }
}
