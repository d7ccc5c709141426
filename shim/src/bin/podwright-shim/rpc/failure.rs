//! Errors as ttrpc carries them.

use std::fmt::Display;
use std::io;

/// A gRPC status code and what a person should read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) message: String,
}

impl Failure {
    fn new(code: i32, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }

    /// Something outside of us went wrong; the text is all there is to know.
    pub(crate) fn unknown(message: impl Display) -> Self {
        Self::new(2, message)
    }

    pub(crate) fn invalid(message: impl Display) -> Self {
        Self::new(3, message)
    }

    pub(crate) fn not_found(message: impl Display) -> Self {
        Self::new(5, message)
    }

    pub(crate) fn exists(message: impl Display) -> Self {
        Self::new(6, message)
    }

    pub(crate) fn exhausted(message: impl Display) -> Self {
        Self::new(8, message)
    }

    pub(crate) fn precondition(message: impl Display) -> Self {
        Self::new(9, message)
    }

    pub(crate) fn unimplemented(message: impl Display) -> Self {
        Self::new(12, message)
    }

    /// An I/O error, with what was being done.
    pub(crate) fn io(what: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::unknown(format_args!("{what}: {error}"))
    }
}
