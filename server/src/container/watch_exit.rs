//! The one writer of exits.

use std::time::Duration;

use shim::record::ExitRecord;

use super::Container;
use super::node::Node;
use super::shim::{Shim, WaitError, code, nanoseconds};
use super::state::{Event, now};
use crate::failpoint;
use crate::host::cgroup;
use crate::telemetry::apart;

/// Name of the exit record in a bundle.
pub(super) const EXIT_RECORD: &str = "exit.json";

/// How often a lost connection to a living shim is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Waits for the end of a running container and takes it down, whatever happens to its shim. Runs on its own
/// task, one for each running container.
pub(crate) async fn watch_exit(node: &Node, container: &Container, shim: &Shim) {
    let event = loop {
        match shim.wait(container).await {
            Ok(exit) => {
                let oom_killed = record(container).is_some_and(|record| record.oom_killed);
                break Event::Ended { at: exit.at, code: exit.code, oom_killed };
            }
            Err(WaitError::Refused(err)) => {
                tracing::warn!(container = %container.id(), %err, "the shim does not know the container");
                break gone(container).await;
            }
            Err(WaitError::Disconnected) if shim.is_alive() => tokio::time::sleep(RETRY).await,
            Err(WaitError::Disconnected) => break gone(container).await,
        }
    };
    taken(node, container, shim, event).await;
}

/// The container's shim cannot tell: its record does, or else nobody.
pub(crate) async fn gone(container: &Container) -> Event {
    end_cgroup(container).await;
    match record(container) {
        Some(record) => Event::Ended {
            at: nanoseconds(record.exited_at),
            code: code(record.status),
            oom_killed: record.oom_killed,
        },
        None => Event::Lost { at: now() },
    }
}

/// Without its shim nobody would report what it does: nothing of it may go on running unseen.
pub(crate) async fn end_cgroup(container: &Container) {
    let path = container.fixed.cgroups_path.clone();
    let end = move || {
        failpoint::step("exit/cgroup", || cgroup::end(&path).map_err(crate::error::Error::Runtime))
    };
    if let Err(err) = apart(end).await {
        tracing::error!(container = %container.id(), %err, "a container without its shim is still there");
    }
}

/// Publishes an exit, keeps it, and frees what only a running container needs.
pub(crate) async fn taken(node: &Node, container: &Container, shim: &Shim, event: Event) {
    tracing::info!(container = %container.id(), name = container.fixed.config.metadata.name, ?event, "exited");
    // Nobody hears of an exit that a loss of power could still take back.
    node.keep_first(container, &event).await;
    if failpoint::sure("exit/taken", || node.apply(container, &event)).is_err() {
        return;
    }
    shim.forget(container).await;
}

/// What the shim wrote down before it told anybody. Read once for each exit: what became of its output is counted.
fn record(container: &Container) -> Option<ExitRecord> {
    let bundle = &container.fixed.bundle;
    let record = ExitRecord::read(&bundle.join(EXIT_RECORD)).unwrap_or_else(|err| {
        tracing::warn!(bundle = %bundle.display(), %err, "exit record not read");
        None
    });
    if let Some(record) = &record {
        container.logged.until(record.logged);
    }
    record
}
