//! Running a program of the node's operator: some input, a bounded answer, a bounded time.
//!
//! It may hang, flood us or leave children behind: when its time runs out, and when it has ended, its whole process
//! group is killed. Nothing that it prints is logged here.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// One reading of a pipe; after so many in a row the clock is looked at. Together they are more than a pipe holds.
const CHUNK: usize = 8192;
const CHUNKS: usize = 16;

/// What to run, and what it is allowed.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// A name without a slash is looked for on PATH.
    pub program: &'a Path,
    pub args: &'a [&'a str],
    /// No more than fits into a pipe.
    pub input: &'a [u8],
    pub patience: Duration,
    /// Longest answer that is kept.
    pub most: usize,
    pub excess: Excess,
}

/// What becomes of an answer that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// It ends the program.
    Refused,
    /// It is read and thrown away.
    Dropped,
}

/// Runs it. Blocks.
///
/// # Errors
/// Why there is no exit status.
pub(super) fn run(call: &Call<'_>) -> Result<(ExitStatus, Vec<u8>), String> {
    let mut child = Command::new(call.program)
        .args(call.args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|err| err.to_string())?;
    // It fits into the pipe, so this does not wait; a program that does not read it may do so.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(call.input).ok();
    }
    let collected = collect(&mut child, call);
    // Before it is waited for: until then its number is nobody else's. The group may be gone already.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let status = child.wait().map_err(|err| err.to_string())?;
    Ok((status, collected?))
}

/// What it prints until it exits.
fn collect(child: &mut Child, call: &Call<'_>) -> Result<Vec<u8>, String> {
    let until = Instant::now() + call.patience;
    let text = |err: rustix::io::Errno| err.to_string();
    let exit = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(text)?;
    let mut stdout = child.stdout.take().ok_or("its output is lost")?;
    rustix::io::ioctl_fionbio(stdout.as_fd(), true).map_err(text)?;
    let mut output = Vec::new();
    let mut open = true;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("it does not answer in time".into());
        }
        let mut fds = vec![PollFd::new(&exit, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&stdout, PollFlags::IN));
        }
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(err) => return Err(text(err)),
        }
        // What it wrote before it exited is in the pipe by then, so one more reading gets all of it.
        let exited = !fds[0].revents().is_empty();
        if open {
            open = read(&mut stdout, &mut output, call)?;
        }
        if exited {
            return Ok(output);
        }
    }
}

/// What is in the pipe, or a good part of it; false at its end.
fn read(stdout: &mut ChildStdout, output: &mut Vec<u8>, call: &Call<'_>) -> Result<bool, String> {
    let mut chunk = [0; CHUNK];
    for _ in 0..CHUNKS {
        let count = match stdout.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(err) if err.kind() == ErrorKind::Interrupted => continue,
            Err(err) => return Err(err.to_string()),
        };
        let room = call.most - output.len();
        if count > room && call.excess == Excess::Refused {
            return Err("its answer is too long".into());
        }
        output.extend_from_slice(&chunk[..count.min(room)]);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    type Ran = Result<(ExitStatus, Vec<u8>), String>;

    /// The program is found by an absolute path here: the search path belongs to the whole process.
    fn ran(script: &str, patience: Duration, excess: Excess) -> Ran {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let (args, input) = (&["get"][..], &b"r.io"[..]);
        let call = Call { program: &path, args, input, patience, most: 100, excess };
        let mut tries = 0;
        loop {
            // Another test's fork may hold the file open for writing for a moment.
            match run(&call) {
                Err(why) if why.contains("busy") && tries < 50 => {
                    tries += 1;
                    std::thread::yield_now();
                }
                other => return other,
            }
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_is_asked_and_its_answer_bounded() {
        let (status, output) = ran("read x; echo \"$1 $x\"", LONG, Excess::Refused).unwrap();
        assert!(status.success());
        assert_eq!(output, b"get r.io\n");
        let (status, output) = ran("echo no; exit 3", LONG, Excess::Refused).unwrap();
        assert_eq!((status.code(), output.as_slice()), (Some(3), &b"no\n"[..]));
        let err = ran("exec cat /dev/zero", LONG, Excess::Refused).unwrap_err();
        assert!(err.contains("too long"), "{err}");
        let much = "head -c 300000 /dev/zero | tr '\\0' x; exit 4";
        let (status, output) = ran(much, LONG, Excess::Dropped).unwrap();
        assert_eq!((status.code(), output.len()), (Some(4), 100));
    }

    #[test]
    fn its_time_is_bounded_and_nothing_of_it_stays() {
        let started = Instant::now();
        let short = Duration::from_millis(200);
        for script in ["sleep 600 & wait", "exec cat /dev/zero", "trap '' TERM; sleep 600"] {
            let late = ran(script, short, Excess::Dropped).unwrap_err();
            assert!(late.contains("in time"), "{late}");
        }
        // A child that holds the pipe does not hold us, and does not outlive the program.
        let (_, output) = ran("sleep 600 & echo $!", LONG, Excess::Refused).unwrap();
        let pid = String::from_utf8(output).unwrap();
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Until its new parent has waited for it, it is a zombie.
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(started.elapsed() < LONG);
            std::thread::yield_now();
        }
        assert!(started.elapsed() < LONG);
    }
}
