//! The OCI runtime's command line: runc, crun, youki and whatever else keeps to it.
//!
//! A runtime may take as long as it likes, but it can be killed: it runs in a process group of
//! its own, whose id its caller learns.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::reactor::{self, Exit, Once};
use crate::{program, sys};

/// What is read at most of a runtime's complaints.
const MAX_TEXT: u64 = 64 * 1024;
/// What a runtime may write into one file before it is ended, should it never stop.
const MAX_FILE: u64 = 16 << 20;
/// What is kept of them.
const MAX_MESSAGE: usize = 4096;

/// How a runtime is called for one container.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) binary: PathBuf,
    pub(crate) root: Option<PathBuf>,
    pub(crate) systemd_cgroup: bool,
    pub(crate) arguments: Vec<String>,
}

/// A call that did not succeed, in the runtime's own words.
#[derive(Debug, Clone)]
pub(crate) struct RuntimeError(String);

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A runtime at work.
pub(crate) struct Call {
    pub(crate) pid: u32,
    exit: Rc<Once<Exit>>,
    _listed: Listed,
    log: PathBuf,
    stderr: Option<PathBuf>,
    what: String,
}

/// A call under way: the group that it leads, where it works, and how it ended.
struct Working {
    pid: u32,
    dir: PathBuf,
    exit: Rc<Once<Exit>>,
}

thread_local! {
    static CALLS: RefCell<Vec<Working>> = const { RefCell::new(Vec::new()) };
}

/// Keeps a call on the list.
struct Listed(u32);

impl Drop for Listed {
    fn drop(&mut self) {
        CALLS.with_borrow_mut(|calls| calls.retain(|call| call.pid != self.0));
    }
}

/// Ends the calls that work in this bundle, with all that they have started: what hangs would hold up whoever
/// wants the container gone.
pub(crate) fn end_calls(bundle: &Path) {
    CALLS.with_borrow(|calls| {
        for call in calls.iter().filter(|call| call.dir == bundle && !call.exit.is_set()) {
            end_group(call.pid);
        }
    });
}

/// Kills a process group whose leader has not been reaped.
pub(crate) fn end_group(leader: u32) {
    if let Some(group) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

impl Runtime {
    /// Program and arguments before the verb. `log` takes the runtime's messages as JSON lines.
    pub(crate) fn arguments<'a>(&'a self, log: &'a Path) -> Vec<&'a OsStr> {
        let mut line = vec![self.binary.as_os_str()];
        if let Some(root) = &self.root {
            line.extend([OsStr::new("--root"), root.as_os_str()]);
        }
        if self.systemd_cgroup {
            line.push(OsStr::new("--systemd-cgroup"));
        }
        line.extend([OsStr::new("--log"), log.as_os_str()]);
        line.extend([OsStr::new("--log-format"), OsStr::new("json")]);
        line.extend(self.arguments.iter().map(OsStr::new));
        line
    }

    /// What to execute, whatever it is called.
    pub(crate) fn program(&self) -> PathBuf {
        program::held(&self.binary).unwrap_or_else(|| self.binary.clone())
    }

    /// Runs a verb that starts no process of the container's.
    pub(crate) async fn run(
        &self,
        dir: &Path,
        verb: &[&str],
        input: Option<&[u8]>,
    ) -> Result<(), RuntimeError> {
        let what = format!("{} {}", self.name(), verb.first().unwrap_or(&""));
        let log = scratch(dir, "log");
        let stderr = scratch(dir, "stderr");
        let failed = |error: io::Error| RuntimeError(format!("{what}: {error}"));
        let line = self.arguments(&log);
        let mut command = Command::new(self.program());
        command.arg0(line[0]).args(&line[1..]).args(verb).current_dir(dir).stdout(Stdio::null());
        command.stderr(File::create(&stderr).map_err(failed)?);
        match input {
            // A file, not a pipe: nobody has to feed it, and its size does not matter.
            Some(input) => command.stdin(memory_file(input).map_err(failed)?),
            None => command.stdin(Stdio::null()),
        };
        let call = Call::spawn(&mut command, what.clone(), log, Some(stderr)).map_err(failed)?;
        // What it says goes into files. These verbs start no process that would inherit this.
        let limit = Rlimit { current: Some(MAX_FILE), maximum: Some(MAX_FILE) };
        let pid = i32::try_from(call.pid).ok().and_then(Pid::from_raw);
        let _ = rustix::process::prlimit(pid, Resource::Fsize, limit);
        call.finish().await
    }

    /// Removes whatever the runtime still knows of a container, killing it if need be.
    pub(crate) async fn delete_force(&self, dir: &Path, id: &str) -> Result<(), RuntimeError> {
        match self.run(dir, &["delete", "--force", id], None).await {
            Err(error) if error.0.contains("does not exist") => Ok(()),
            other => other,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.binary.file_name().and_then(OsStr::to_str).unwrap_or("runtime")
    }
}

impl Call {
    /// Starts a prepared command line in a process group of its own.
    pub(crate) fn spawn(
        command: &mut Command,
        what: String,
        log: PathBuf,
        stderr: Option<PathBuf>,
    ) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let pid = child.id();
        let exit = reactor::watch(pid);
        let dir = log.parent().unwrap_or(Path::new("")).to_owned();
        let working = Working { pid, dir, exit: Rc::clone(&exit) };
        CALLS.with_borrow_mut(|calls| calls.push(working));
        Ok(Self { pid, exit, _listed: Listed(pid), log, stderr, what })
    }

    /// Waits for the end, and for the reason if it was a bad one.
    pub(crate) async fn finish(self) -> Result<(), RuntimeError> {
        let exit = self.exit.wait().await;
        let Self { log, stderr, what, .. } = self;
        let mut outcome = Ok(());
        if !exit.ok() {
            let said = logged_error(&read_start(&log))
                .or_else(|| stderr.as_deref().map(read_start).filter(|text| !text.is_empty()));
            let said = said.unwrap_or_else(|| match exit.signal {
                Some(signal) => format!("killed by signal {signal}"),
                None => format!("exit status {}", exit.status),
            });
            let said: String = said.trim().chars().take(MAX_MESSAGE).collect();
            outcome = Err(RuntimeError(format!("{what}: {said}")));
        }
        let _ = fs::remove_file(log);
        if let Some(stderr) = stderr {
            let _ = fs::remove_file(stderr);
        }
        // Calls come in bursts with long silence after them; next to a program's start this is
        // nothing.
        sys::trim_memory();
        outcome
    }
}

/// A name in `dir` that nobody uses.
pub(crate) fn scratch(dir: &Path, kind: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    dir.join(format!(".{kind}-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let memory = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(memory);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file)
}

fn read_start(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(MAX_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The message of the last error in a runtime's log: JSON objects, one a line (runc) or spread
/// over several (crun).
fn logged_error(log: &str) -> Option<String> {
    let entries = serde_json::Deserializer::from_str(log).into_iter::<serde_json::Value>();
    let bad = |entry: &serde_json::Value| {
        matches!(entry["level"].as_str(), Some("error" | "fatal" | "panic"))
    };
    let last = entries.map_while(Result::ok).filter(bad).last()?;
    last["msg"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_reason() {
        let log = concat!(
            "{\"level\":\"warning\",\"msg\":\"w\"}\n",
            "{\"level\":\"error\",\"msg\":\"exec: \\\"x\\\": not found\",\"time\":\"t\"}\n",
            "half a li",
        );
        assert_eq!(logged_error(log).as_deref(), Some("exec: \"x\": not found"));
        let log = "{\n  \"msg\": \"no mounts\",\n  \"level\": \"error\",\n  \"time\": \"t\"\n}";
        assert_eq!(logged_error(log).as_deref(), Some("no mounts"));
        assert_eq!(logged_error("not json"), None);
    }
}
