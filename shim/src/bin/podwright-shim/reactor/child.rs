//! Exits of processes.
//!
//! The shim is the sub-reaper of everything in its pod and the only place that reaps is
//! [`reap`], so a pid that has not been seen to exit here cannot have been reused. That is what
//! makes signalling by pid safe everywhere else.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::SystemTime;

use rustix::process::{WaitOptions, wait};

use super::{Once, current};
use crate::sys;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The exit code, or 128 plus the signal.
    pub(crate) status: u32,
    pub(crate) signal: Option<u32>,
    pub(crate) at: SystemTime,
}

impl Exit {
    /// Of a process that ended without telling us how.
    pub(crate) fn unknown() -> Self {
        Self { status: 255, signal: None, at: SystemTime::now() }
    }

    pub(crate) fn ok(self) -> bool {
        self.status == 0
    }
}

#[derive(Default)]
pub(super) struct Table {
    watched: RefCell<HashMap<u32, Rc<Once<Exit>>>>,
    /// Exits of processes that nobody watched, kept while someone may learn of a new pid.
    unclaimed: RefCell<HashMap<u32, Exit>>,
    expecting: Cell<usize>,
}

/// Held while a runtime is starting a process whose pid will be known only later.
pub(crate) struct Expecting(());

pub(crate) fn expect() -> Expecting {
    let this = current();
    this.children.expecting.set(this.children.expecting.get() + 1);
    Expecting(())
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let this = current();
        let left = this.children.expecting.get() - 1;
        this.children.expecting.set(left);
        if left == 0 {
            this.children.unclaimed.take();
        }
    }
}

/// The exit of a child, past or future. To be called before the next await after the child was
/// spawned, or while an [`Expecting`] from before its birth is held.
pub(crate) fn watch(pid: u32) -> Rc<Once<Exit>> {
    let this = current();
    let exit = Rc::new(Once::default());
    if let Some(past) = this.children.unclaimed.borrow_mut().remove(&pid) {
        exit.set(past);
    } else if sys::kill(pid, 0).is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH)) {
        // Reaped by someone else before it could become ours.
        exit.set(Exit::unknown());
    } else {
        this.children.watched.borrow_mut().insert(pid, Rc::clone(&exit));
    }
    exit
}

/// Reaps all that has exited, orphans of the pod included.
pub(crate) fn reap() {
    let this = current();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        let signal = status.terminating_signal().and_then(|signal| u32::try_from(signal).ok());
        let code = status.exit_status().and_then(|code| u32::try_from(code).ok());
        let (Some(status), Ok(pid)) =
            (signal.map(|signal| 128 + signal).or(code), u32::try_from(pid.as_raw_nonzero().get()))
        else {
            continue;
        };
        let exit = Exit { status, signal, at: SystemTime::now() };
        let watched = this.children.watched.borrow_mut().remove(&pid);
        match watched {
            Some(once) => once.set(exit),
            None if this.children.expecting.get() > 0 => {
                this.children.unclaimed.borrow_mut().insert(pid, exit);
            }
            None => {}
        }
    }
}
