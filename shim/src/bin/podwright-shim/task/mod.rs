//! Containers of the pod, and the Task service's verbs on them.
//!
//! ```text
//! Create ──▶ created ──Start──▶ running ◀──▶ paused
//!               │                  │
//!               └──── exit ◀───────┘  reaped → output drained → exit record → Wait answered
//!                        │
//!                        └──Delete──▶ gone
//! ```
//!
//! The kernel decides when a container has exited; nothing else moves it there. A verb that runs
//! the OCI runtime holds the task's lock; signals and questions do not.

mod attach;
mod close;
mod console;
mod create;
mod delete;
mod exec;
mod exit;
mod kill;
mod observe;
mod options;
mod pause;
mod start;
mod stdio;
mod update;

pub(crate) use attach::attach;
pub(crate) use close::{close_io, reopen_log, resize};
pub(crate) use create::{Birth, create};
pub(crate) use delete::delete;
pub(crate) use exec::exec;
pub(crate) use kill::kill;
pub(crate) use observe::{connect, pids, state, timestamp, wait};
pub(crate) use pause::{pause, resume};
pub(crate) use start::start;
pub(crate) use update::update;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::cgroup::{Cgroup, OomWatch};
use crate::pod::Pod;
use crate::reactor::{Exit, Lock, Once};
use crate::rpc::Failure;
use crate::runtime::{self, Runtime};
use crate::sys;
use options::Options;
use stdio::{Names, Streams};

/// One container.
pub(crate) struct Task {
    pub(crate) id: String,
    bundle: PathBuf,
    runtime: Runtime,
    options: Options,
    init: Process,
    execs: RefCell<BTreeMap<String, Rc<Exec>>>,
    lock: Lock,
    started: Cell<bool>,
    /// Set once the runtime's `start` has ended, well or not: an exit is reported after it.
    start_over: Once<()>,
    starting: Cell<bool>,
    paused: Cell<bool>,
    cgroup: Option<Cgroup>,
    oom: Option<OomWatch>,
}

/// A process that the runtime has made.
pub(crate) struct Process {
    pid: u32,
    names: Names,
    streams: Rc<Streams>,
    /// The kernel's word.
    reaped: Rc<Once<Exit>>,
    /// What the world is told: after output was drained and the record written.
    exit: Rc<Once<Exit>>,
    /// Whether we were the ones who sent it SIGKILL.
    killed: Cell<bool>,
}

/// A further process in a container, from Exec to Delete.
struct Exec {
    spec: Vec<u8>,
    names: Names,
    lock: Lock,
    /// The runtime at work on its start, which leads a process group; 0 before and after.
    call: Cell<u32>,
    process: RefCell<Option<Rc<Process>>>,
    exit: Rc<Once<Exit>>,
}

impl Process {
    /// Signals it, unless the kernel has already told us of its end: until we have reaped it,
    /// its pid cannot be anyone else's.
    fn signal(&self, signal: u32) -> Result<(), Failure> {
        if self.reaped.is_set() {
            return Err(finished());
        }
        if signal == libc::SIGKILL as u32 {
            self.killed.set(true);
        }
        sys::kill(self.pid, signal).map_err(|error| match error.raw_os_error() {
            Some(libc::ESRCH) => finished(),
            Some(libc::EINVAL) => Failure::invalid(format_args!("no such signal: {signal}")),
            _ => Failure::io("kill")(error),
        })
    }
}

fn finished() -> Failure {
    Failure::not_found("process already finished")
}

/// The container of that id.
fn find(pod: &Pod, id: &str) -> Result<Rc<Task>, Failure> {
    let task = pod.tasks.borrow().get(id).cloned();
    task.ok_or_else(|| Failure::not_found(format_args!("no container {id:?}")))
}

impl Task {
    fn exec(&self, id: &str) -> Result<Rc<Exec>, Failure> {
        let exec = self.execs.borrow().get(id).cloned();
        exec.ok_or_else(|| Failure::not_found(format_args!("no exec {id:?} in {:?}", self.id)))
    }

    /// Ends everything that is left in the container.
    pub(crate) fn kill_all(&self) {
        let _ = self.init.signal(libc::SIGKILL as u32);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
        }
        self.end_calls();
    }

    /// Ends calls of the OCI runtime that hang.
    pub(crate) fn end_calls(&self) {
        runtime::end_calls(&self.bundle);
    }

    /// Waits for its end, as reported.
    pub(crate) async fn exited(&self) -> Exit {
        self.init.exit.wait().await
    }

    /// Removes what the OCI runtime still keeps of it.
    pub(crate) async fn discard(&self) -> io::Result<()> {
        let deleted = self.runtime.delete_force(&self.bundle, &self.id).await;
        deleted.map_err(|error| io::Error::other(error.to_string()))
    }
}
