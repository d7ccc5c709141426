//! The end of a container: from the kernel's word to the answer of Wait.
//!
//! Order matters. What is left in the container is killed first, so that its output ends; the
//! output is drained; the exit record is written and on disk; only then is the exit told.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use api::events::{TaskExit, TaskOom, topic};
use shim::record::Logged;

use super::Task;
use super::observe::timestamp;
use crate::log::Log;
use crate::pod::Pod;
use crate::reactor::{self, Exit};

/// How long an exit waits for the runtime's `start` to be over, so that it is told after it.
const START_SETTLES: Duration = Duration::from_secs(5);

/// Follows a container to its end.
pub(super) async fn watch(pod: Rc<Pod>, task: Rc<Task>) {
    let (exit, mut oom_told) = follow(&pod, &task).await;
    let out_of_memory =
        task.oom.as_ref().is_some_and(|oom| oom.explains(&exit, task.init.killed.get()));
    // Without a pid namespace of its own, the rest of the container outlives its init.
    if let Some(cgroup) = &task.cgroup {
        cgroup.kill_all();
    }
    task.init.streams.finish().await;
    if let Some(path) = &task.options.exit_path {
        let record = record(&task, &exit, out_of_memory);
        if let Err(error) = write_record(path, &record) {
            eprintln!("{}: exit record: {error}", task.id);
        }
    }
    if task.starting.get() {
        reactor::within(START_SETTLES, task.start_over.wait()).await;
    }
    if out_of_memory && !std::mem::replace(&mut oom_told, true) {
        pod.publish(topic::OOM, || TaskOom { container_id: task.id.clone() });
    }
    task.init.exit.set(exit);
    pod.publish(topic::EXIT, || TaskExit {
        container_id: task.id.clone(),
        id: task.id.clone(),
        pid: task.init.pid,
        exit_status: exit.status,
        exited_at: Some(timestamp(exit.at)),
    });
}

/// Waits for the exit, telling of OOM kills on the way; whether there was one.
async fn follow(pod: &Rc<Pod>, task: &Rc<Task>) -> (Exit, bool) {
    let mut told = false;
    loop {
        let kill = async {
            match &task.oom {
                Some(oom) => oom.next_kill().await,
                None => std::future::pending().await,
            }
            None
        };
        let exit = async { Some(task.init.reaped.wait().await) };
        if let Some(exit) = reactor::race(pin!(exit), pin!(kill)).await {
            return (exit, told);
        }
        told = true;
        pod.publish(topic::OOM, || TaskOom { container_id: task.id.clone() });
    }
}

/// The record that a daemon reads when it was not there to be told. Every part is a number, a
/// fixed word or an id, so nothing needs escaping.
fn record(task: &Task, exit: &Exit, oom_killed: bool) -> String {
    let at = exit.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let signal = exit.signal.map_or_else(|| "null".to_owned(), |signal| signal.to_string());
    let logged = task.init.streams.log().map(Log::written).unwrap_or_default();
    let Logged { bytes, lost_bytes: lost, lost_lines: lines } = logged;
    format!(
        "{{\"id\":\"{}\",\"pid\":{},\"status\":{},\"exited_at_ns\":{at},\"oom_killed\":{oom_killed},\"signal\":{signal},\
         \"log_bytes\":{bytes},\"log_lost_bytes\":{lost},\"log_lost_lines\":{lines}}}\n",
        task.id, task.init.pid, exit.status,
    )
}

/// Puts it in place whole and on disk.
fn write_record(path: &Path, record: &str) -> io::Result<()> {
    let whole = path.with_extension("new");
    let mut file = File::create(&whole)?;
    file.write_all(record.as_bytes())?;
    file.sync_all()?;
    fs::rename(&whole, path)
}
