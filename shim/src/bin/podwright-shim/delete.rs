//! The `delete` command: ends what a shim that is no more has left behind.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use api::task::DeleteResponse;
use prost::Message;

use crate::args::Args;
use crate::cgroup::Cgroup;
use crate::leftover::{self, Leftover};
use crate::runtime::scratch;
use crate::sys;
use crate::task::timestamp;

/// All that the daemon grants us, less some for itself.
const BUDGET: Duration = Duration::from_secs(4);
const KILLED: u32 = 128 + libc::SIGKILL as u32;

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let here = std::env::current_dir().map_err(|error| format!("bundle: {error}"))?;
    let bundle = args.bundle.clone().unwrap_or(here);
    let mut failed = Vec::new();
    let mut pid = 0;
    for container in leftover::containers(&bundle) {
        if container.id == args.id {
            pid = init_pid(&container.bundle).unwrap_or(0);
        }
        match remove(&container) {
            Ok(()) => leftover::forget(&bundle, &container.bundle, &container.id),
            Err(error) => failed.push(format!("{}: {error}", container.id)),
        }
    }
    if let Some(init) = leftover::init(&bundle) {
        let _ = sys::kill(init, libc::SIGKILL as u32);
    }
    leftover::forget_init(&bundle);
    if !failed.is_empty() {
        return Err(failed.join("; "));
    }
    let exited_at = Some(timestamp(SystemTime::now()));
    let answer = DeleteResponse { pid, exit_status: KILLED, exited_at };
    io::stdout().write_all(&answer.encode_to_vec()).map_err(|error| error.to_string())
}

fn init_pid(bundle: &Path) -> Option<u32> {
    std::fs::read_to_string(bundle.join("pid")).ok()?.trim().parse().ok()
}

/// Kills a container through its runtime, which knows its cgroup.
fn remove(container: &Leftover) -> Result<(), String> {
    let log = scratch(&container.bundle, "log");
    let mut line = container.runtime.arguments(&log);
    let verb = ["delete", "--force", &container.id];
    line.extend(verb.iter().map(std::ffi::OsStr::new));
    let mut command = Command::new(line[0]);
    let child = command
        .args(&line[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = child.map_err(|error| error.to_string())?;
    let deadline = Instant::now() + BUDGET;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err("the runtime takes too long".into());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let _ = std::fs::remove_file(log);
    // Runtimes disagree on whether deleting what is not there succeeds.
    let gone = init_pid(&container.bundle).is_none_or(|pid| Cgroup::of(pid).is_none());
    if status.success() || gone { Ok(()) } else { Err(status.to_string()) }
}
