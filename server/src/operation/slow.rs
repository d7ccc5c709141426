//! Operations that take long are told in the log, while they still do.
//!
//! At once, twice and four times of what their kind may take, beyond what their caller gave them. With no operation
//! under way that could become slow, nothing here runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Operation, Operations};
use crate::metric;

/// At how many times the threshold it is told.
const TIMES: [u32; 3] = [1, 2, 4];
/// Kinds that move whole images, or read all of them, and how much longer they may take.
const LONGER: (&[&str], u32) =
    (&["pull", "import an archive", "export", "repair layer", "fsck", "fsck --fix"], 6);

impl Operations {
    /// Tells of slow operations, for ever.
    pub(crate) async fn watch_slow(&self, threshold: Duration) {
        loop {
            match self.tell_slow(threshold) {
                // What begins meanwhile is not slow before that, either.
                Some(due) => tokio::time::sleep(due.min(threshold)).await,
                None => self.begun.notified().await,
            }
        }
    }

    /// Tells of those that are due, and returns in how long the next one is; `None`: none ever will.
    fn tell_slow(&self, threshold: Duration) -> Option<Duration> {
        self.alive().iter().filter_map(|operation| operation.tell_slow(threshold)).min()
    }
}

impl Operation {
    fn tell_slow(&self, threshold: Duration) -> Option<Duration> {
        let (kinds, factor) = LONGER;
        let kind = self.what.kind();
        let may = if kinds.contains(&kind) { threshold * factor } else { threshold };
        let allowed = Duration::from_millis(self.allowed.load(Ordering::Relaxed));
        // Only one task looks, so nobody else changes how often it was told.
        let mut told = usize::from(self.told.load(Ordering::Relaxed));
        let (age, mut passed) = (self.age(), None);
        loop {
            let due = TIMES.get(told).map(|times| may.saturating_mul(*times));
            let due = due.map(|due| due.saturating_add(allowed).saturating_sub(age));
            if due != Some(Duration::ZERO) {
                if let Some(times) = passed {
                    self.is_slow(times);
                }
                self.told.store(u8::try_from(told).unwrap_or(u8::MAX), Ordering::Relaxed);
                return due.filter(|due| *due < FOREVER);
            }
            if told == 0 {
                metric::SLOW.of([kind]).add(1);
            }
            passed = Some(TIMES[told]);
            told += 1;
        }
    }

    fn is_slow(&self, times: u32) {
        let now = self.progress();
        tracing::warn!(
            verb = self.what.kind(),
            object = self.what.object(),
            stage = now.stage,
            in_stage_seconds = now.in_stage.as_secs_f64(),
            age_seconds = now.age.as_secs_f64(),
            waits_for = now.waits_for.join(" and "),
            thresholds = times,
            "operation is slow"
        );
    }
}

/// Nobody waits for what comes later.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::operation::What;

    fn told(operation: &Arc<Operation>) -> u8 {
        operation.told.load(Ordering::Relaxed)
    }

    #[test]
    fn an_operation_is_told_of_at_each_threshold_and_not_before() {
        let operations = Operations::default();
        assert_eq!(operations.tell_slow(Duration::from_secs(1)), None, "there is none");
        let slow = operations.begin(What::new("run sandbox", "a"));
        let pull = operations.begin(What::new("pull", "b"));
        let due = operations.tell_slow(Duration::from_secs(3600)).unwrap();
        assert!(due <= Duration::from_secs(3600) && due > Duration::from_secs(3000), "{due:?}");
        let age = || slow.age().max(Duration::from_micros(10));
        while slow.age() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        operations.tell_slow(age() * 2 / 3);
        assert_eq!((told(&slow), told(&pull)), (1, 0));
        operations.tell_slow(Duration::from_nanos(1));
        assert_eq!((told(&slow), told(&pull)), (3, 3));
        assert_eq!(operations.tell_slow(Duration::from_nanos(1)), None, "all is told");
        assert_eq!(metric::SLOW.of(["run sandbox"]).value(), 1);
    }

    #[test]
    fn what_the_caller_gave_counts_for_nobody() {
        let operations = Operations::default();
        let exec = operations.begin(What::new("exec in container", "c"));
        exec.allow(Duration::MAX);
        assert_eq!(operations.tell_slow(Duration::from_nanos(1)), None);
        exec.allow(Duration::from_secs(100));
        assert!(operations.tell_slow(Duration::from_nanos(1)).unwrap() > Duration::from_secs(90));
        assert_eq!(told(&exec), 0);
    }

    #[tokio::test]
    async fn the_watch_sleeps_until_something_begins() {
        let operations = Operations::default();
        let watch = operations.watch_slow(Duration::from_millis(1));
        let mut watch = std::pin::pin!(watch);
        assert!(futures_util::poll!(&mut watch).is_pending());
        let operation = operations.begin("pull");
        let seen = async {
            while told(&operation) < 3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = seen => {}
        }
    }
}
