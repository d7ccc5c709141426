//! Logs, and the one place from which tasks are spawned.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use tracing_subscriber::EnvFilter;

/// The crates whose level is configured.
const OWN: [&str; 4] = ["podwrightd", "cni", "shim", "snapshotter"];

/// Starts logging to standard error: text on a terminal, JSON otherwise under systemd's journal.
///
/// `level` is that of our own crates; what others log is seen from `warn` on. `RUST_LOG` overrides both.
pub(crate) fn init(level: &str) {
    let own: Vec<String> = OWN.iter().map(|name| format!("{name}={level}")).collect();
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,{}", own.join(","))));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.json().init();
    } else {
        use std::io::IsTerminal;
        builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).init();
    }
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
