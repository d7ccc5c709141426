//! Task.Kill: signals, sent straight to the process or through its cgroup.
//!
//! Going through the OCI runtime would cost a program start per signal and add nothing: the
//! shim is the parent, so it knows better than anyone whether the pid is still that process.

use std::rc::Rc;

use api::task::KillRequest;
use rustix::process::{Pid, PidfdFlags, Signal, getsid, pidfd_open, pidfd_send_signal};

use super::{Task, find, finished};
use crate::pod::Pod;
use crate::rpc::Failure;
use crate::runtime;

const SIGKILL: u32 = libc::SIGKILL as u32;

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
        if request.all
            && let Some(cgroup) = &task.cgroup
        {
            signal_session(&cgroup.processes(), process.pid, request.signal);
        }
        return process.signal(request.signal);
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
/// in unless they leave on purpose.
fn signal_session(processes: &[u32], leader: u32, signal: u32) {
    let number = i32::try_from(signal).ok();
    let Some(signal) = number.and_then(Signal::from_named_raw) else { return };
    for pid in processes.iter().filter(|pid| **pid != leader) {
        let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else { continue };
        // Held before it is asked, so that it cannot be another by the time of the signal.
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let session = getsid(Some(pid)).map(|session| session.as_raw_nonzero().get());
        if session.is_ok_and(|session| u32::try_from(session) == Ok(leader)) {
            let _ = pidfd_send_signal(&held, signal);
        }
    }
}

/// A frozen process dies only once it runs again.
async fn thaw(task: &Task) {
    if task.paused.replace(false)
        && let Err(error) = task.runtime.run(&task.bundle, &["resume", &task.id], None).await
    {
        eprintln!("{}: {error}", task.id);
    }
}
