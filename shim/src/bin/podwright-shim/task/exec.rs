//! Exec: further processes in a container.
//!
//! The runtime starts them detached, so they become children of the shim, which reaps them and
//! knows how they ended. Nothing of an exec is left when it is deleted.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use api::events::{TaskExecAdded, TaskExecStarted, TaskExit, topic};
use api::task::{ExecProcessRequest, StartResponse};

use super::console::ConsoleListener;
use super::create::read_pid;
use super::observe::timestamp;
use super::stdio::{Ends, Extras, Names, Reader, Streams};
use super::{Exec, Process, Task, find};
use crate::args::check_id;
use crate::pod::Pod;
use crate::reactor::{self, Lock};
use crate::rpc::Failure;
use crate::runtime::{Call, scratch};
use crate::stage;

/// More than any client needs at once.
const MAX_EXECS: usize = 1024;

/// Task.Exec: registers a process; Start runs it.
pub(crate) fn exec(pod: &Rc<Pod>, request: ExecProcessRequest) -> Result<(), Failure> {
    check_id(&request.exec_id).map_err(Failure::invalid)?;
    let task = find(pod, &request.id)?;
    if task.init.reaped.is_set() {
        return Err(Failure::precondition("the container has exited"));
    }
    let spec = request.spec.ok_or_else(|| Failure::invalid("an exec without a process"))?.value;
    let mut execs = task.execs.borrow_mut();
    if execs.len() >= MAX_EXECS {
        return Err(Failure::exhausted("too many execs at once"));
    }
    if execs.contains_key(&request.exec_id) {
        return Err(Failure::exists(format_args!("exec {:?}", request.exec_id)));
    }
    let names = Names {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        terminal: request.terminal,
    };
    let exec = Exec {
        spec,
        names,
        lock: Lock::default(),
        call: Cell::default(),
        process: RefCell::default(),
        exit: Rc::default(),
    };
    execs.insert(request.exec_id.clone(), Rc::new(exec));
    pod.publish(topic::EXEC_ADDED, || TaskExecAdded {
        container_id: request.id,
        exec_id: request.exec_id,
    });
    Ok(())
}

/// Runs a registered process.
pub(super) async fn start(
    pod: &Rc<Pod>,
    task: &Rc<Task>,
    id: &str,
) -> Result<StartResponse, Failure> {
    let exec = task.exec(id)?;
    let _guard = exec.lock.lock().await;
    if exec.process.borrow().is_some() {
        return Err(Failure::precondition("the exec was started before"));
    }
    if task.init.reaped.is_set() {
        return Err(Failure::precondition("the container has exited"));
    }
    let process = Rc::new(run(pod, task, &exec).await?);
    *exec.process.borrow_mut() = Some(Rc::clone(&process));
    let pid = process.pid;
    pod.publish(topic::EXEC_STARTED, || TaskExecStarted {
        container_id: task.id.clone(),
        exec_id: id.to_owned(),
        pid,
    });
    reactor::spawn(watch(Rc::clone(pod), task.id.clone(), id.to_owned(), process));
    Ok(StartResponse { pid })
}

async fn run(pod: &Rc<Pod>, task: &Task, exec: &Exec) -> Result<Process, Failure> {
    let extras = Extras { owner: task.options.owner, ..Extras::default() };
    let opened = Streams::open(&exec.names, extras, &pod.logger).await;
    let (streams, ends) = opened.map_err(Failure::io("exec streams"))?;
    let console = match exec.names.terminal {
        true => Some(ConsoleListener::new(&pod.dir).map_err(Failure::io("console socket"))?),
        false => None,
    };
    let spec = scratch(&task.bundle, "process");
    let pid_file = scratch(&task.bundle, "pid");
    fs::write(&spec, &exec.spec).map_err(Failure::io("process document"))?;
    let score = score(&exec.spec);
    let expecting = reactor::expect();
    let called = match call(pod, task, console.as_ref(), &spec, &pid_file, score, ends) {
        Ok(call) => {
            exec.call.set(call.pid);
            // crun gives its own score on.
            set_score(call.pid, score);
            call.finish().await.map_err(Failure::unknown)
        }
        Err(failure) => Err(failure),
    };
    exec.call.set(0);
    let _ = fs::remove_file(&spec);
    let pid = called.and_then(|()| read_pid(&pid_file));
    let _ = fs::remove_file(&pid_file);
    let pid = pid?;
    // runc gives the one that the container was created with, which may have changed.
    set_score(pid, score);
    let reaped = reactor::watch(pid);
    drop(expecting);
    let process = Process {
        pid,
        names: exec.names.clone(),
        streams: Rc::new(streams),
        reaped,
        exit: Rc::clone(&exec.exit),
        killed: Cell::new(false),
    };
    if let Some(console) = console
        && let Err(error) = process.streams.connect(&exec.names, console, Reader::Leaves).await
    {
        let _ = process.signal(libc::SIGKILL as u32);
        return Err(Failure::io("terminal")(error));
    }
    process.streams.started_exec();
    Ok(process)
}

fn call(
    pod: &Pod,
    task: &Task,
    console: Option<&ConsoleListener>,
    spec: &Path,
    pid_file: &Path,
    score: Option<i64>,
    ends: Ends,
) -> Result<Call, Failure> {
    let log = scratch(&task.bundle, "log");
    let mut line = task.runtime.arguments(&log);
    line.extend([OsStr::new("exec"), OsStr::new("--detach")]);
    line.extend([OsStr::new("--process"), spec.as_os_str()]);
    line.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
    if let Some(console) = console {
        line.extend([OsStr::new("--console-socket"), console.path().as_os_str()]);
    }
    line.push(OsStr::new(&task.id));
    let program = task.runtime.program();
    let restore = pod.restore_score.filter(|_| score.is_none());
    let mut command = stage::runtime(restore, &stage::Scene::default(), &log, &program, &line);
    command.current_dir(&task.bundle).stdin(ends.stdin).stdout(ends.stdout).stderr(ends.stderr);
    let what = format!("{} exec", task.runtime.name());
    Call::spawn(&mut command, what, log, None).map_err(Failure::io(task.runtime.name()))
}

/// The `oom_score_adj` that the process is to have, whatever ours is and that of its container was.
fn score(process: &[u8]) -> Option<i64> {
    serde_json::from_slice::<serde_json::Value>(process).ok()?["oomScoreAdj"].as_i64()
}

/// As far as the kernel lets us; one that is gone needs none.
fn set_score(pid: u32, score: Option<i64>) {
    if let Some(score) = score {
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string());
    }
}

/// Reports the end of an exec.
async fn watch(pod: Rc<Pod>, container_id: String, id: String, process: Rc<Process>) {
    let exit = process.reaped.wait().await;
    process.streams.finish().await;
    process.exit.set(exit);
    pod.publish(topic::EXIT, || TaskExit {
        container_id,
        id,
        pid: process.pid,
        exit_status: exit.status,
        exited_at: Some(timestamp(exit.at)),
    });
}
