//! An operation under way: what it is about, which stage it is in, since when, and whether it shall end.
//!
//! Operations belong to the daemon, not to the caller that asked for them. The one that runs one tells it
//! each stage it enters; whoever waits for it can say where it is and for how long.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};

/// Shared between the task that works and those who wait for it.
#[derive(Debug)]
pub(crate) struct Operation {
    what: String,
    started: Instant,
    stage: Mutex<(&'static str, Instant)>,
    cancel: CancellationToken,
}

/// Where an operation is, for an error text.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub what: String,
    pub stage: &'static str,
    pub in_stage: Duration,
    pub age: Duration,
}

impl Operation {
    /// A new operation in its first stage, described as `verb object`.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let now = Instant::now();
        Self {
            what: what.into(),
            started: now,
            stage: Mutex::new(("queued", now)),
            cancel: CancellationToken::new(),
        }
    }

    /// Enters a stage, named as it reads after "while" (`mounting the root file system`).
    ///
    /// # Errors
    /// `Cancelled` when the operation shall end: stages are where it may.
    pub(crate) fn enter(&self, stage: &'static str) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled { stage: self.progress().stage });
        }
        tracing::debug!(operation = %self.what, stage, "enters stage");
        *self.lock() = (stage, Instant::now());
        Ok(())
    }

    /// Asks the operation to end at its next stage.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Resolves once somebody cancelled; for stages that can be left at any time.
    pub(crate) fn cancelled(&self) -> tokio_util::sync::WaitForCancellationFuture<'_> {
        self.cancel.cancelled()
    }

    /// The cancel state itself, for work that is not async.
    pub(crate) fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Where it is now.
    pub(crate) fn progress(&self) -> Progress {
        let (stage, since) = *self.lock();
        Progress {
            what: self.what.clone(),
            stage,
            in_stage: since.elapsed(),
            age: self.started.elapsed(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (&'static str, Instant)> {
        // Nothing can panic while holding it: the guarded value is only copied.
        self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} for {:.1} s, {:.1} s in all",
            self.what,
            self.stage,
            self.in_stage.as_secs_f64(),
            self.age.as_secs_f64()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_operation_ends_at_its_next_stage_and_says_where_it_was() {
        let operation = Operation::new("run sandbox x");
        operation.enter("starting the shim").unwrap();
        operation.cancel();
        let err = operation.enter("attaching the network").unwrap_err();
        assert!(matches!(err, Error::Cancelled { stage: "starting the shim" }), "{err}");
    }
}
