//! Operations under way: what each is about, which stage it is in, since when, what it waits for, who waits for
//! it, and whether it shall end.
//!
//! Operations belong to the daemon, not to the caller that asked for them. The one that runs one tells it
//! each stage it enters; whoever waits for it can say where it is and for how long. [`Operations`] lists all
//! that there are; one leaves the list when it says that it has ended, or nobody holds it any more.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::trace::{self, Open};
use crate::{metric, recorder};

mod part;
mod slow;
mod what;

pub(crate) use part::{Part, PartProgress, State as PartState};
pub(crate) use what::What;

/// All operations of the daemon; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operations {
    listed: Arc<Mutex<Listed>>,
    /// For the one who watches for slow ones.
    begun: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Listed {
    next: u64,
    by_number: BTreeMap<u64, Weak<Operation>>,
}

/// Shared between the task that works and those who wait for it.
#[derive(Debug)]
pub(crate) struct Operation {
    what: What,
    started: Instant,
    /// `None` where it is not traced.
    span: Option<Open>,
    stage: Mutex<Stage>,
    /// Milliseconds; see `allow`.
    allowed: AtomicU64,
    /// How often it was told that it is slow.
    told: AtomicU8,
    waits_for: Mutex<Vec<Arc<Mutex<String>>>>,
    callers: AtomicU32,
    parts: Mutex<Vec<Arc<Part>>>,
    cancel: CancellationToken,
    /// Where it is listed, and under which number.
    listed: (Operations, u64),
}

/// Where an operation is, and since when.
#[derive(Debug, Clone, Copy)]
struct Stage {
    name: &'static str,
    since: Instant,
    /// It was the last one.
    over: bool,
}

/// How an operation ended.
#[derive(Clone, Copy)]
enum Ending<'a> {
    Done,
    Cancelled,
    Failed(&'a dyn Display),
}

/// How much of what an operation moves is here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// Bytes as they come over the wire.
    pub bytes_done: u64,
    /// Of so many; 0 until it is known.
    pub bytes_total: u64,
    pub layers_done: u32,
    pub layers_total: u32,
}

impl Transfer {
    /// The sum of parts.
    pub(crate) fn of(parts: &[PartProgress]) -> Self {
        let mut sum = Self::default();
        for part in parts {
            sum.bytes_done = sum.bytes_done.saturating_add(part.fetched);
            sum.bytes_total = sum.bytes_total.saturating_add(part.size);
            let here = matches!(part.state, PartState::Done | PartState::AlreadyHere);
            sum.layers_done += u32::from(here);
            sum.layers_total += 1;
        }
        sum
    }
}

/// Where an operation is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub what: String,
    /// As it reads after "while".
    pub stage: &'static str,
    pub in_stage: Duration,
    /// How much of that whoever asked for it wanted at most, and is nobody's fault.
    pub allowed: Duration,
    pub age: Duration,
    /// Paths, plugins and programs that it waits for now, where they are known.
    pub waits_for: Vec<String>,
    /// How many callers wait for its result.
    pub callers: u32,
    pub transfer: Transfer,
    pub cancelled: bool,
}

/// Somebody waits for the operation, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Caller(Arc<Operation>);

/// The operation waits for something, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    operation: &'a Operation,
    what: Arc<Mutex<String>>,
}

tokio::task_local! {
    /// The operation that a task works on.
    static CURRENT: Arc<Operation>;
}

/// The operation that the running task works on, for work that many operations have in common.
pub(crate) fn current() -> Option<Arc<Operation>> {
    CURRENT.try_with(Arc::clone).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing can panic while holding one of them: the guarded values are only copied, pushed and removed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Operations {
    /// Begins an operation in its first stage.
    pub(crate) fn begin(&self, what: impl Into<What>) -> Arc<Operation> {
        let mut listed = lock(&self.listed);
        let number = listed.next;
        listed.next += 1;
        let now = Instant::now();
        let outer = current().map(|outer| outer.span.as_ref().map(Open::context));
        let operation = Arc::new(Operation {
            what: what.into(),
            started: now,
            span: trace::work(outer),
            allowed: AtomicU64::new(0),
            told: AtomicU8::new(0),
            stage: Mutex::new(Stage { name: "queued", since: now, over: false }),
            waits_for: Mutex::default(),
            callers: AtomicU32::new(0),
            parts: Mutex::default(),
            cancel: CancellationToken::new(),
            listed: (self.clone(), number),
        });
        listed.by_number.insert(number, Arc::downgrade(&operation));
        self.begun.notify_one();
        operation
    }

    /// Every operation under way, the oldest first.
    pub(crate) fn list(&self) -> Vec<Progress> {
        self.alive().iter().map(|operation| operation.progress()).collect()
    }

    /// Upgraded while locked, dropped after: an operation that ends here takes the lock itself.
    fn alive(&self) -> Vec<Arc<Operation>> {
        lock(&self.listed).by_number.values().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        self.end(Ending::Done);
    }
}

impl Operation {
    /// Enters a stage, named as it reads after "while" (`mounting the root file system`).
    ///
    /// # Errors
    /// `Cancelled` when the operation shall end: stages are where it may.
    pub(crate) fn enter(&self, stage: &'static str) -> Result<()> {
        let mut now = lock(&self.stage);
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled { stage: now.name });
        }
        let next = Stage { name: stage, since: Instant::now(), over: false };
        let left = std::mem::replace(&mut *now, next);
        drop(now);
        tracing::debug!(operation = %self.what, stage, "enters stage");
        recorder::note("stage", format_args!("{}: {stage}", self.what));
        self.left(left);
        Ok(())
    }

    /// Somebody wants it to be in a stage for so long, if need be: the grace of a stop, the time of a command.
    pub(crate) fn allow(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.allowed.store(milliseconds, Ordering::Relaxed);
    }

    /// A stage is behind it.
    fn left(&self, stage: Stage) {
        metric::STAGE_SECONDS.of([self.what.kind(), stage.name]).took(stage.since.elapsed());
        if let Some(span) = &self.span {
            span.part(stage.name, stage.since);
        }
    }

    /// Does `work` as this operation's.
    pub(crate) fn scope<F: Future>(
        self: &Arc<Self>,
        work: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), work)
    }

    /// Says what the operation waits for, a path or a plugin, until the answer is dropped.
    pub(crate) fn waits_for(&self, what: impl Into<String>) -> Waiting<'_> {
        let waiting = Waiting { operation: self, what: Arc::new(Mutex::new(what.into())) };
        lock(&self.waits_for).push(waiting.what.clone());
        waiting
    }

    /// Counts a caller, until the answer is dropped.
    pub(crate) fn caller(self: &Arc<Self>) -> Caller {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Caller(self.clone())
    }

    /// So much is to come.
    pub(crate) fn expect(&self, parts: Vec<Arc<Part>>) {
        *lock(&self.parts) = parts;
    }

    /// The part of that number is now this one: another operation's that brings the same.
    pub(crate) fn share(&self, number: usize, part: Arc<Part>) {
        if let Some(place) = lock(&self.parts).get_mut(number) {
            *place = part;
        }
    }

    /// The parts, in their order.
    pub(crate) fn parts(&self) -> Vec<PartProgress> {
        lock(&self.parts).iter().map(|part| part.progress()).collect()
    }

    /// It has ended so, and is listed no more, whoever still looks at it. One that nobody holds any more has ended well.
    pub(crate) fn finish<T, E: Display>(&self, result: &Result<T, E>) {
        match result {
            Ok(_) => self.end(Ending::Done),
            Err(_) if self.cancel.is_cancelled() => self.end(Ending::Cancelled),
            Err(err) => self.end(Ending::Failed(err)),
        }
    }

    /// Does `work` to its end, which is this operation's.
    pub(crate) async fn conclude<T, E: Display>(
        self: Arc<Self>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let result = work.await;
        self.finish(&result);
        result
    }

    /// How long ago it began.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// The first end counts.
    fn end(&self, how: Ending<'_>) {
        let last = {
            let mut stage = lock(&self.stage);
            let last = *stage;
            stage.over = true;
            last
        };
        if last.over {
            return;
        }
        let (operations, number) = &self.listed;
        lock(&operations.listed).by_number.remove(number);
        self.left(last);
        let result = match how {
            Ending::Done => "ok",
            Ending::Cancelled => "cancelled",
            Ending::Failed(_) => "error",
        };
        metric::OPERATIONS.of([self.what.kind(), result]).add(1);
        if let Some(span) = &self.span {
            let attributes = vec![
                ("podwright.object", trace::text(self.what.object())),
                ("podwright.result", trace::text(result)),
            ];
            let error = if let Ending::Failed(err) = how { Some(err) } else { None };
            span.end(self.what.kind(), attributes, error);
        }
        let age = self.age().as_secs_f64();
        recorder::note("end", format_args!("{}: {result} after {age:.3} s", self.what));
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
        let stage = *lock(&self.stage);
        let mut waits_for: Vec<String> =
            lock(&self.waits_for).iter().map(|what| lock(what).clone()).collect();
        waits_for.retain(|what| !what.is_empty());
        Progress {
            what: self.what.to_string(),
            stage: stage.name,
            in_stage: stage.since.elapsed(),
            allowed: Duration::from_millis(self.allowed.load(Ordering::Relaxed)),
            age: self.started.elapsed(),
            waits_for,
            callers: self.callers.load(Ordering::Relaxed),
            transfer: Transfer::of(&self.parts()),
            cancelled: self.cancel.is_cancelled(),
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Waiting<'_> {
    /// Where what is waited for can be told anew; nothing while it is empty.
    pub(crate) fn text(&self) -> &Arc<Mutex<String>> {
        &self.what
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.operation.waits_for).retain(|what| !Arc::ptr_eq(what, &self.what));
    }
}

impl Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} for {:.1} s", self.what, self.stage, self.in_stage.as_secs_f64())?;
        if !self.waits_for.is_empty() {
            write!(f, ", waiting for {}", self.waits_for.join(" and "))?;
        }
        if self.transfer.bytes_total > 0 {
            let Transfer { bytes_done, bytes_total, layers_done, layers_total } = self.transfer;
            write!(
                f,
                ", {bytes_done} of {bytes_total} bytes, {layers_done} of {layers_total} layers"
            )?;
        }
        write!(f, ", {:.1} s in all", self.age.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_operation_ends_at_its_next_stage_and_says_where_it_was() {
        let operation = Operations::default().begin("run sandbox x");
        operation.enter("starting the shim").unwrap();
        operation.cancel();
        let err = operation.enter("attaching the network").unwrap_err();
        assert!(matches!(err, Error::Cancelled { stage: "starting the shim" }), "{err}");
    }

    #[test]
    fn the_list_has_what_is_under_way_and_nothing_else() {
        let operations = Operations::default();
        let first = operations.begin("first");
        let second = operations.begin("second");
        let names = || operations.list().into_iter().map(|one| one.what).collect::<Vec<_>>();
        assert_eq!(names(), ["first", "second"]);
        drop(first);
        assert_eq!(names(), ["second"]);
        drop(second);
        assert!(names().is_empty() && lock(&operations.listed).by_number.is_empty());
    }

    #[test]
    fn parts_add_up_and_a_second_try_begins_at_nothing() {
        let operations = Operations::default();
        let (first, second) = (operations.begin("first"), operations.begin("second"));
        let (shared, own) = (Arc::new(Part::new("a", 10)), Arc::new(Part::new("a", 10)));
        first.expect(vec![shared.clone(), Arc::new(Part::new("b", 5))]);
        second.expect(vec![own]);
        second.share(0, shared.clone());
        shared.begin();
        shared.add_fetched(7);
        shared.begin();
        shared.add_fetched(10);
        shared.add_unpacked(30);
        let [part] = &second.parts()[..] else { panic!("{:?}", second.parts()) };
        assert_eq!((part.fetched, part.unpacked, part.state), (10, 30, PartState::Unpacking));
        shared.done();
        let sum = |bytes_done, bytes_total, layers_done, layers_total| Transfer {
            bytes_done,
            bytes_total,
            layers_done,
            layers_total,
        };
        assert_eq!(first.progress().transfer, sum(10, 15, 1, 2));
        assert_eq!(second.progress().transfer, sum(10, 10, 1, 1));
        first.finish(&Ok::<_, Error>(()));
        assert_eq!(operations.list().len(), 1);
    }

    #[test]
    fn callers_and_what_is_waited_for_are_told_while_they_last() {
        let operation = Operations::default().begin("create c");
        operation.enter("resolving mounts").unwrap();
        let (_one, two) = (operation.caller(), operation.caller());
        let path = operation.waits_for("/mnt/nfs");
        let now = operation.progress();
        assert_eq!((now.callers, now.waits_for.as_slice()), (2, &["/mnt/nfs".to_owned()][..]));
        assert!(
            now.to_string().contains("resolving mounts for 0.0 s, waiting for /mnt/nfs"),
            "{now}"
        );
        drop((two, path));
        let now = operation.progress();
        assert_eq!((now.callers, now.waits_for.len()), (1, 0));
    }
}
