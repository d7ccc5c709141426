//! What can go wrong, told apart by what a caller can do about it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a plugin is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach a container.
    Add,
    /// Detach it and release what was allocated.
    Del,
    /// Is the attachment as it was made?
    Check,
    /// Release whatever belongs to no valid attachment.
    Gc,
    /// Could an ADD succeed now?
    Status,
    /// Which versions of the specification does the plugin know?
    Version,
}

impl Verb {
    /// As `CNI_COMMAND` says it.
    pub fn command(self) -> &'static str {
        match self {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
            Verb::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verb::Add => "add",
            Verb::Del => "delete",
            Verb::Check => "check",
            Verb::Gc => "gc",
            Verb::Status => "status",
            Verb::Version => "version",
        })
    }
}

/// The error object that a plugin prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One of the specification's codes (below 100) or the plugin's own.
    pub code: u64,
    /// What went wrong, in a few words.
    pub msg: String,
    /// More of it; may be empty.
    pub details: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, "; {}", self.details)?;
        }
        write!(f, " (code {})", self.code)
    }
}

/// A failure. The wording of plugin failures begins as libcni's does, since people search for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A configuration or an attachment that cannot be used; no plugin was executed.
    #[error("{0}")]
    Invalid(String),
    /// The plugin is in none of the directories.
    #[error("plugin type={plugin:?} failed ({verb}): not found in {dirs}")]
    Missing {
        /// Its `type`.
        plugin: String,
        /// What it was wanted for.
        verb: Verb,
        /// Where it was looked for, separated by colons.
        dirs: String,
    },
    /// The plugin said no.
    #[error("plugin type={plugin:?} failed ({verb}): {answer}")]
    Refused {
        /// Its `type`.
        plugin: String,
        /// What it was asked for.
        verb: Verb,
        /// What it answered.
        answer: Answer,
    },
    /// The plugin died, or its output makes no sense.
    #[error("plugin type={plugin:?} failed ({verb}): {problem}")]
    Broken {
        /// Its `type`.
        plugin: String,
        /// What it was asked for.
        verb: Verb,
        /// What is wrong, with an excerpt of what it printed.
        problem: String,
    },
    /// The deadline passed; the plugin's process group was killed.
    #[error("plugin type={plugin:?} failed ({verb}): no answer after {after:.1?}, killed")]
    TimedOut {
        /// Its `type`.
        plugin: String,
        /// What it was asked for.
        verb: Verb,
        /// How long it had.
        after: Duration,
    },
    /// The caller cancelled; the plugin's process group, if one ran, was killed.
    #[error("plugin type={plugin:?} failed ({verb}): cancelled")]
    Cancelled {
        /// Its `type`.
        plugin: String,
        /// What it was asked for.
        verb: Verb,
    },
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
}

impl Error {
    /// The plugin at fault, if one is.
    pub fn plugin(&self) -> Option<&str> {
        match self {
            Error::Missing { plugin, .. }
            | Error::Refused { plugin, .. }
            | Error::Broken { plugin, .. }
            | Error::TimedOut { plugin, .. }
            | Error::Cancelled { plugin, .. } => Some(plugin),
            Error::Invalid(_) | Error::Io { .. } => None,
        }
    }

    /// The code that the plugin answered with.
    pub fn code(&self) -> Option<u64> {
        match self {
            Error::Refused { answer, .. } => Some(answer.code),
            _ => None,
        }
    }

    /// The plugin asks to be called again later (code 11).
    pub fn is_try_again_later(&self) -> bool {
        self.code() == Some(11)
    }

    /// A STATUS that says: not available (50), or only for what is attached already (51).
    pub fn is_not_ready(&self) -> bool {
        matches!(self, Error::Refused { verb: Verb::Status, answer, .. } if matches!(answer.code, 50 | 51))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }

    pub(crate) fn io(op: &'static str, path: &Path, source: impl Into<std::io::Error>) -> Self {
        Error::Io { op, path: path.to_path_buf(), source: source.into() }
    }
}
