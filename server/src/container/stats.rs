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

/// A count is not made again for at least this long, and for as long as keeps the walks of one container below one part
/// in `SHARE` of one core, and those of the whole node below one in `NODE_SHARE`.
const MIN_AGE: Duration = Duration::from_secs(15);
const SHARE: u32 = 100;
const NODE_SHARE: u32 = 20;
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

    fn is_due(&self) -> bool {
        let counting = self.counting();
        let age = MIN_AGE.max(counting.took * SHARE);
        !counting.under_way && counting.at.is_none_or(|at| at.elapsed() >= age)
    }

    /// When the last count was made, `None` if there was none, and how long it took.
    fn last_count(&self) -> (Option<Instant>, Duration) {
        let counting = self.counting();
        (counting.at, counting.took)
    }

    /// True for one of those who want to make a count; it says `counted` in the end.
    fn begin(&self) -> bool {
        !std::mem::replace(&mut self.counting().under_way, true)
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

/// What the walks of the node may still take; below nothing while it makes up for a long one.
#[derive(Debug, Default)]
struct Allowance {
    nanos: i128,
    at: Option<Instant>,
}

impl Allowance {
    /// Whether a walk that took so long the last time may be made now.
    fn take(&mut self, now: Instant, took: Duration) -> bool {
        let most = (MIN_AGE / NODE_SHARE).as_nanos().cast_signed();
        let more = self.at.map_or(MIN_AGE, |at| now.saturating_duration_since(at)) / NODE_SHARE;
        self.nanos = most.min(self.nanos + more.as_nanos().cast_signed());
        self.at = Some(now);
        let may = self.nanos > 0;
        if may {
            self.nanos -= took.as_nanos().cast_signed();
        }
        may
    }
}

/// The containers whose count is due and may be made, the first ones and then those that have waited longest.
fn due(containers: &[Arc<Container>]) -> Vec<&Arc<Container>> {
    static ALLOWANCE: Mutex<Allowance> = Mutex::new(Allowance { nanos: 0, at: None });
    let due = containers.iter().filter(|one| one.gauge.is_due());
    let mut due: Vec<_> = due.map(|one| (one.gauge.last_count(), one)).collect();
    due.sort_by_key(|(last, _)| *last);
    let mut allowance = ALLOWANCE.lock().unwrap_or_else(PoisonError::into_inner);
    let may = due.into_iter().take_while(|((at, took), _)| {
        // Somebody waits for the first.
        at.is_none() || allowance.take(Instant::now(), *took)
    });
    may.map(|(_, one)| one).filter(|one| one.gauge.begin()).collect()
}

/// Has the counts that are due made, and waits a moment for those that there was none of yet.
pub(crate) async fn count(node: &Arc<Node>, containers: &[Arc<Container>]) {
    let mut first = Vec::new();
    for container in due(containers) {
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
        assert_eq!(gauge.last_count().0, None);
        assert!(gauge.begin());
        assert!(!gauge.begin(), "another's");
        assert!(!gauge.is_due(), "under way");
        let written = Written { at: 1, bytes: 2, inodes: 3 };
        gauge.counted(Instant::now(), Some(written));
        assert!(!gauge.is_due(), "young");
        assert_eq!(gauge.counting().last, Some(written));
        let then = Instant::now().checked_sub(MIN_AGE);
        gauge.counting().at = then;
        assert!(gauge.is_due());
        assert_eq!(gauge.last_count().0, then);
        gauge.counted(Instant::now(), None);
        assert_eq!(gauge.counting().last, Some(written), "the last one that there was");
        gauge.counting().at = Instant::now().checked_sub(MIN_AGE);
        gauge.counting().took = MIN_AGE;
        assert!(!gauge.is_due(), "a walk that takes long is made seldom");
    }

    #[test]
    fn long_walks_of_many_take_a_part_of_a_core_together() {
        let (start, walk) = (Instant::now(), Duration::from_millis(300));
        let mut allowance = Allowance::default();
        let walks = (0..6000)
            .filter(|tenth| allowance.take(start + Duration::from_millis(100) * *tenth, walk));
        let took = walk * u32::try_from(walks.count()).unwrap();
        let most = Duration::from_secs(600) / NODE_SHARE;
        assert!((most..most + MIN_AGE / NODE_SHARE + walk).contains(&took), "{took:?}");
        // Short ones are all made.
        let later = start + Duration::from_secs(1000);
        assert!((0..500).all(|_| allowance.take(later, Duration::from_millis(1))));
    }
}
