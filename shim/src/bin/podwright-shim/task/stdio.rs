//! Where a process reads from and writes to.
//!
//! Without a terminal the process gets pipe or FIFO ends directly, so that nothing is copied:
//! a log's pipe is read by the log thread, a FIFO by whoever asked for it. With a terminal the
//! shim holds the master side and copies. For a container the shim keeps both ends of its FIFOs,
//! so a daemon that restarts never breaks a pipe.

use std::cell::{Cell, RefCell};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Gid, Uid};

use super::console::ConsoleListener;
use crate::log::{self, Log, Logger, Stream};
use crate::reactor::{self, Once, Source};

/// How long the output of a process that has exited is waited for: something it left behind
/// may hold the pipe for ever.
const DRAIN: Duration = Duration::from_millis(500);
const COPY_SIZE: usize = 4096;

/// The streams as the caller named them: FIFO paths, `file://` URIs, or empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// What only podwright's own daemon asks for.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The CRI log.
    pub(crate) log: Option<log::Wanted>,
    /// Standard input is a pipe that stays open until it is closed.
    pub(crate) stdin: bool,
    /// Standard input ends with the first that was attached to it.
    pub(crate) stdin_once: bool,
    /// Who may open the process's ends anew, as `/dev/stdout`; `None`: root.
    pub(crate) owner: Option<(u32, u32)>,
}

/// The process's ends, for the runtime's command line.
pub(crate) struct Ends {
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) stderr: Stdio,
}

/// The shim's ends.
#[derive(Default)]
pub(crate) struct Streams {
    /// Keeps standard input open.
    stdin: RefCell<Option<OwnedFd>>,
    /// Keeps FIFOs from breaking.
    held: RefCell<Vec<OwnedFd>>,
    terminal: RefCell<Option<OwnedFd>>,
    log: Option<Log>,
    stdin_once: bool,
    owner: Option<(u32, u32)>,
    copied: Rc<Once<()>>,
    /// What the last copy to a reader of output is at.
    copying: Rc<Progress>,
    stdin_closed: Rc<Once<()>>,
    closing: Rc<Once<()>>,
}

/// Who reads what a process with a terminal prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A daemon that may go and come back: its pipe must not break.
    Restarts,
    /// One that was there before the process, and is not waited for once it has gone.
    Leaves,
}

/// How a copy is getting on.
#[derive(Default)]
struct Progress {
    bytes: Cell<u64>,
    /// Whether its reader is what it waits for.
    writing: Cell<bool>,
}

impl Streams {
    /// Opens everything that does not need the process yet.
    pub(crate) async fn open(
        names: &Names,
        extras: Extras,
        logger: &Rc<Logger>,
    ) -> io::Result<(Self, Ends)> {
        let mut streams =
            Self { stdin_once: extras.stdin_once, owner: extras.owner, ..Self::default() };
        if let Some(wanted) = extras.log {
            streams.log = Some(logger.open(wanted).await?);
        }
        if names.terminal {
            let null = || Stdio::null();
            return Ok((streams, Ends { stdin: null(), stdout: null(), stderr: null() }));
        }
        let stdin = streams.input(&names.stdin, extras.stdin)?;
        let stdout = streams.output(&names.stdout, Stream::Stdout).await?;
        let stderr = streams.output(&names.stderr, Stream::Stderr).await?;
        Ok((streams, Ends { stdin, stdout, stderr }))
    }

    fn input(&self, name: &str, pipe: bool) -> io::Result<Stdio> {
        if pipe && name.is_empty() {
            let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            *self.stdin.borrow_mut() = Some(write);
            return self.owned(read);
        }
        if name.is_empty() {
            return Ok(Stdio::null());
        }
        *self.stdin.borrow_mut() = Some(both_ends(Path::new(name))?);
        self.owned(File::open(name)?.into())
    }

    /// An end for the process.
    fn owned(&self, end: OwnedFd) -> io::Result<Stdio> {
        if let Some((user, group)) = self.owner {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            rustix::fs::fchown(&end, Some(user), Some(group))?;
        }
        Ok(end.into())
    }

    async fn output(&self, name: &str, stream: Stream) -> io::Result<Stdio> {
        if let Some(log) = &self.log {
            let (read, write) = log::pipe()?;
            log.attach(stream, read).await?;
            return self.owned(write);
        }
        match (name, name.strip_prefix("file://")) {
            ("", _) => Ok(Stdio::null()),
            (_, Some(path)) => {
                Ok(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?.into())
            }
            (path, None) => {
                self.held.borrow_mut().push(both_ends(Path::new(path))?);
                self.owned(OpenOptions::new().write(true).open(path)?.into())
            }
        }
    }

    /// Lets go of what would keep a reader of an exec's output from seeing its end.
    pub(crate) fn started_exec(&self) {
        self.held.borrow_mut().clear();
    }

    /// Takes the terminal that the runtime made and connects it.
    pub(crate) async fn connect(
        &self,
        names: &Names,
        console: ConsoleListener,
        reader: Reader,
    ) -> io::Result<()> {
        let master = console.receive().await?;
        rustix::io::ioctl_fionbio(&master, true)?;
        if let Some(log) = &self.log {
            log.attach(Stream::Stdout, master.try_clone()?).await?;
            self.copied.set(());
        } else {
            let output = output(&names.stdout, reader)?;
            let progress = Rc::clone(&self.copying);
            let job = copy(master.try_clone()?, output, progress);
            self.run(job, Some(Rc::clone(&self.copied)));
        }
        if !names.stdin.is_empty() {
            let keep = both_ends(Path::new(&names.stdin))?;
            let flags = libc::O_NONBLOCK;
            let input = OpenOptions::new().read(true).custom_flags(flags).open(&names.stdin)?;
            *self.stdin.borrow_mut() = Some(keep);
            self.run(copy(input.into(), master.try_clone()?, Rc::default()), None);
        }
        *self.terminal.borrow_mut() = Some(master);
        Ok(())
    }

    fn run(&self, job: impl Future<Output = ()> + 'static, done: Option<Rc<Once<()>>>) {
        let closing = Rc::clone(&self.closing);
        reactor::spawn(async move {
            reactor::race(pin!(job), pin!(closing.wait())).await;
            if let Some(done) = done {
                done.set(());
            }
        });
    }

    /// No more input will come.
    pub(crate) fn close_stdin(&self) {
        self.stdin.borrow_mut().take();
        self.stdin_closed.set(());
    }

    /// Passes what comes out of `from` on to the process, until that ends. What it does not take any more is read and
    /// dropped: whoever types must not be held up by it.
    pub(crate) fn feed(self: &Rc<Self>, from: OwnedFd) -> io::Result<()> {
        let stdin = match (&*self.terminal.borrow(), &*self.stdin.borrow()) {
            (Some(end), _) | (None, Some(end)) => Some((from.try_clone()?, end.try_clone()?)),
            (None, None) => None,
        };
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        let this = Rc::clone(self);
        let closed = Rc::clone(&self.stdin_closed);
        let job = async move {
            if let Some((from, stdin)) = stdin {
                let _ = rustix::io::ioctl_fionbio(&stdin, true);
                let copied = copy(from, stdin, Rc::default());
                reactor::race(pin!(copied), pin!(closed.wait())).await;
                if this.stdin_once {
                    this.close_stdin();
                }
            }
            copy(from, null.into(), Rc::default()).await;
        };
        self.run(job, None);
        Ok(())
    }

    pub(crate) fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let terminal = self.terminal.borrow();
        let terminal = terminal.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let size =
            rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(terminal, size)?)
    }

    /// The log, where there is one.
    pub(crate) fn log(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// Waits for what a terminal still holds to reach its reader, who may be slow; not for a process that was left
    /// behind and says nothing.
    async fn drain(&self) {
        loop {
            let before = self.copying.bytes.get();
            if reactor::within(DRAIN, self.copied.wait()).await.is_some() {
                return;
            }
            if !self.copying.writing.get() && self.copying.bytes.get() == before {
                return;
            }
        }
    }

    /// The process is gone: takes what it still had to say, then lets go of everything.
    pub(crate) async fn finish(&self) {
        self.close_stdin();
        let terminal = self.terminal.borrow_mut().take();
        let had_terminal = terminal.is_some();
        drop(terminal);
        match &self.log {
            Some(log) => {
                log.drain(DRAIN).await;
                log.close();
            }
            None if had_terminal => self.drain().await,
            None => {}
        }
        self.closing.set(());
        self.held.borrow_mut().clear();
    }
}

/// Where the output of a terminal goes that has no log.
fn output(name: &str, reader: Reader) -> io::Result<OwnedFd> {
    if name.is_empty() {
        return Ok(OpenOptions::new().write(true).open("/dev/null")?.into());
    }
    let keep = both_ends(Path::new(name))?;
    if reader == Reader::Restarts {
        return Ok(keep);
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let only = OpenOptions::new().write(true).custom_flags(flags).open(name)?;
    drop(keep);
    // A pipe without a reader would have refused, were it not for ours, and does now.
    let mut poll = [PollFd::new(&only, PollFlags::OUT)];
    rustix::event::poll(&mut poll, Some(&Timespec::default()))?;
    match poll[0].revents().contains(PollFlags::ERR) {
        true => both_ends(Path::new(name)),
        false => Ok(only.into()),
    }
}

/// A FIFO opened for reading and writing: never blocks, and keeps either side alive.
fn both_ends(path: &Path) -> io::Result<OwnedFd> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a fifo"));
    }
    Ok(file.into())
}

/// Copies until either side ends.
async fn copy(from: OwnedFd, to: OwnedFd, progress: Rc<Progress>) {
    let (Ok(from), Ok(to)) = (Source::new(from), sink(to)) else { return };
    let mut buffer = vec![0; COPY_SIZE];
    loop {
        let read = from.read_with(|fd| rustix::io::read(fd, &mut buffer[..])).await;
        let Ok(count @ 1..) = read else { return };
        let mut rest = &buffer[..count];
        progress.writing.set(true);
        while !rest.is_empty() {
            let written = match &to {
                Sink::Waits(to) => to.write_with(|fd| rustix::io::write(fd, rest)).await,
                Sink::Takes(to) => rustix::io::write(to, rest).map_err(Into::into),
            };
            let Ok(count) = written else { return };
            rest = &rest[count..];
        }
        progress.writing.set(false);
        progress.bytes.set(progress.bytes.get() + count as u64);
    }
}

enum Sink {
    Waits(Source),
    /// Something that epoll does not take, such as the null device.
    Takes(OwnedFd),
}

fn sink(fd: OwnedFd) -> io::Result<Sink> {
    let copy = fd.try_clone()?;
    Ok(Source::new(fd).map_or(Sink::Takes(copy), Sink::Waits))
}
