//! The event loop: one thread, one epoll, and small futures on top.
//!
//! Everything the shim does beside writing logs happens here, so state is shared with `Rc` and
//! `RefCell` and needs no locks. A future may hold a `RefCell` borrow only between two awaits.
//! Nothing here waits in the kernel other than in `epoll_wait`; what could (files on disks)
//! belongs to the log thread.

mod child;
mod source;
mod sync;
mod timer;

pub(crate) use child::{Exit, expect, reap, watch};
pub(crate) use source::Source;
pub(crate) use sync::{Lock, Once, race};
pub(crate) use timer::{sleep, within};

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

use rustix::event::epoll;

type Job = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static LOOP: OnceCell<Rc<Loop>> = const { OnceCell::new() };
}

struct Loop {
    epoll: OwnedFd,
    jobs: RefCell<Vec<Option<Entry>>>,
    ready: Arc<Mutex<Vec<usize>>>,
    sources: source::Table,
    timers: timer::Table,
    children: child::Table,
    stopping: Cell<bool>,
}

struct Entry {
    /// Taken out while it runs.
    job: Option<Job>,
    wakeup: Arc<Wakeup>,
}

/// Wakers must be `Send`, hence the mutex, which nobody ever contends for.
struct Wakeup {
    key: usize,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Wakeup {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().unwrap_or_else(PoisonError::into_inner).push(self.key);
        }
    }
}

fn current() -> Rc<Loop> {
    LOOP.with(|cell| Rc::clone(cell.get().expect("only called from inside the event loop")))
}

/// Runs `main` and all it spawns until someone calls [`stop`].
pub(crate) fn run(main: impl Future<Output = ()> + 'static) -> io::Result<()> {
    let this = Rc::new(Loop {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        jobs: RefCell::default(),
        ready: Arc::default(),
        sources: source::Table::default(),
        timers: timer::Table::default(),
        children: child::Table::default(),
        stopping: Cell::new(false),
    });
    LOOP.with(|cell| cell.set(Rc::clone(&this)).map_err(|_| io::Error::other("already running")))?;
    spawn(main);
    let mut events = Vec::with_capacity(16);
    while !this.stopping.get() {
        this.run_ready();
        if this.stopping.get() {
            break;
        }
        this.wait(&mut events)?;
    }
    Ok(())
}

/// Lets [`run`] return as soon as the running future yields; all others are forgotten.
pub(crate) fn stop() {
    current().stopping.set(true);
}

/// Runs a future beside all others.
pub(crate) fn spawn(job: impl Future<Output = ()> + 'static) {
    let this = current();
    let mut jobs = this.jobs.borrow_mut();
    let key = jobs.iter().position(Option::is_none).unwrap_or(jobs.len());
    let wakeup =
        Arc::new(Wakeup { key, queued: AtomicBool::new(false), ready: Arc::clone(&this.ready) });
    let entry = Entry { job: Some(Box::pin(job)), wakeup: Arc::clone(&wakeup) };
    if key == jobs.len() {
        jobs.push(Some(entry));
    } else {
        jobs[key] = Some(entry);
    }
    wakeup.wake();
}

impl Loop {
    fn run_ready(&self) {
        loop {
            let batch =
                std::mem::take(&mut *self.ready.lock().unwrap_or_else(PoisonError::into_inner));
            if batch.is_empty() || self.stopping.get() {
                return;
            }
            for key in batch {
                self.run_one(key);
            }
        }
    }

    fn run_one(&self, key: usize) {
        let taken = self.jobs.borrow_mut().get_mut(key).and_then(|slot| {
            let entry = slot.as_mut()?;
            Some((entry.job.take()?, Arc::clone(&entry.wakeup)))
        });
        let Some((mut job, wakeup)) = taken else { return };
        wakeup.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(wakeup);
        let done = job.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if done {
            // Dropped before its slot is free: a future's drop may spawn.
            drop(job);
            self.jobs.borrow_mut()[key] = None;
            self.shrink();
        } else if let Some(Some(entry)) = self.jobs.borrow_mut().get_mut(key) {
            entry.job = Some(job);
        }
    }

    /// Gives the memory of a burst of jobs back.
    fn shrink(&self) {
        let mut jobs = self.jobs.borrow_mut();
        while matches!(jobs.last(), Some(None)) {
            jobs.pop();
        }
    }

    fn wait(&self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let timeout = self.timers.until_next();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            self.sources.fire(event.data.u64(), event.flags);
        }
        self.timers.fire();
        Ok(())
    }
}
