//! Between the event loop and the log thread: commands one way, answers the other.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::count::Written;
use super::line::Stream;

pub(super) type Answer = io::Result<()>;

#[derive(Debug)]
pub(super) enum Command {
    /// Opens a log file under a number that the event loop chose.
    Open { log: u64, path: PathBuf, max_line: usize, written: Arc<Written> },
    /// Reads this descriptor into that log.
    Attach { log: u64, stream: Stream, fd: OwnedFd },
    /// Copies what is read from that stream of that log into a pipe, from now on. `ended` is the ticket that is
    /// answered when that is over.
    View { log: u64, stream: Stream, pipe: OwnedFd, ended: u64 },
    /// Goes on in a new file at the same path.
    Reopen { log: u64 },
    /// Answered when all streams of the log have ended.
    Drain { log: u64 },
    /// Takes what there is to read now, then closes everything of that log.
    Close { log: u64 },
}

pub(super) struct Shared {
    commands: Mutex<Vec<(u64, Command)>>,
    answers: Mutex<Vec<(u64, Answer)>>,
    pub(super) commands_ready: OwnedFd,
    pub(super) answers_ready: OwnedFd,
}

impl Shared {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            commands: Mutex::default(),
            answers: Mutex::default(),
            commands_ready: eventfd(0, flags)?,
            answers_ready: eventfd(0, flags)?,
        })
    }

    pub(super) fn send(&self, ticket: u64, command: Command) {
        lock(&self.commands).push((ticket, command));
        signal(&self.commands_ready);
    }

    pub(super) fn take_commands(&self) -> Vec<(u64, Command)> {
        quiet(&self.commands_ready);
        std::mem::take(&mut *lock(&self.commands))
    }

    pub(super) fn answer(&self, ticket: u64, answer: Answer) {
        lock(&self.answers).push((ticket, answer));
        signal(&self.answers_ready);
    }

    pub(super) fn take_answers(&self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut *lock(&self.answers))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signal(fd: &OwnedFd) {
    // Cannot block in a way that matters: a full counter is readable, which is all we want.
    let _ = rustix::io::write(fd, &1_u64.to_ne_bytes());
}

fn quiet(fd: &OwnedFd) {
    let _ = rustix::io::read(fd, &mut [0; 8]);
}
