//! Waiting for a condition, with a limit and without guessing how long it takes.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything on this machine may take that should take milliseconds. Only a test that fails waits so long.
pub const LIMIT: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(5);

/// Polls until `ready` has a value; panics with what was waited for after [`LIMIT`].
pub fn eventually<T>(what: &str, ready: impl FnMut() -> Option<T>) -> T {
    within(LIMIT, what, ready)
}

/// How many times that is still short: `PODWRIGHT_PATIENCE`, for machines whose processors are emulated.
pub(crate) fn patience() -> u32 {
    static TIMES: OnceLock<u32> = OnceLock::new();
    let told = || std::env::var("PODWRIGHT_PATIENCE").ok().and_then(|times| times.parse().ok());
    *TIMES.get_or_init(|| told().unwrap_or(1))
}

/// Polls until `ready` has a value; panics with what was waited for after `limit`, or as many times that as
/// `patience` says.
pub fn within<T>(limit: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let limit = limit * patience();
    let start = Instant::now();
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(PAUSE);
    }
}
