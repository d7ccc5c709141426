//! What futures of the one thread wait for on each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, Waker};

/// A value that is set once and that any number of futures wait for.
pub(crate) struct Once<T> {
    value: RefCell<Option<T>>,
    waiting: RefCell<Vec<Waker>>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { value: RefCell::new(None), waiting: RefCell::default() }
    }
}

impl<T: Clone> Once<T> {
    /// Sets the value and wakes everyone; a second value is ignored.
    pub(crate) fn set(&self, value: T) {
        self.value.borrow_mut().get_or_insert(value);
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.value.borrow().clone()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.value.borrow().is_some()
    }

    pub(crate) async fn wait(&self) -> T {
        poll_fn(|context| {
            if let Some(value) = self.get() {
                return Poll::Ready(value);
            }
            let mut waiting = self.waiting.borrow_mut();
            waiting.retain(|waker| !waker.will_wake(context.waker()));
            waiting.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Admits one future at a time.
#[derive(Default)]
pub(crate) struct Lock {
    held: Cell<bool>,
    waiting: RefCell<VecDeque<Waker>>,
}

pub(crate) struct LockGuard<'a>(&'a Lock);

impl Lock {
    pub(crate) async fn lock(&self) -> LockGuard<'_> {
        poll_fn(|context| {
            if self.held.replace(true) {
                self.waiting.borrow_mut().push_back(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(LockGuard(self))
        })
        .await
    }
}

impl Drop for LockGuard<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        // All of them: one that has been dropped meanwhile must not swallow the only wake-up.
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }
}

/// The output of whichever future is ready first.
pub(crate) async fn race<T>(
    mut first: Pin<&mut impl Future<Output = T>>,
    mut second: Pin<&mut impl Future<Output = T>>,
) -> T {
    poll_fn(|context| match first.as_mut().poll(context) {
        Poll::Pending => second.as_mut().poll(context),
        ready @ Poll::Ready(_) => ready,
    })
    .await
}
