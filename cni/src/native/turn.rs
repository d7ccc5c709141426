//! Turns that our own threads take without asking the kernel.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::deadline::{Deadline, Over};

/// How often whoever waits looks whether it may wait on.
const LOOK: Duration = Duration::from_millis(50);

/// What is being worked on, of which each is one thread's at a time.
#[derive(Debug)]
pub(crate) struct Turns<K: 'static> {
    taken: Mutex<BTreeSet<K>>,
    freed: Condvar,
}

/// The right to work on something, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<K: Ord + 'static>(&'static Turns<K>, K);

impl<K: Ord> Turns<K> {
    pub(crate) const fn new() -> Self {
        Self { taken: Mutex::new(BTreeSet::new()), freed: Condvar::new() }
    }

    fn taken(&self) -> MutexGuard<'_, BTreeSet<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Ord + Clone> Turns<K> {
    /// Waits for whoever works on `what`, who has a deadline too.
    pub(crate) fn wait(&'static self, what: K, deadline: &Deadline) -> Result<Turn<K>, Over> {
        let mut taken = self.taken();
        while !taken.insert(what.clone()) {
            deadline.check()?;
            let woken = self.freed.wait_timeout(taken, deadline.left().min(LOOK));
            taken = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Turn(self, what))
    }
}

impl<K: Ord> Drop for Turn<K> {
    fn drop(&mut self) {
        self.0.taken().remove(&self.1);
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_waited_for_and_another_is_not() {
        static TURNS: Turns<u8> = Turns::new();
        let soon = Deadline::after(Duration::from_millis(20));
        let patient = Deadline::after(Duration::from_secs(10));
        let first = TURNS.wait(1, &patient).unwrap();
        assert!(TURNS.wait(2, &patient).is_ok());
        assert_eq!(TURNS.wait(1, &soon).unwrap_err(), Over::TimedOut);
        std::thread::scope(|scope| {
            let next = scope.spawn(|| TURNS.wait(1, &patient).is_ok());
            drop(first);
            assert!(next.join().unwrap());
        });
        assert!(TURNS.wait(1, &soon).is_ok(), "free ones are had even when it is late");
    }
}
