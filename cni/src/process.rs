//! Executes a program that may hang, flood us, or leave children that hold its pipes.
//!
//! It runs in a process group of its own. Whatever it does, [`run`] comes back soon after the program
//! exited, the deadline passed or the caller cancelled. On the latter two the whole group is killed. What
//! a program leaves running when it exits by itself is its own business; it cannot keep us waiting.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::deadline::{Deadline, Over};
use crate::sys;

/// The tail of the standard error that is kept.
const MAX_STDERR: usize = 64 << 10;
/// Read at once.
const CHUNK: usize = 16 << 10;
/// Chunks read from one pipe before the deadline is looked at again: more than any pipe holds.
const MAX_CHUNKS: usize = 128;
/// How long a killed process may take to die before it is left to a thread of its own.
const KILL_GRACE: Duration = Duration::from_secs(2);
/// How often, at growing intervals, a program is tried that somebody is just writing.
const BUSY_RETRIES: u32 = 6;

/// What to execute.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) path: &'a Path,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    pub(crate) stdin: &'a [u8],
    pub(crate) max_stdout: usize,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(crate) enum Failure {
    Io(&'static str, io::Error),
    TooMuch,
    Over(Over),
}

impl From<Over> for Failure {
    fn from(over: Over) -> Self {
        Self::Over(over)
    }
}

/// Executes `program` and waits until it exits.
pub(crate) fn run(program: &Program<'_>, deadline: &Deadline) -> Result<Output, Failure> {
    deadline.check()?;
    let mut child = spawn(program)?;
    let mut pipes = match Pipes::take(&mut child, program) {
        Ok(pipes) => pipes,
        Err(e) => {
            kill(child, None);
            return Err(Failure::Io("watch", e));
        }
    };
    if let Err(failure) = pipes.until_exit(deadline) {
        kill(child, Some(&pipes.exit));
        return Err(failure);
    }
    let status = child.wait().map_err(|e| Failure::Io("wait for", e))?;
    Ok(Output { status, stdout: pipes.out, stderr: pipes.err })
}

fn spawn(program: &Program<'_>) -> Result<Child, Failure> {
    let mut command = Command::new(program.path);
    command.args(&program.args);
    command.env_clear().envs(program.env.iter().map(|(key, value)| (key, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    sys::isolate(&mut command);
    let mut tries = 0;
    loop {
        match command.spawn() {
            // Installers overwrite plugins in place, and while they write nobody can execute them.
            Err(e) if e.kind() == ErrorKind::ExecutableFileBusy && tries < BUSY_RETRIES => {
                std::thread::sleep(Duration::from_millis(5 << tries));
                tries += 1;
            }
            other => return other.map_err(|e| Failure::Io("execute", e)),
        }
    }
}

/// The descriptors of a running child, and what has come through them.
#[derive(Debug)]
struct Pipes<'a> {
    exit: OwnedFd,
    stdin: Option<ChildStdin>,
    to_write: &'a [u8],
    stdout: Option<ChildStdout>,
    out: Vec<u8>,
    max_out: usize,
    stderr: Option<ChildStderr>,
    err: Vec<u8>,
}

impl<'a> Pipes<'a> {
    fn take(child: &mut Child, program: &Program<'a>) -> io::Result<Self> {
        let pipes = Self {
            exit: pidfd_open(Pid::from_child(child), PidfdFlags::empty())?,
            stdin: child.stdin.take(),
            to_write: program.stdin,
            stdout: child.stdout.take(),
            out: Vec::new(),
            max_out: program.max_stdout,
            stderr: child.stderr.take(),
            err: Vec::new(),
        };
        for fd in pipes.open_fds().into_iter().map(|(fd, _)| fd) {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(pipes)
    }

    fn open_fds(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let stdin = self.stdin.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::OUT));
        let stdout = self.stdout.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN));
        let stderr = self.stderr.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN));
        [stdin, stdout, stderr].into_iter().flatten().collect()
    }

    /// Feeds and reads the child until it exits. What it wrote before is in the pipes by then, so one
    /// last reading without waiting gets all of it, whoever else still holds the other end.
    fn until_exit(&mut self, deadline: &Deadline) -> Result<(), Failure> {
        loop {
            deadline.check()?;
            let exited = self.wait(deadline).map_err(|e| Failure::Io("wait for", e))?;
            self.feed();
            read_some(&mut self.stdout, &mut self.out, self.max_out + 1);
            if self.out.len() > self.max_out {
                return Err(Failure::TooMuch);
            }
            read_some(&mut self.stderr, &mut self.err, usize::MAX);
            if exited {
                return Ok(());
            }
        }
    }

    /// Waits for anything to happen; true if the child has exited.
    fn wait(&self, deadline: &Deadline) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.exit, PollFlags::IN)];
        fds.extend(
            self.open_fds().into_iter().map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)),
        );
        fds.extend(deadline.cancel_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = Timespec::try_from(deadline.left()).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => Ok(!fds[0].revents().is_empty()),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn feed(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        while !self.to_write.is_empty() {
            match pipe.write(self.to_write) {
                Ok(written) => self.to_write = &self.to_write[written..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // A program that does not want to read all of its input may do so.
                Err(_) => break,
            }
        }
        self.stdin = None;
    }
}

/// Reads what is there, at most until `into` holds `limit` bytes; without a limit only the tail is kept.
fn read_some(pipe: &mut Option<impl Read>, into: &mut Vec<u8>, limit: usize) {
    let mut chunk = [0; CHUNK];
    for _ in 0..MAX_CHUNKS {
        let room = CHUNK.min(limit.saturating_sub(into.len()));
        let Some(source) = pipe.as_mut().filter(|_| room > 0) else { return };
        match source.read(&mut chunk[..room]) {
            Ok(0) => *pipe = None,
            Ok(read) => into.extend_from_slice(&chunk[..read]),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => *pipe = None,
        }
        if limit == usize::MAX && into.len() > MAX_STDERR {
            into.drain(..into.len() - MAX_STDERR);
        }
    }
}

/// Kills the child's group, before the child is waited for: until then its number is nobody else's.
fn kill(mut child: Child, exit: Option<&OwnedFd>) {
    // The group may be gone already; there is nothing to do about any other failure.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let dead = exit.is_some_and(|exit| {
        let grace = Timespec::try_from(KILL_GRACE).ok();
        poll(&mut [PollFd::new(exit, PollFlags::IN)], grace.as_ref()).is_ok_and(|n| n > 0)
    });
    if dead {
        let _ = child.wait();
    } else {
        // A process in an uninterruptible sleep dies when the kernel lets it.
        std::thread::spawn(move || child.wait());
    }
}

#[cfg(test)]
#[path = "process_tests.rs"]
mod tests;
