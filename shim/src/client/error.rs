//! What can go wrong between a daemon and a shim.

use std::fmt;
use std::io;
use std::time::Duration;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers at the address.
    #[error("connect to {address}")]
    Connect {
        /// The shim's address.
        address: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The connection ended before the answer: the shim is gone, or was told to go.
    #[error("the shim closed the connection during {method}")]
    Lost {
        /// The call that was under way.
        method: &'static str,
    },
    /// No answer in time. The shim may still be at it.
    #[error("{method} took longer than {limit:?}")]
    Deadline {
        /// The call.
        method: &'static str,
        /// What it was granted.
        limit: Duration,
    },
    /// The shim refused.
    #[error("{message}")]
    Refused {
        /// The call.
        method: &'static str,
        /// The kind of refusal.
        code: Code,
        /// The shim's own words.
        message: String,
    },
    /// The answer, or the question, is not what the protocol allows.
    #[error("{method}: {what}")]
    Malformed {
        /// The call.
        method: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// Whether what the call was about does not exist (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: Code::NotFound, .. })
    }

    /// Whether the shim is not there to be asked.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Connect { .. })
    }

    pub(super) fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Refused { code: Code::Unimplemented, .. })
    }
}

/// gRPC's status codes, as far as a caller decides by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// 3
    InvalidArgument,
    /// 4
    DeadlineExceeded,
    /// 5
    NotFound,
    /// 6
    AlreadyExists,
    /// 9
    FailedPrecondition,
    /// 12
    Unimplemented,
    /// All others, most of them 2 (unknown).
    Other(i32),
}

impl Code {
    pub(super) fn from_number(number: i32) -> Self {
        match number {
            3 => Self::InvalidArgument,
            4 => Self::DeadlineExceeded,
            5 => Self::NotFound,
            6 => Self::AlreadyExists,
            9 => Self::FailedPrecondition,
            12 => Self::Unimplemented,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
