//! What a container uses now, and what it has written.
//!
//! The cgroup is read when somebody asks. What was written to the root file system cannot be read, only counted by a
//! walk over all of it: that goes on in the background while somebody asks, seldom enough to cost next to nothing,
//! and the last count is what is told, with its time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::Container;
use super::node::Node;
use super::state::{State, Timestamp, now};
use crate::host::usage::{Details, Meter, Processes, Sample, Sampler};
use crate::telemetry::blocking;

/// A count is not made again for at least this long, and for as long as keeps the walks below one part in
/// `SHARE` of one core.
const MIN_AGE: Duration = Duration::from_secs(15);
const SHARE: u32 = 100;
/// Walks at a time on the whole node.
static WALKS: Semaphore = Semaphore::const_new(2);
/// How long a caller waits for the first count: most take less than a millisecond.
const FIRST: Duration = Duration::from_millis(50);

/// What is kept for it with the container.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    sampler: Sampler,
    written: Mutex<Counting>,
}

#[derive(Debug, Default)]
struct Counting {
    last: Option<Written>,
    took: Duration,
    at: Option<Instant>,
    under_way: bool,
}

/// What the container's own layer takes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub at: Timestamp,
    pub bytes: u64,
    pub inodes: u64,
}

impl Gauge {
    fn counting(&self) -> std::sync::MutexGuard<'_, Counting> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its cgroup is gone, or about to be.
    pub(super) fn close(&self) {
        self.sampler.close();
    }

    /// True if a count is due; the caller makes it, and says `counted`.
    fn is_due(&self) -> bool {
        let mut counting = self.counting();
        let age = MIN_AGE.max(counting.took * SHARE);
        let due = !counting.under_way && counting.at.is_none_or(|at| at.elapsed() >= age);
        counting.under_way |= due;
        due
    }

    fn counted(&self, began: Instant, written: Option<Written>) {
        let mut counting = self.counting();
        let last = written.or(counting.last);
        let at = Some(Instant::now());
        *counting = Counting { last, took: began.elapsed(), at, under_way: false };
    }
}

/// When its cgroup had used nothing yet.
fn began(container: &Container) -> Timestamp {
    match container.state() {
        State::Running(running) => running.started_at,
        State::Created | State::Exited(_) => container.fixed.created_at,
    }
}

fn open(container: &Container) -> Option<Meter> {
    Meter::open(&container.fixed.cgroups_path)
}

/// What it uses; `None` if it does not run. Reads files of the kernel's.
pub(crate) fn sample(container: &Container) -> Option<Sample> {
    if !matches!(container.state(), State::Running(_)) {
        return None;
    }
    container.gauge.sampler.sample(began(container), || open(container))
}

/// What only dashboards ask for.
pub(crate) fn details(container: &Container) -> Option<(Details, Processes)> {
    let read = |meter: &Meter| (meter.details(), meter.processes());
    container.gauge.sampler.read(began(container), || open(container), read)
}

/// Lets go of what nobody has asked for in a while.
pub(crate) fn rest(container: &Container) {
    container.gauge.sampler.rest();
}

/// The last count of what it has written.
pub(crate) fn written(container: &Container) -> Option<Written> {
    container.gauge.counting().last
}

/// Has the counts that are due made, and waits a moment for those that there was none of yet.
pub(crate) async fn count(node: &Arc<Node>, containers: &[Arc<Container>]) {
    let mut first = Vec::new();
    for container in containers.iter().filter(|one| one.gauge.is_due()) {
        let is_first = written(container).is_none();
        let walk = count_one(node.clone(), container.clone());
        let span = tracing::debug_span!("count", container = %container.id());
        let walk = node.tasks.spawn(span, walk);
        if is_first {
            first.push(walk);
        }
    }
    if !first.is_empty() {
        tokio::time::timeout(FIRST, join_all(first)).await.ok();
    }
}

async fn count_one(node: Arc<Node>, container: Arc<Container>) {
    let permit = WALKS.acquire().await;
    let began = Instant::now();
    let (snapshotter, id) = (node.hands.snapshotter.clone(), container.id().clone());
    let walk = blocking(move || Ok(snapshotter.usage(id.as_str()).ok()));
    // One that is being removed cannot be counted, which is nobody's concern.
    let usage = walk.await.ok().flatten();
    drop(permit);
    let written =
        usage.map(|usage| Written { at: now(), bytes: usage.bytes, inodes: usage.inodes });
    container.gauge.counted(began, written);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_count_at_a_time_and_not_too_often() {
        let gauge = Gauge::default();
        assert!(gauge.is_due());
        assert!(!gauge.is_due(), "under way");
        let written = Written { at: 1, bytes: 2, inodes: 3 };
        gauge.counted(Instant::now(), Some(written));
        assert!(!gauge.is_due(), "young");
        assert_eq!(gauge.counting().last, Some(written));
        gauge.counting().at = Instant::now().checked_sub(MIN_AGE);
        assert!(gauge.is_due());
        gauge.counted(Instant::now(), None);
        assert_eq!(gauge.counting().last, Some(written), "the last one that there was");
        gauge.counting().at = Instant::now().checked_sub(MIN_AGE);
        gauge.counting().took = MIN_AGE;
        assert!(!gauge.is_due(), "a walk that takes long is made seldom");
    }
}
