//! Waiting for a condition, with a limit and without guessing how long it takes.

use std::time::{Duration, Instant};

/// How long anything on this machine may take that should take milliseconds.
pub const LIMIT: Duration = Duration::from_secs(20);

const PAUSE: Duration = Duration::from_millis(5);

/// Polls until `ready` has a value; panics with what was waited for after [`LIMIT`].
pub fn eventually<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, what, ready)
}

/// Polls until `ready` has a value; panics with what was waited for after `limit`.
pub fn within<T>(limit: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}
