//! Task.CloseIO and Task.ResizePty, and Pod.ReopenLog: a process's streams while it runs.

use std::rc::Rc;

use api::podwright::{ReopenLogRequest, ReopenLogResponse};
use api::task::{CloseIoRequest, ResizePtyRequest};

use super::{find, finished};
use crate::pod::Pod;
use crate::rpc::Failure;

/// Ends standard input.
pub(crate) fn close_io(pod: &Rc<Pod>, request: &CloseIoRequest) -> Result<(), Failure> {
    let task = find(pod, &request.id)?;
    if !request.stdin {
        return Ok(());
    }
    if request.exec_id.is_empty() {
        task.init.streams.close_stdin();
    } else if let Some(process) = &*task.exec(&request.exec_id)?.process.borrow() {
        process.streams.close_stdin();
    }
    Ok(())
}

/// Tells a terminal its size.
pub(crate) fn resize(pod: &Rc<Pod>, request: &ResizePtyRequest) -> Result<(), Failure> {
    let task = find(pod, &request.id)?;
    let side = |value| u16::try_from(value).map_err(|_| Failure::invalid("a terminal that large"));
    let (width, height) = (side(request.width)?, side(request.height)?);
    if request.exec_id.is_empty() {
        return task.init.streams.resize(width, height).map_err(Failure::io("resize"));
    }
    let exec = task.exec(&request.exec_id)?;
    let process = exec.process.borrow();
    let process = process.as_ref().ok_or_else(finished)?;
    process.streams.resize(width, height).map_err(Failure::io("resize"))
}

/// Goes on in a new log file, after the old one was renamed.
pub(crate) async fn reopen_log(
    pod: &Rc<Pod>,
    request: &ReopenLogRequest,
) -> Result<ReopenLogResponse, Failure> {
    let task = find(pod, &request.id)?;
    if task.init.reaped.is_set() {
        return Err(Failure::precondition("the container is not running"));
    }
    match task.init.streams.log() {
        Some(log) => log.reopen().await.map_err(Failure::io("reopen the log"))?,
        None => return Err(Failure::precondition("the container has no log")),
    }
    Ok(ReopenLogResponse {})
}
