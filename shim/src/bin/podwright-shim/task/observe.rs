//! What can be asked about a task: State, Wait, Pids, Connect.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use api::task::{
    ConnectRequest, ConnectResponse, PidsRequest, PidsResponse, StateRequest, StateResponse,
    WaitRequest, WaitResponse,
};
use api::types::{ProcessInfo, Status};
use prost_types::Timestamp;

use super::{Process, Task, find};
use crate::pod::Pod;
use crate::reactor::Exit;
use crate::rpc::Failure;

/// Task.State.
pub(crate) fn state(pod: &Rc<Pod>, request: &StateRequest) -> Result<StateResponse, Failure> {
    let task = find(pod, &request.id)?;
    let answer = StateResponse {
        id: task.id.clone(),
        bundle: task.bundle.to_string_lossy().into_owned(),
        exec_id: request.exec_id.clone(),
        ..StateResponse::default()
    };
    if request.exec_id.is_empty() {
        let status = match (task.started.get(), task.paused.get()) {
            (false, _) => Status::Created,
            (true, false) => Status::Running,
            (true, true) => Status::Paused,
        };
        return Ok(described(answer, &task.init, status));
    }
    let exec = task.exec(&request.exec_id)?;
    let process = exec.process.borrow().clone();
    Ok(match process {
        Some(process) => described(answer, &process, Status::Running),
        None => StateResponse { status: Status::Created.into(), ..answer },
    })
}

fn described(answer: StateResponse, process: &Process, alive: Status) -> StateResponse {
    let exit = process.exit.get();
    let status = if exit.is_some() { Status::Stopped } else { alive };
    StateResponse {
        pid: process.pid,
        status: status.into(),
        stdin: process.names.stdin.clone(),
        stdout: process.names.stdout.clone(),
        stderr: process.names.stderr.clone(),
        terminal: process.names.terminal,
        exit_status: exit.map_or(0, |exit| exit.status),
        exited_at: exit.map(|exit| timestamp(exit.at)),
        ..answer
    }
}

/// Task.Wait: answered at the exit, and at once after it.
pub(crate) async fn wait(pod: &Rc<Pod>, request: &WaitRequest) -> Result<WaitResponse, Failure> {
    let task = find(pod, &request.id)?;
    let exit = exit_of(&task, &request.exec_id)?.wait().await;
    Ok(WaitResponse { exit_status: exit.status, exited_at: Some(timestamp(exit.at)) })
}

fn exit_of(task: &Task, exec_id: &str) -> Result<Rc<crate::reactor::Once<Exit>>, Failure> {
    if exec_id.is_empty() {
        return Ok(Rc::clone(&task.init.exit));
    }
    Ok(Rc::clone(&task.exec(exec_id)?.exit))
}

/// Task.Pids: all processes in the container, execs and their children included.
pub(crate) fn pids(pod: &Rc<Pod>, request: &PidsRequest) -> Result<PidsResponse, Failure> {
    let task = find(pod, &request.id)?;
    let pids = match &task.cgroup {
        Some(cgroup) => cgroup.processes(),
        None if task.init.reaped.is_set() => Vec::new(),
        None => vec![task.init.pid],
    };
    let processes = pids.into_iter().map(|pid| ProcessInfo { pid, info: None }).collect();
    Ok(PidsResponse { processes })
}

/// Task.Connect: who we are, and whether we know that container.
pub(crate) fn connect(pod: &Rc<Pod>, request: &ConnectRequest) -> Result<ConnectResponse, Failure> {
    let task_pid = match request.id.as_str() {
        "" => 0,
        id if *id == pod.id && !pod.tasks.borrow().contains_key(id) => 0,
        id => find(pod, id)?.init.pid,
    };
    Ok(ConnectResponse {
        shim_pid: std::process::id(),
        task_pid,
        version: env!("CARGO_PKG_VERSION").into(),
    })
}

/// A point in time as protobuf has it.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}
