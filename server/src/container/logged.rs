//! What became of containers' output, counted into the daemon's metrics as it grows.
//!
//! Shims keep the counts of a running container in a file of its bundle, which is read when somebody wants the metrics,
//! and say the last in the exit record. What a container adds is counted once, whoever looks first.

use std::sync::{Mutex, PoisonError};

use shim::record::{LOGGED, Logged};

use super::Container;
use crate::metric;

/// How far a container's output has been counted.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<Logged>);

impl Counted {
    /// Counts up to `now`.
    pub(super) fn until(&self, now: Logged) {
        let before = self.replaced(now);
        let Logged { bytes, lost_bytes, lost_lines } = now;
        metric::LOG_BYTES.of([]).add(bytes.saturating_sub(before.bytes));
        metric::LOG_LOST_BYTES.of([]).add(lost_bytes.saturating_sub(before.lost_bytes));
        metric::LOG_LOST_LINES.of([]).add(lost_lines.saturating_sub(before.lost_lines));
    }

    /// What was, where it was less: counts only grow, but two may have looked at once.
    fn replaced(&self, now: Logged) -> Logged {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *counted;
        *counted = Logged {
            bytes: before.bytes.max(now.bytes),
            lost_bytes: before.lost_bytes.max(now.lost_bytes),
            lost_lines: before.lost_lines.max(now.lost_lines),
        };
        before
    }
}

fn told(container: &Container) -> Option<Logged> {
    let path = container.fixed.bundle.join(LOGGED);
    Logged::read(&path).unwrap_or_else(|err| {
        tracing::debug!(path = %path.display(), %err, "counts of a log not read");
        None
    })
}

/// Counts what was logged since the last time. Blocks, for one small file in memory.
pub(crate) fn count(container: &Container) {
    if let Some(now) = told(container) {
        container.logged.until(now);
    }
}

/// Leaves out what has been logged so far: an earlier daemon has counted it. Blocks as `count`.
pub(crate) fn skip(container: &Container) {
    if let Some(now) = told(container) {
        container.logged.replaced(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_counted_once() {
        let counted = Counted::default();
        let at = |bytes| Logged { bytes, lost_bytes: bytes / 2, lost_lines: 1 };
        assert_eq!(counted.replaced(at(10)), Logged::default());
        assert_eq!(counted.replaced(at(8)), at(10), "an older look");
        assert_eq!(counted.replaced(at(12)), at(10));
        let before = metric::LOG_BYTES.of([]).value();
        counted.until(at(15));
        counted.until(at(15));
        assert!(metric::LOG_BYTES.of([]).value() >= before + 3);
    }
}
