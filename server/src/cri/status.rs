//! The one table from our errors to gRPC codes.

use std::sync::Arc;

use tonic::{Code, Status};

use crate::error::Error;

/// Exhaustive on purpose: a new kind of error has to choose its code here.
fn code(err: &Error) -> Code {
    match err {
        Error::NotFound { .. } => Code::NotFound,
        Error::AlreadyExists { .. } => Code::AlreadyExists,
        Error::Invalid { .. } => Code::InvalidArgument,
        Error::WrongState(_) => Code::FailedPrecondition,
        Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
        Error::Cancelled { .. } => Code::Aborted,
        Error::Exhausted(_) => Code::ResourceExhausted,
        Error::Unavailable(_) => Code::Unavailable,
        Error::Unsupported(_) => Code::Unimplemented,
        Error::Internal(_) => Code::Internal,
        // The kubelet takes the text of these as it is (it strips the wrapper of code Unknown only), and
        // matches prefixes of it.
        Error::Io { .. }
        | Error::Runtime(_)
        | Error::Network(_)
        | Error::Store(_)
        | Error::Image(_) => Code::Unknown,
    }
}

impl From<Error> for Status {
    fn from(err: Error) -> Self {
        Self::new(code(&err), err.to_string())
    }
}

/// For results that several callers share.
#[allow(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub(super) fn shared(err: Arc<Error>) -> Status {
    Status::new(code(&err), err.to_string())
}
