//! A descriptor in the event loop.
//!
//! Registered once, edge-triggered, so waiting costs no system call. The rule that goes with it:
//! try first, and wait only after the kernel said "would block".

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Poll, Waker};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::current;

#[derive(Default)]
pub(super) struct Table(RefCell<Vec<Option<Slot>>>);

/// The one future that waits in each direction.
#[derive(Default)]
struct Slot {
    read: Option<Waker>,
    write: Option<Waker>,
}

impl Table {
    pub(super) fn fire(&self, key: u64, flags: EventFlags) {
        let mut slots = self.0.borrow_mut();
        let Some(Some(slot)) = usize::try_from(key).ok().and_then(|key| slots.get_mut(key)) else {
            return;
        };
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let readable = EventFlags::IN | EventFlags::PRI | EventFlags::RDHUP;
        if (broken || flags.intersects(readable))
            && let Some(waker) = slot.read.take()
        {
            waker.wake();
        }
        if (broken || flags.contains(EventFlags::OUT))
            && let Some(waker) = slot.write.take()
        {
            waker.wake();
        }
    }
}

/// A non-blocking descriptor that futures can wait for.
pub(crate) struct Source<F: AsFd = OwnedFd> {
    fd: F,
    key: usize,
}

#[derive(Clone, Copy)]
enum Direction {
    Read,
    Write,
}

impl<F: AsFd> Source<F> {
    /// Registers a descriptor, which must be in non-blocking mode.
    pub(crate) fn new(fd: F) -> io::Result<Self> {
        let this = current();
        let mut slots = this.sources.0.borrow_mut();
        let key = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        let flags =
            EventFlags::IN | EventFlags::OUT | EventFlags::PRI | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&this.epoll, &fd, EventData::new_u64(key as u64), flags)?;
        if key == slots.len() {
            slots.push(Some(Slot::default()));
        } else {
            slots[key] = Some(Slot::default());
        }
        Ok(Self { fd, key })
    }

    /// Tries a read-like operation, again each time the descriptor becomes readable.
    pub(crate) async fn read_with<T>(
        &self,
        mut operation: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        self.retry(Direction::Read, &mut operation).await
    }

    /// Tries a write-like operation, again each time the descriptor becomes writable.
    pub(crate) async fn write_with<T>(
        &self,
        mut operation: impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        self.retry(Direction::Write, &mut operation).await
    }

    /// Waits for the next change (used where there is nothing to read, as with `memory.events`).
    pub(crate) async fn changed(&self) {
        self.edge(Direction::Read).await;
    }

    async fn retry<T>(
        &self,
        direction: Direction,
        operation: &mut impl FnMut(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match operation(self.fd.as_fd()) {
                Err(rustix::io::Errno::AGAIN) => self.edge(direction).await,
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map_err(Into::into),
            }
        }
    }

    async fn edge(&self, direction: Direction) {
        let mut waited = false;
        poll_fn(|context| {
            if std::mem::replace(&mut waited, true) {
                return Poll::Ready(());
            }
            let this = current();
            let mut slots = this.sources.0.borrow_mut();
            if let Some(Some(slot)) = slots.get_mut(self.key) {
                let waker = Some(context.waker().clone());
                match direction {
                    Direction::Read => slot.read = waker,
                    Direction::Write => slot.write = waker,
                }
            }
            Poll::Pending
        })
        .await;
    }
}

impl<F: AsFd> AsFd for Source<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd> Drop for Source<F> {
    fn drop(&mut self) {
        let this = current();
        // The descriptor may be shared with another process, so closing it would not be enough.
        let _ = epoll::delete(&this.epoll, &self.fd);
        let mut slots = this.sources.0.borrow_mut();
        slots[self.key] = None;
        while matches!(slots.last(), Some(None)) {
            slots.pop();
        }
    }
}
