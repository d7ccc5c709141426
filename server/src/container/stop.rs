//! StopContainer: ask, wait, kill, and return when it is over.
//!
//! The stop signal is sent once, by the first call: one while that waits does not send it again, but may shorten
//! the wait, and neither does one after a restart of the daemon.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Container;
use super::shim::Shim;
use super::state::State;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::host::cgroup;
use crate::operation::Operation;
use crate::telemetry::apart;

/// How long a killed container may take to be gone before its cgroup is killed, and then before we give up.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// In a container's bundle once it was sent its stop signal.
const SIGNALLED: &str = "stop-signal-sent";

/// How long the callers of a stop wait for the container's own end.
#[derive(Debug, Default)]
pub(crate) struct Stopping(Mutex<Patience>);

#[derive(Debug, Default)]
struct Patience {
    /// The shortest that was asked for since the last stop ended.
    grace: Option<Duration>,
    /// When it ends, once the stop waits.
    until: Option<watch::Sender<Instant>>,
}

impl Stopping {
    fn lock(&self) -> MutexGuard<'_, Patience> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody waits for the container's own end longer than `grace`, in the stop that is under way or the next one.
    pub(crate) fn within(&self, grace: Duration) {
        let mut patience = self.lock();
        patience.grace = Some(patience.grace.map_or(grace, |other| other.min(grace)));
        if let Some(until) = &patience.until {
            let deadline = Instant::now() + grace;
            until.send_if_modified(|at| {
                let sooner = deadline < *at;
                *at = (*at).min(deadline);
                sooner
            });
        }
    }

    /// From now on time runs.
    fn begin(&self) -> watch::Receiver<Instant> {
        let mut patience = self.lock();
        let grace = patience.grace.unwrap_or_default();
        let (sender, receiver) = watch::channel(Instant::now() + grace);
        patience.until = Some(sender);
        receiver
    }

    /// The stop has ended; the next one has a patience of its own.
    fn over(&self) {
        *self.lock() = Patience::default();
    }
}

/// Sends the stop signal, waits `grace` for the end, then kills; returns when the container has exited. One at a
/// time for each container.
///
/// # Errors
/// When it does not end even when killed.
pub(crate) async fn stop(
    container: &Container,
    shim: Option<&Shim>,
    grace: Duration,
    operation: &Operation,
) -> Result<()> {
    operation.enter("waiting for a start of the container to end")?;
    // A start under way was cancelled and is waited for: what it started has to be stopped.
    drop(container.verb.lock().await);
    operation.allow(grace);
    container.stopping.within(grace);
    let mut deadline = container.stopping.begin();
    let stopped = end(container, shim, &mut deadline, operation).await;
    container.stopping.over();
    stopped
}

async fn end(
    container: &Container,
    shim: Option<&Shim>,
    deadline: &mut watch::Receiver<Instant>,
    operation: &Operation,
) -> Result<()> {
    if !matches!(container.state(), State::Running(_)) {
        return Ok(());
    }
    if *deadline.borrow() > Instant::now() {
        operation.enter("sending the stop signal")?;
        ask(container, shim).await;
    }
    operation.enter("waiting for the container to end by itself")?;
    if ended_before(container, deadline).await {
        return Ok(());
    }
    operation.enter("killing the container")?;
    kill(container, shim).await
}

/// Sends the stop signal, unless that was done before. Noted where what ends with the container is: a daemon that
/// dies in between sends it twice rather than never.
async fn ask(container: &Container, shim: Option<&Shim>) {
    let note = container.fixed.bundle.join(SIGNALLED);
    if note.exists() || !signal(container, shim, container.fixed.stop_signal).await {
        return;
    }
    if let Err(err) = std::fs::write(&note, "") {
        tracing::warn!(note = %note.display(), %err, "the next stop may send its signal again");
    }
}

/// Kills the container at once and returns when it has exited.
///
/// # Errors
/// When it does not end even so.
pub(crate) async fn kill(container: &Container, shim: Option<&Shim>) -> Result<()> {
    if !matches!(container.state(), State::Running(_)) {
        return Ok(());
    }
    let sent = signal(container, shim, Signal::KILL.as_raw()).await;
    if sent && tokio::time::timeout(KILL_LIMIT, container.not_running()).await.is_ok() {
        return Ok(());
    }
    let path = container.fixed.cgroups_path.clone();
    apart(move || failpoint::step("stop/cgroup", || cgroup::end(&path).map_err(Error::Runtime)))
        .await?;
    tokio::time::timeout(KILL_LIMIT, container.not_running()).await.map_err(|_| {
        Error::DeadlineExceeded(format!(
            "container {} was killed but its exit is not reported",
            container.id()
        ))
    })
}

/// True if the container had it, or needs it no more.
async fn signal(container: &Container, shim: Option<&Shim>, number: i32) -> bool {
    let sent = match shim {
        Some(shim) => shim.signal(container, number).await,
        None => Err(Error::Unavailable("the shim is gone".into())),
    };
    if let Err(err) = &sent {
        tracing::warn!(container = %container.id(), number, %err, "signal not sent");
    }
    sent.is_ok()
}

/// True if the container ended before the deadline, which may be moved forward while we wait.
async fn ended_before(container: &Container, deadline: &mut watch::Receiver<Instant>) -> bool {
    loop {
        let at = *deadline.borrow_and_update();
        tokio::select! {
            () = container.not_running() => return true,
            () = tokio::time::sleep_until(at) => return false,
            changed = deadline.changed() => if changed.is_err() { return false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_call_may_only_shorten_the_wait_and_the_next_stop_begins_anew() {
        let stopping = Stopping::default();
        let seconds = Duration::from_secs;
        stopping.within(seconds(60));
        stopping.within(seconds(90));
        let until = stopping.begin();
        let left = || until.borrow().saturating_duration_since(Instant::now());
        assert!(left() > seconds(50) && left() <= seconds(60));
        stopping.within(seconds(70));
        assert!(left() > seconds(50));
        stopping.within(seconds(2));
        assert!(left() <= seconds(2));
        stopping.over();
        stopping.within(seconds(90));
        assert!(*stopping.begin().borrow() > Instant::now() + seconds(60));
    }
}
