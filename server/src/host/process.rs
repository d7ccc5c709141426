//! A process that we did not fork, known by its pid and the time at which it started.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot. `None`: it is gone.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    started(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn started(stat: &str) -> Option<u64> {
    // The name, in parentheses, may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // Gone for our purposes is a zombie, and one that is being reaped (X): its file is there for a moment more.
    let state = fields.next()?;
    if matches!(state, "Z" | "X" | "x") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Clock ticks a second, as /proc counts a process's time on every architecture that Linux has (USER_HZ).
pub(crate) const TICKS: u32 = 100;

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Activity {
    /// The state of its main thread, as proc(5) spells it: S sleeps, T is stopped, D waits for a device.
    pub main: char,
    /// Any thread runs, or would if it had a processor.
    pub running: bool,
    /// The processor time that it has used.
    pub ticks: u64,
}

/// What a process is doing now. `None`: it is gone.
pub(crate) fn activity(pid: u32) -> Option<Activity> {
    let stat = |path: String| {
        let stat = std::fs::read_to_string(path).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let user: u64 = fields.nth(10)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some((state, user + system))
    };
    let (main, ticks) = stat(format!("/proc/{pid}/stat"))?;
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let running = threads
        .filter_map(|thread| stat(format!("{}/stat", thread.ok()?.path().display())))
        .any(|(state, _)| state == 'R');
    Some(Activity { main, running, ticks })
}

/// True if that very process is alive.
pub(crate) fn is_alive(pid: u32, started: u64) -> bool {
    pid != 0 && start_time(pid) == Some(started)
}

/// Kills that very process and waits for its end. Blocks for `limit` at most.
///
/// # Errors
/// A text if it is still there then.
pub(crate) fn kill(pid: u32, started: u64, limit: Duration) -> Result<(), String> {
    const POLL: Duration = Duration::from_millis(2);
    let until = Instant::now() + limit;
    while is_alive(pid, started) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::KILL).ok();
        }
        if Instant::now() > until {
            return Err(format!("process {pid} does not end"));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// The pids of all processes.
fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Those of all processes, with the time at which each started.
fn those(is_one: impl Fn(u32) -> bool) -> Vec<(u32, u64)> {
    pids().filter(|pid| is_one(*pid)).filter_map(|pid| Some((pid, start_time(pid)?))).collect()
}

fn working_directory(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// Every process whose working directory is `dir`, with the time at which it started.
pub(crate) fn working_in(dir: &Path) -> Vec<(u32, u64)> {
    those(|pid| working_directory(pid).is_some_and(|cwd| cwd == dir))
}

/// Every directory that is some process's working directory: one look at all of them, where many are asked about.
pub(crate) fn working_directories() -> HashSet<PathBuf> {
    pids().filter_map(working_directory).collect()
}

/// Every process that was executed with a variable that `is_wanted`, spelled `NAME=value`, with the time at which it
/// started.
fn told(is_wanted: impl Fn(&[u8]) -> bool) -> Vec<(u32, u64)> {
    those(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(&is_wanted)
    })
}

/// Kills every process whose working directory is `dir`, and what they start meanwhile. Blocks for `limit` at most.
///
/// # Errors
/// A text if some are still there then.
pub(crate) fn end_working_in(dir: &Path, limit: Duration) -> Result<(), String> {
    end(|| working_in(dir), limit)
}

/// Kills every process that was executed with a variable that `is_wanted`, spelled `NAME=value`, and what they start
/// meanwhile. Blocks for `limit` at most.
///
/// # Errors
/// A text if some are still there then.
pub(crate) fn end_told(is_wanted: impl Fn(&[u8]) -> bool, limit: Duration) -> Result<(), String> {
    end(|| told(&is_wanted), limit)
}

/// Kills until there are none.
fn end(find: impl Fn() -> Vec<(u32, u64)>, limit: Duration) -> Result<(), String> {
    let until = Instant::now() + limit;
    loop {
        let found = find();
        if found.is_empty() {
            return Ok(());
        }
        for (pid, started) in found {
            kill(pid, started, until.saturating_duration_since(Instant::now()))?;
        }
    }
}

/// What a short command left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub success: bool,
    /// The last kilobytes of it.
    pub stderr: String,
}

/// Runs a command that should be short, without input, and kills it at the limit with all that it started. Blocks.
///
/// # Errors
/// A text if it could not be started or did not end in time.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Output, String> {
    finish(command.stdout(Stdio::null()), limit)
}

/// The same, and the first `most` bytes of what it printed.
///
/// # Errors
/// As [`run`].
pub(crate) fn output(
    command: &mut Command,
    limit: Duration,
    most: u64,
) -> Result<(Output, Vec<u8>), String> {
    let memory = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC);
    let mut memory = File::from(memory.map_err(|err| err.to_string())?);
    let theirs = memory.try_clone().map_err(|err| err.to_string())?;
    let output = finish(command.stdout(theirs), limit)?;
    let mut printed = Vec::new();
    memory
        .rewind()
        .and_then(|()| memory.take(most).read_to_end(&mut printed))
        .map_err(|err| err.to_string())?;
    Ok((output, printed))
}

fn finish(command: &mut Command, limit: Duration) -> Result<Output, String> {
    const MAX_STDERR: u64 = 16 << 10;
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|err| err.to_string())?;
    let until = Instant::now() + limit;
    let status = loop {
        match child.try_wait().map_err(|err| err.to_string())? {
            Some(status) => break status,
            None if Instant::now() > until => {
                // Not waited for before: its number is nobody else's.
                kill_process_group(Pid::from_child(&child), Signal::KILL).ok();
                // One that the kernel does not let die is left to a thread of its own.
                std::thread::spawn(move || child.wait());
                return Err(format!("did not end within {limit:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let mut stderr = Vec::new();
    if let Some(pipe) = child.stderr.take() {
        // A grandchild may hold the pipe open for ever: only what is there by now is read.
        rustix::io::ioctl_fionbio(&pipe, true).ok();
        pipe.take(MAX_STDERR).read_to_end(&mut stderr).ok();
    }
    Ok(Output {
        success: status.success(),
        stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(working_in(&path), []);
        let mut child = Command::new("sleep").arg("60").current_dir(&path).spawn().unwrap();
        let found = working_in(&path);
        assert!(working_directories().contains(&path));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [child.id()]);
    }

    #[test]
    fn a_process_at_work_is_told_from_one_that_sleeps() {
        let me = activity(std::process::id()).unwrap();
        assert!(me.running, "this very thread");
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "while :; do :; done"]).spawn().unwrap();
        let start = Instant::now();
        while activity(child.id()).is_none_or(|busy| busy.ticks < 5 || busy.main != 'R') {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(activity(child.id()), None);
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60"]).current_dir(&path);
        let err = run(&mut command, Duration::from_millis(200)).unwrap_err();
        assert!(err.contains("did not end"), "{err}");
        end_working_in(&path, Duration::from_secs(5)).unwrap();
        assert_eq!(working_in(&path), []);
    }

    #[test]
    fn the_dead_have_no_start_time() {
        let rest = "1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 4711 1 1";
        for (state, time) in [("S", Some(4711)), ("D", Some(4711)), ("Z", None), ("X", None)] {
            assert_eq!(started(&format!("7 (a) Z (b) {state} {rest}")), time, "{state}");
        }
    }

    #[test]
    fn a_pid_is_believed_only_with_its_start_time() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        assert!(is_alive(child.id(), started));
        assert!(!is_alive(child.id(), started + 1));
        kill(child.id(), started, Duration::from_secs(5)).unwrap();
        assert!(!is_alive(child.id(), started), "a zombie counts as gone");
        child.wait().unwrap();
    }
}
