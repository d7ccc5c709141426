//! Task.Kill: signals, sent straight to the process or through its cgroup.
//!
//! Going through the OCI runtime would cost a program start per signal and add nothing: the
//! shim is the parent, so it knows better than anyone whether the pid is still that process.

use std::collections::HashSet;
use std::rc::Rc;

use api::task::KillRequest;
use rustix::process::{Pid, PidfdFlags, Signal, getsid, pidfd_open, pidfd_send_signal};

use super::{Task, find, finished};
use crate::cgroup::Cgroup;
use crate::pod::Pod;
use crate::rpc::Failure;
use crate::runtime;

const SIGKILL: u32 = libc::SIGKILL as u32;
/// How often it is looked for processes that were born meanwhile.
const MAX_ROUNDS: usize = 1000;

/// Sends a signal to a container's init, to all its processes, to an exec, or to it and its session.
pub(crate) async fn kill(pod: &Rc<Pod>, request: &KillRequest) -> Result<(), Failure> {
    if let Some(birth) = pod.birth(&request.id) {
        // Nothing runs yet: what there is to end is the runtime making it.
        if request.signal == SIGKILL {
            birth.cancel();
        }
        return Ok(());
    }
    let task = find(pod, &request.id)?;
    if !request.exec_id.is_empty() {
        let exec = task.exec(&request.exec_id)?;
        let process = exec.process.borrow().clone();
        if process.is_none() && request.signal == SIGKILL && exec.call.get() != 0 {
            // Nothing runs yet: what there is to end is the runtime starting it.
            runtime::end_group(exec.call.get());
            return Ok(());
        }
        let process = process.ok_or_else(finished)?;
        process.signal(request.signal)?;
        if request.all
            && let Some(cgroup) = &task.cgroup
        {
            signal_session(cgroup, process.pid, request.signal);
        }
        return Ok(());
    }
    task.init.signal(request.signal)?;
    if request.all
        && let Some(cgroup) = &task.cgroup
    {
        cgroup.signal_all(request.signal);
    }
    if request.signal == SIGKILL {
        // A start or an exec that hangs has nothing to wait for any more.
        runtime::end_calls(&task.bundle);
        thaw(&task).await;
    }
    Ok(())
}

/// Signals what an exec has started: the runtimes make it the leader of a session of its own, which its children stay
/// in unless they leave on purpose. The leader has not been reaped, so the session's number is nobody else's.
fn signal_session(cgroup: &Cgroup, leader: u32, signal: u32) {
    let number = i32::try_from(signal).ok();
    let Some(named) = number.and_then(Signal::from_named_raw) else { return };
    let mut told = HashSet::from([leader]);
    for _ in 0..MAX_ROUNDS {
        let mut more = false;
        for pid in cgroup.processes() {
            if told.contains(&pid) {
                continue;
            }
            match signal_member(pid, leader, named) {
                Some(false) => {}
                Some(true) => more = told.insert(pid),
                // What it has started meanwhile was not listed.
                None => more = true,
            }
        }
        // Who has been killed has no more children; who has only been told something may.
        if !more || signal != SIGKILL {
            return;
        }
    }
}

/// Signals a process if it is of that session; `None` where it has gone.
fn signal_member(pid: u32, leader: u32, signal: Signal) -> Option<bool> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    // Held before it is asked, so that it cannot be another by the time of the signal.
    let held = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let session = getsid(Some(pid)).ok()?.as_raw_nonzero().get();
    let is_member = u32::try_from(session) == Ok(leader);
    if is_member {
        pidfd_send_signal(&held, signal).ok()?;
    }
    Some(is_member)
}

/// A frozen process dies only once it runs again.
async fn thaw(task: &Task) {
    if task.paused.replace(false)
        && let Err(error) = task.runtime.run(&task.bundle, &["resume", &task.id], None).await
    {
        eprintln!("{}: {error}", task.id);
    }
}
