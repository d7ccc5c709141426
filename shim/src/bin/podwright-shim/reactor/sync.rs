//! What futures of the one thread wait for on each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A value that is set once and that any number of futures wait for.
pub(crate) struct Once<T> {
    value: RefCell<Option<T>>,
    waiting: RefCell<Vec<(u64, Waker)>>,
    next: Cell<u64>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self { value: RefCell::new(None), waiting: RefCell::default(), next: Cell::new(0) }
    }
}

impl<T: Clone> Once<T> {
    /// Sets the value and wakes everyone; a second value is ignored.
    pub(crate) fn set(&self, value: T) {
        self.value.borrow_mut().get_or_insert(value);
        for (_, waker) in self.waiting.take() {
            waker.wake();
        }
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.value.borrow().clone()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.value.borrow().is_some()
    }

    pub(crate) fn wait(&self) -> Waiting<'_, T> {
        let number = self.next.get();
        self.next.set(number + 1);
        Waiting { once: self, number }
    }
}

/// Waits for a [`Once`]; whoever gives up leaves nothing behind, since some wait for what never comes.
pub(crate) struct Waiting<'a, T> {
    once: &'a Once<T>,
    number: u64,
}

impl<T: Clone> Future for Waiting<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if let Some(value) = self.once.get() {
            return Poll::Ready(value);
        }
        let mut waiting = self.once.waiting.borrow_mut();
        match waiting.iter_mut().find(|(number, _)| *number == self.number) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => waiting.push((self.number, context.waker().clone())),
        }
        Poll::Pending
    }
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.once.waiting.borrow_mut().retain(|(number, _)| *number != self.number);
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
