//! Timers of the event loop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::Timespec;

use super::{current, race};

#[derive(Default)]
pub(super) struct Table {
    /// The number makes keys of equal instants distinct.
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next: Cell<u64>,
}

impl Table {
    pub(super) fn until_next(&self) -> Option<Timespec> {
        let (at, _) = *self.waiting.borrow().keys().next()?;
        let left = at.saturating_duration_since(Instant::now());
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    pub(super) fn fire(&self) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(entry) = waiting.first_entry()
            && entry.key().0 <= now
        {
            entry.remove().wake();
        }
    }
}

struct Sleep {
    at: Instant,
    number: u64,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        let this = current();
        this.timers.waiting.borrow_mut().insert((self.at, self.number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        current().timers.waiting.borrow_mut().remove(&(self.at, self.number));
    }
}

/// Waits for a while.
pub(crate) fn sleep(duration: Duration) -> impl Future<Output = ()> {
    let this = current();
    let number = this.timers.next.get();
    this.timers.next.set(number + 1);
    Sleep { at: Instant::now() + duration, number }
}

/// The future's output, or `None` when it takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let timeout = async {
        sleep(limit).await;
        None
    };
    race(pin!(async { Some(future.await) }), pin!(timeout)).await
}
