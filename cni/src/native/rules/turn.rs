//! One change of the tables at a time.
//!
//! Of two that find the same missing only one may add it: the executables, of which each looks for itself, were seen
//! to double the rules that all pods share when pods came at once.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::Problem;
use crate::deadline::Deadline;

/// How often whoever waits looks whether it may wait on.
const LOOK: Duration = Duration::from_millis(50);

static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The right to change tables.
pub(crate) struct Turn;

impl Turn {
    /// Waits for whoever has it, who has a deadline too.
    pub(crate) fn wait(deadline: &Deadline) -> Result<Self, Problem> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            if deadline.is_cancelled() {
                return Err(Problem::Cancelled);
            }
            let left = deadline.left();
            if left.is_zero() {
                return Err(Problem::TimedOut);
            }
            let woken = FREE.wait_timeout(taken, left.min(LOOK));
            taken = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        Ok(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap_or_else(PoisonError::into_inner) = false;
        FREE.notify_one();
    }
}
