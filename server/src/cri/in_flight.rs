//! Operations under way, and the calls that wait for them.
//!
//! tonic drops a handler's future when its client gives up. So every mutating call runs on a task of its own
//! that goes on to its end, and the handler only waits for it. A retry of the same call, with the same
//! configuration, finds the operation by its key and waits for the same result; one with another configuration
//! cancels it first. A caller whose time runs out is told which stage the operation is in, and for how long.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::container::config::ContainerMetadata;
use crate::error::{Error, Result};
use crate::id::{ContainerId, SandboxId};
use crate::operation::{Operation, Operations, What};
use crate::sandbox::config::SandboxMetadata;
use crate::telemetry::Tasks;

/// What an operation is about: two calls with the same key are the same operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Run(SandboxMetadata),
    StopSandbox(SandboxId),
    RemoveSandbox(SandboxId),
    Create(SandboxId, ContainerMetadata),
    Start(ContainerId),
    StopContainer(ContainerId),
    RemoveContainer(ContainerId),
}

/// A result that several callers may receive.
pub(super) type Outcome = Result<String, Arc<Error>>;

#[derive(Debug)]
struct Entry {
    operation: Arc<Operation>,
    config: u64,
    outcome: watch::Receiver<Option<Outcome>>,
}

enum Entered {
    New(Arc<Operation>, watch::Sender<Option<Outcome>>, watch::Receiver<Option<Outcome>>),
    Running { same: bool, operation: Arc<Operation>, outcome: watch::Receiver<Option<Outcome>> },
}

/// The operations under way.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    entries: Arc<Mutex<HashMap<Key, Entry>>>,
    tasks: Tasks,
    operations: Operations,
}

/// How much earlier than the client's own deadline it is answered, so that it hears our words and not its own, on a
/// node that is busy too; of a short patience a quarter.
const ANSWER_AHEAD: Duration = Duration::from_millis(250);

/// A hash by which a retry is told from a different request of the same name.
pub(super) fn config_hash(config: &impl serde::Serialize) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_vec(config).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

impl InFlight {
    pub(super) fn new(tasks: Tasks, operations: Operations) -> Self {
        Self { entries: Arc::default(), tasks, operations }
    }

    /// Begins an operation that no other call will join.
    pub(super) fn begin(&self, what: impl Into<What>) -> Arc<Operation> {
        self.operations.begin(what)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cancels the operations whose key `applies`, and waits until they have undone what they did.
    pub(super) async fn cancel(&self, applies: impl Fn(&Key) -> bool) {
        let waits: Vec<_> = self
            .lock()
            .iter()
            .filter(|(key, _)| applies(key))
            .map(|(_, entry)| {
                entry.operation.cancel();
                entry.outcome.clone()
            })
            .collect();
        for mut wait in waits {
            wait.wait_for(Option::is_some).await.ok();
        }
    }

    /// Joins the operation that runs under `key`, or starts `work` under it; waits `patience` for its result.
    ///
    /// # Errors
    /// What the operation failed with, or `DeadlineExceeded` with its stage and age.
    pub(super) async fn run<W, F>(
        &self,
        key: Key,
        what: What,
        config: u64,
        patience: Option<Duration>,
        work: W,
    ) -> Outcome
    where
        W: FnOnce(Arc<Operation>) -> F,
        F: Future<Output = Result<String>> + Send + 'static,
    {
        loop {
            let (joined, operation, mut outcome) = match self.enter(&key, &what, config) {
                Entered::New(operation, done, outcome) => {
                    self.spawn(key, operation.clone(), done, work(operation.clone()));
                    return wait(&operation, outcome, patience).await;
                }
                Entered::Running { same, operation, outcome } => (same, operation, outcome),
            };
            if joined {
                return wait(&operation, outcome, patience).await;
            }
            operation.cancel();
            outcome.wait_for(Option::is_some).await.ok();
        }
    }

    /// Finds the operation under a key, or makes the entry of a new one.
    fn enter(&self, key: &Key, what: &What, config: u64) -> Entered {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(key) {
            let same = entry.config == config;
            return Entered::Running {
                same,
                operation: entry.operation.clone(),
                outcome: entry.outcome.clone(),
            };
        }
        let operation = self.operations.begin(what.clone());
        let (done, outcome) = watch::channel(None);
        let entry = Entry { operation: operation.clone(), config, outcome: outcome.clone() };
        entries.insert(key.clone(), entry);
        Entered::New(operation, done, outcome)
    }

    fn spawn<F>(
        &self,
        key: Key,
        operation: Arc<Operation>,
        done: watch::Sender<Option<Outcome>>,
        work: F,
    ) where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let entries = self.entries.clone();
        let span = tracing::info_span!("operation", what = %operation.progress().what);
        // The work has a task of its own, so that a panic in it is an answer and not a lost entry.
        let work = self.tasks.spawn(span.clone(), operation.scope(work));
        self.tasks.spawn(span, async move {
            let outcome = work.await.unwrap_or_else(|err| {
                tracing::error!(%err, "operation panicked");
                Err(Error::Internal(format!("{}: {err}", operation.progress())))
            });
            operation.finish(&outcome);
            if let Err(err) = &outcome {
                tracing::warn!(%err, progress = %operation.progress(), "operation did not succeed");
            }
            entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            done.send_replace(Some(outcome.map_err(Arc::new)));
        });
    }

    /// Runs `work` to its end whatever the caller does, without a key: for calls that are not joined.
    pub(super) async fn detach<T, F>(
        &self,
        operation: Arc<Operation>,
        patience: Option<Duration>,
        work: F,
    ) -> Result<T, Arc<Error>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let span = tracing::info_span!("operation", what = %operation.progress().what);
        let work = operation.scope(operation.clone().conclude(work));
        let task = self.tasks.spawn(span, work);
        let joined = async {
            task.await.map_err(|err| Error::Internal(format!("{}: {err}", operation.progress())))?
        };
        within(patience, &operation, joined).await.map_err(Arc::new)
    }
}

async fn wait(
    operation: &Arc<Operation>,
    mut outcome: watch::Receiver<Option<Outcome>>,
    patience: Option<Duration>,
) -> Outcome {
    let joined = async {
        let value = outcome.wait_for(Option::is_some).await.ok().and_then(|value| value.clone());
        Ok(value.unwrap_or_else(|| {
            Err(Arc::new(Error::Internal(format!(
                "{}: ended without a result",
                operation.progress()
            ))))
        }))
    };
    within(patience, operation, joined).await.map_err(Arc::new)?
}

async fn within<T>(
    patience: Option<Duration>,
    operation: &Arc<Operation>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let _caller = operation.caller();
    match in_time(patience, work).await {
        Some(done) => done,
        None => Err(Error::DeadlineExceeded(format!("still {}", operation.progress()))),
    }
}

/// What `work` comes to, or `None` a little before the caller's patience ends.
pub(super) async fn in_time<T>(
    patience: Option<Duration>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let Some(patience) = patience else { return Some(work.await) };
    let ahead = ANSWER_AHEAD.min(patience / 4);
    tokio::time::timeout(patience.saturating_sub(ahead), work).await.ok()
}

/// The time that a client gives a call, from its `grpc-timeout` header (gRPC over HTTP/2: digits and a unit).
pub(super) fn patience<T>(request: &tonic::Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount.saturating_mul(3600)),
        "M" => Duration::from_secs(amount.saturating_mul(60)),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key() -> Key {
        let sandbox = SandboxId::try_from("a".repeat(64)).unwrap();
        Key::Create(sandbox, ContainerMetadata { name: "c".into(), attempt: 0 })
    }

    #[tokio::test]
    async fn a_retry_joins_and_the_work_is_done_once() {
        let flights = InFlight::new(Tasks::default(), Operations::default());
        let runs = Arc::new(AtomicUsize::new(0));
        let (go, gate) = watch::channel(false);
        let call = |patience| {
            let (runs, mut gate) = (runs.clone(), gate.clone());
            flights.run(key(), What::new("create", "c"), 1, patience, move |operation| async move {
                runs.fetch_add(1, Ordering::SeqCst);
                operation.enter("waiting at the gate")?;
                gate.wait_for(|open| *open).await.unwrap();
                Ok("id".into())
            })
        };
        let early = call(Some(Duration::from_millis(50))).await.unwrap_err();
        assert!(
            matches!(&*early, Error::DeadlineExceeded(text) if text.contains("waiting at the gate")),
            "{early}"
        );
        go.send_replace(true);
        assert_eq!(call(None).await.unwrap(), "id");
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn another_configuration_cancels_the_first() {
        let flights = InFlight::new(Tasks::default(), Operations::default());
        let first = flights.run(key(), "first".into(), 1, None, |operation| async move {
            operation.cancelled().await;
            operation.enter("next")?;
            Ok("first".into())
        });
        let second =
            flights.run(key(), "second".into(), 2, None, |_| async { Ok("second".into()) });
        let (first, second) = tokio::join!(first, second);
        assert!(matches!(&*first.unwrap_err(), Error::Cancelled { .. }));
        assert_eq!(second.unwrap(), "second");
    }

    #[tokio::test]
    async fn a_panic_is_answered_and_leaves_no_entry() {
        let flights = InFlight::new(Tasks::default(), Operations::default());
        let outcome = flights.run(key(), "x".into(), 1, None, |_| async { panic!("boom") }).await;
        assert!(matches!(&*outcome.unwrap_err(), Error::Internal(_)));
        assert!(flights.lock().is_empty());
    }

    #[test]
    fn grpc_timeouts_in_every_unit() {
        for (text, expected) in [
            ("2S", Some(2000)),
            ("1500m", Some(1500)),
            ("3M", Some(180_000)),
            ("x", None),
            ("", None),
        ] {
            let mut request = tonic::Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(patience(&request), expected.map(Duration::from_millis), "{text}");
        }
    }
}
