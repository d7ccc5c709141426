//! CRI log files, seen from the event loop.
//!
//! The work is done by a second thread, started with the first log. Calls here wait for its
//! answer without blocking the loop.

mod channel;
mod count;
mod file;
mod line;
mod pace;
mod stamp;
mod viewers;
mod writer;

pub(crate) use line::{DEFAULT_MAX, Stream};

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use channel::{Command, Shared};
use count::Written;
use shim::record::Logged;

use crate::reactor::{self, Once, Source};

/// The thread needs little more than a read buffer's bookkeeping on its stack.
const STACK: usize = 64 * 1024;

/// The log thread, once there is one.
#[derive(Default)]
pub(crate) struct Logger {
    running: RefCell<Option<Running>>,
    next: Cell<u64>,
}

struct Running {
    shared: Arc<Shared>,
    waiting: Rc<RefCell<Tickets>>,
}

/// Where an answer will be.
type Answered = Rc<Once<Result<(), Failure>>>;

type Tickets = HashMap<u64, Answered>;

/// An error in a form that can be handed to several waiters.
#[derive(Clone)]
struct Failure(io::ErrorKind, Option<i32>);

/// What is to be logged where.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Empty: nowhere, the output is only shown.
    pub(crate) path: PathBuf,
    /// The longest line that is not cut.
    pub(crate) max_line: usize,
    /// Where it is counted, for others to read.
    pub(crate) counts: Option<PathBuf>,
}

/// One container's log. Dropping it closes the file and the container's streams.
pub(crate) struct Log {
    logger: Rc<Logger>,
    number: u64,
    written: Arc<Written>,
}

impl Logger {
    /// Opens a log file, starting the thread if this is the first.
    pub(crate) async fn open(self: &Rc<Self>, wanted: Wanted) -> io::Result<Log> {
        let Wanted { path, max_line, counts } = wanted;
        self.start()?;
        let number = self.next.get();
        self.next.set(number + 1);
        let written = Arc::new(counts.as_deref().map(Written::at).unwrap_or_default());
        let log = Log { logger: Rc::clone(self), number, written: Arc::clone(&written) };
        log.ask(Command::Open { log: number, path, max_line, written }).await?;
        Ok(log)
    }

    fn start(&self) -> io::Result<()> {
        if self.running.borrow().is_some() {
            return Ok(());
        }
        let shared = Arc::new(Shared::new()?);
        let waiting: Rc<RefCell<Tickets>> = Rc::default();
        let answers = Source::new(shared.answers_ready.try_clone()?)?;
        let body = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("log".into())
            .stack_size(STACK)
            .spawn(move || writer::run(&body))?;
        reactor::spawn(dispatch(answers, Arc::clone(&shared), Rc::clone(&waiting)));
        *self.running.borrow_mut() = Some(Running { shared, waiting });
        Ok(())
    }

    fn send(&self, command: Command) -> Option<Answered> {
        let (ticket, answer) = self.ticket()?;
        self.running.borrow().as_ref()?.shared.send(ticket, command);
        Some(answer)
    }

    fn forget(&self, ticket: u64) {
        if let Some(running) = &*self.running.borrow() {
            running.waiting.borrow_mut().remove(&ticket);
        }
    }

    /// A number for an answer, and where that will be.
    fn ticket(&self) -> Option<(u64, Answered)> {
        let running = self.running.borrow();
        let ticket = self.next.get();
        self.next.set(ticket + 1);
        let answer = Rc::new(Once::default());
        running.as_ref()?.waiting.borrow_mut().insert(ticket, Rc::clone(&answer));
        Some((ticket, answer))
    }
}

/// Someone who looks on.
pub(crate) struct View(Answered);

impl View {
    /// Waits for the end; whether it was because the pipe was full.
    pub(crate) async fn ended(&self) -> bool {
        matches!(self.0.wait().await, Err(Failure(io::ErrorKind::WouldBlock, _)))
    }
}

/// Hands answers to those who wait for them.
async fn dispatch(source: Source, shared: Arc<Shared>, waiting: Rc<RefCell<Tickets>>) {
    while source.read_with(|fd| rustix::io::read(fd, &mut [0; 8])).await.is_ok() {
        for (ticket, answer) in shared.take_answers() {
            if let Some(once) = waiting.borrow_mut().remove(&ticket) {
                once.set(answer.map_err(|error| Failure(error.kind(), error.raw_os_error())));
            }
        }
    }
}

impl Log {
    async fn ask(&self, command: Command) -> io::Result<()> {
        let Some(answer) = self.logger.send(command) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        answer.wait().await.map_err(|Failure(kind, code)| {
            code.map_or_else(|| kind.into(), io::Error::from_raw_os_error)
        })
    }

    /// Writes all that comes out of `fd` (non-blocking) as that stream.
    pub(crate) async fn attach(&self, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        self.ask(Command::Attach { log: self.number, stream, fd }).await
    }

    /// Copies all that comes out of that stream from now on into a pipe as well, which must not block.
    pub(crate) async fn view(&self, stream: Stream, pipe: OwnedFd) -> io::Result<View> {
        let Some((ended, answer)) = self.logger.ticket() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let asked = self.ask(Command::View { log: self.number, stream, pipe, ended }).await;
        if asked.is_err() {
            self.logger.forget(ended);
        }
        asked.map(|()| View(answer))
    }

    /// Goes on in a new file at the same path; if that fails, in the old one.
    pub(crate) async fn reopen(&self) -> io::Result<()> {
        self.ask(Command::Reopen { log: self.number }).await
    }

    /// Takes what there is to read now, then closes the file and the container's streams.
    pub(crate) fn close(&self) {
        let _ = self.logger.send(Command::Close { log: self.number });
    }

    /// What became of all output so far.
    pub(crate) fn written(&self) -> Logged {
        self.written.now()
    }

    /// Waits until all streams have ended, but not longer than `limit`.
    pub(crate) async fn drain(&self, limit: Duration) {
        let _ = reactor::within(limit, self.ask(Command::Drain { log: self.number })).await;
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

/// A pipe for a container's output: the end to read is ours and does not block.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    // Fewer switches between the container and us; a refusal (quota) only costs speed.
    let _ = rustix::pipe::fcntl_setpipe_size(&read, writer::READ_SIZE);
    Ok((read, write))
}

/// Checks early what the log thread would find out too late to tell the caller.
pub(crate) fn checked_path(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    path.is_absolute().then_some(path)
}
