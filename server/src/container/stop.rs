//! StopContainer: ask, wait, kill, and return when it is over.
//!
//! The stop signal is sent once, by the first call. Another call while that one waits does not send it again,
//! but may shorten the wait.

use std::sync::{Mutex, PoisonError};
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

/// A stop under way: when patience ends.
#[derive(Debug, Default)]
pub(crate) struct Stopping(Mutex<Option<watch::Sender<Instant>>>);

impl Stopping {
    /// Joins the stop that is under way, moving its deadline forward if ours is earlier, or begins one.
    /// The second value is true for the call that began it.
    fn join(&self, deadline: Instant) -> (watch::Receiver<Instant>, bool) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*current {
            sender.send_if_modified(|at| {
                let sooner = deadline < *at;
                *at = (*at).min(deadline);
                sooner
            });
            return (sender.subscribe(), false);
        }
        let (sender, receiver) = watch::channel(deadline);
        *current = Some(sender);
        (receiver, true)
    }
}

/// Sends the stop signal, waits `grace` for the end, then kills; returns when the container has exited.
///
/// # Errors
/// When it does not end even when killed.
pub(crate) async fn stop(
    container: &Container,
    shim: Option<&Shim>,
    grace: Duration,
    operation: &Operation,
) -> Result<()> {
    // A start under way was cancelled and is waited for: what it started has to be stopped.
    drop(container.verb.lock().await);
    if !matches!(container.state(), State::Running(_)) {
        return Ok(());
    }
    let (mut deadline, first) = container.stopping.join(Instant::now() + grace);
    if first && !grace.is_zero() {
        operation.enter("sending the stop signal")?;
        signal(container, shim, container.fixed.stop_signal).await;
    }
    operation.enter("waiting for the container to end by itself")?;
    if ended_before(container, &mut deadline).await {
        return Ok(());
    }
    operation.enter("killing the container")?;
    kill(container, shim).await
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
    fn a_later_call_may_only_shorten_the_wait_and_is_not_the_first() {
        let stopping = Stopping::default();
        let now = Instant::now();
        let (first, began) = stopping.join(now + Duration::from_secs(30));
        assert!(began);
        let (_, again) = stopping.join(now + Duration::from_secs(60));
        assert!(!again);
        assert_eq!(*first.borrow(), now + Duration::from_secs(30));
        stopping.join(now + Duration::from_secs(2));
        assert_eq!(*first.borrow(), now + Duration::from_secs(2));
    }
}
