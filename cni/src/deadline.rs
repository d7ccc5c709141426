//! Until when a caller waits, and how it gives up earlier.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::error::{Error, Result, Verb};

/// A way to give up from another thread. Cheap to clone; once cancelled, it stays so.
#[derive(Debug, Clone)]
pub struct Cancel {
    /// An eventfd that becomes readable for good, so that waiters need no timer to notice.
    event: Arc<OwnedFd>,
}

impl Cancel {
    /// One that nobody has cancelled yet.
    pub fn new() -> Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).map_err(|e| Error::io("create", "an eventfd".as_ref(), e))?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Ends whatever waits on this, now and later.
    pub fn cancel(&self) {
        // A full counter (EAGAIN) is readable too, which is all that matters.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// Has anybody cancelled?
    pub fn is_cancelled(&self) -> bool {
        let mut fds = [PollFd::new(&*self.event, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|n| n > 0)
    }
}

/// Why nobody waits any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    TimedOut,
    Cancelled,
}

/// The end of a caller's patience.
#[derive(Debug, Clone)]
pub struct Deadline {
    started: Instant,
    at: Instant,
    cancel: Option<Cancel>,
    /// Where the plugin that is being waited for is told.
    tells: Option<Arc<Mutex<String>>>,
}

impl Deadline {
    /// That long from now.
    pub fn after(limit: Duration) -> Self {
        let started = Instant::now();
        Self { started, at: started + limit, cancel: None, tells: None }
    }

    /// Ends earlier if `cancel` is used.
    pub fn or(self, cancel: &Cancel) -> Self {
        Self { cancel: Some(cancel.clone()), ..self }
    }

    /// Tells in `whom` which plugin is being waited for; empty while it is none.
    pub fn telling(self, whom: &Arc<Mutex<String>>) -> Self {
        Self { tells: Some(whom.clone()), ..self }
    }

    /// Says what is being waited for now.
    pub(crate) fn tell(&self, what: String) {
        if let Some(whom) = &self.tells {
            *whom.lock().unwrap_or_else(PoisonError::into_inner) = what;
        }
    }

    /// A deadline that leaves half of the remaining time to whoever comes next.
    pub(crate) fn half(&self) -> Self {
        let now = Instant::now();
        Self { started: now, at: now + self.left() / 2, ..self.clone() }
    }

    /// One that passes no later than `limit` from now.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + limit), ..self.clone() }
    }

    /// From now on; zero when it has passed.
    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// How long the caller has been waiting.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Is there still time, and anybody who waits?
    pub(crate) fn check(&self) -> std::result::Result<(), Over> {
        match self {
            _ if self.cancel.as_ref().is_some_and(Cancel::is_cancelled) => Err(Over::Cancelled),
            _ if self.left().is_zero() => Err(Over::TimedOut),
            _ => Ok(()),
        }
    }

    /// As the failure of a plugin's work.
    pub(crate) fn error(&self, over: Over, plugin: &str, verb: Verb) -> Error {
        let plugin = plugin.to_owned();
        match over {
            Over::TimedOut => Error::TimedOut { plugin, verb, after: self.elapsed() },
            Over::Cancelled => Error::Cancelled { plugin, verb },
        }
    }

    /// Becomes readable on cancellation.
    pub(crate) fn cancel_fd(&self) -> Option<BorrowedFd<'_>> {
        self.cancel.as_ref().map(|cancel| cancel.event.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_reaches_every_clone_and_stays() {
        let cancel = Cancel::new().unwrap();
        let deadline = Deadline::after(Duration::from_secs(9)).or(&cancel);
        assert!(deadline.check().is_ok() && deadline.half().check().is_ok());
        cancel.clone().cancel();
        cancel.cancel();
        assert_eq!(deadline.check(), Err(Over::Cancelled));
        assert_eq!(deadline.half().check(), Err(Over::Cancelled));
        assert!(deadline.half().left() <= Duration::from_millis(4500));
        assert_eq!(Deadline::after(Duration::ZERO).check(), Err(Over::TimedOut));
    }
}
