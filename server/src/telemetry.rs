//! Logs, and the one place from which tasks are spawned.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// The crates whose level is configured.
const OWN: [&str; 4] = ["podwrightd", "cni", "shim", "snapshotter"];

/// Starts logging to standard error: JSON where that is systemd's journal, else text, in colour on a terminal. What is
/// worth a line there is noted by the flight recorder, too.
///
/// `level` is that of our own crates; what others log is seen from `warn` on. `RUST_LOG` overrides both.
pub(crate) fn init(level: &str) {
    let own: Vec<String> = OWN.iter().map(|name| format!("{name}={level}")).collect();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,{}", own.join(","))));
    // What cannot be written is lost; to say so on the same descriptor would be a panic.
    let lines =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = if crate::systemd::logs_to_journal() {
        lines.json().boxed()
    } else {
        use std::io::IsTerminal;
        lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).boxed()
    };
    let recorded = OWN.iter().map(|name| (*name, LevelFilter::INFO));
    let recorded = Targets::new().with_default(LevelFilter::WARN).with_targets(recorded);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(crate::recorder::Recorder.with_filter(recorded))
        .init();
}

/// All tasks of the daemon. A task carries a span, and the daemon waits for its tasks when it ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    /// Runs `future` on its own task, inside `span`.
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub(crate) fn spawn<F>(&self, span: tracing::Span, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn(future.instrument(span))
    }

    /// Runs `future` on another executor than the caller's.
    pub(crate) fn spawn_on<F>(&self, executor: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.spawn_on(future, executor)
    }

    /// Waits until every task has ended; none may be spawned that never ends by itself.
    pub(crate) async fn finish(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// Runs `work`, which may block on the kernel or the disk, on the blocking pool.
///
/// # Errors
/// `Internal` if it panicked.
pub(crate) async fn blocking<T, F>(work: F) -> crate::error::Result<T>
where
    F: FnOnce() -> crate::error::Result<T> + Send + 'static,
    T: Send + 'static,
{
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
        .await
        .map_err(|err| crate::error::Error::Internal(format!("blocking work: {err}")))?
}

/// Threads that [`apart`] has at most. Far more than ever hang, and far less than a node has room for.
const MAX_APART: usize = 512;
static APART: AtomicUsize = AtomicUsize::new(0);

/// One of the threads apart, counted for as long as it is there.
struct Counted;

impl Counted {
    fn begin() -> Option<Self> {
        let taken = APART.fetch_add(1, Ordering::SeqCst);
        let counted = Self;
        (taken < MAX_APART).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        APART.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `work` on a thread of its own: for what waits for somebody else's program or storage, and may hang for as
/// long as that does. The pool behind [`blocking`] is kept free of it, since everything else waits there.
///
/// # Errors
/// `Unavailable` if too many hang already, `Internal` if it panicked.
pub(crate) async fn apart<T, F>(work: F) -> crate::error::Result<T>
where
    F: FnOnce() -> crate::error::Result<T> + Send + 'static,
    T: Send + 'static,
{
    use crate::error::Error;
    let span = tracing::Span::current();
    let counted = Counted::begin().ok_or_else(|| {
        Error::Unavailable(format!("{MAX_APART} calls wait for programs or storage that hang"))
    })?;
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("apart".into())
        .spawn(move || {
            let _counted = counted;
            done.send(span.in_scope(work)).ok();
        })
        .map_err(|err| Error::Unavailable(format!("start a thread: {err}")))?;
    result.await.map_err(|_| Error::Internal("work on a thread of its own panicked".into()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[tokio::test]
    async fn work_apart_has_a_bound_and_a_panic_in_it_is_an_answer() {
        let panicked = apart::<(), _>(|| panic!("boom")).await;
        assert!(matches!(panicked, Err(Error::Internal(_))), "{panicked:?}");
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Arc::new(std::sync::Mutex::new(gate));
        let hang = || {
            let gate = gate.clone();
            apart(move || {
                gate.lock().map(|gate| gate.recv().ok()).ok();
                Ok(())
            })
        };
        let mut hanging: Vec<_> = (0..MAX_APART).map(|_| Box::pin(hang())).collect();
        for one in &mut hanging {
            assert!(futures_util::poll!(one).is_pending());
        }
        assert!(matches!(hang().await, Err(Error::Unavailable(_))));
        drop(go);
        futures_util::future::join_all(hanging).await;
        apart(|| Ok(())).await.unwrap();
    }
}
