//! The log thread: reads what containers print and appends it to their log files.
//!
//! It starts with the first container that has a log. A disk that hangs stops this thread, and
//! with it (through full pipes) at worst the containers that print, but neither exits nor kills.
//! While nothing is printed it holds no buffers.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::channel::{Answer, Command, Shared};
use super::file::LogFile;
use super::line::{Batch, Head, Splitter, Stream};
use super::pace::Pace;
use super::stamp::Stamp;
use super::viewers::Viewers;
use crate::sys;

/// How much one read takes at most; also what a pipe is made to hold.
pub(super) const READ_SIZE: usize = 256 * 1024;
/// How much it takes at first: a container that prints little costs little.
const FIRST_READ_SIZE: usize = 8 * 1024;
/// How many reads one stream gets before it is the others' turn.
const READS_PER_TURN: usize = 4;
/// Buffers are given back after this long without output.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// The event of the command descriptor; streams count from 1.
const COMMANDS: u64 = 0;

struct Writer {
    shared: Arc<Shared>,
    epoll: OwnedFd,
    logs: HashMap<u64, Log>,
    streams: HashMap<u64, Tap>,
    viewers: Viewers,
    next_stream: u64,
    input: Vec<u8>,
    output: Batch,
    pace: Pace,
}

struct Log {
    file: LogFile,
    max_line: usize,
    open_streams: usize,
    /// Whom to tell when the last stream has ended.
    draining: Option<u64>,
}

/// One stream of one container.
struct Tap {
    log: u64,
    fd: OwnedFd,
    stream: Stream,
    splitter: Splitter,
}

/// The thread's body.
pub(super) fn run(shared: &Arc<Shared>) {
    if let Err(error) = Writer::new(shared).and_then(|mut writer| writer.serve()) {
        eprintln!("log thread: {error}");
    }
}

impl Writer {
    fn new(shared: &Arc<Shared>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &shared.commands_ready, EventData::new_u64(COMMANDS), EventFlags::IN)?;
        Ok(Self {
            shared: Arc::clone(shared),
            epoll,
            logs: HashMap::new(),
            streams: HashMap::new(),
            viewers: Viewers::default(),
            next_stream: COMMANDS + 1,
            input: Vec::new(),
            output: Batch::default(),
            pace: Pace::default(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(16);
        loop {
            let buffers = rustix::buffer::spare_capacity(&mut events);
            let idle = (!self.input.is_empty()).then_some(&IDLE);
            match epoll::wait(&self.epoll, buffers, idle) {
                Ok(0) => self.release_buffers(),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            // Output first: a command to stop reading comes after what was printed before it.
            events.sort_unstable_by_key(|event| std::cmp::Reverse(event.data.u64()));
            let mut moved = 0;
            for event in events.drain(..) {
                match event.data.u64() {
                    COMMANDS => self.obey(),
                    key if self.streams.contains_key(&key) => moved += self.pump(key),
                    key => self.viewers.end(key, &self.shared),
                }
            }
            if let Some(pause) = self.pace.pause(Instant::now(), moved) {
                self.gather(pause);
            }
        }
    }

    /// Lets output gather, but no command wait.
    fn gather(&self, pause: Duration) {
        let limit = Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() };
        let mut commands = [PollFd::new(&self.shared.commands_ready, PollFlags::IN)];
        // A signal, or anything else, only ends it early.
        let _ = rustix::event::poll(&mut commands, Some(&limit));
    }

    fn release_buffers(&mut self) {
        self.input = Vec::new();
        self.output = Batch::default();
        for tap in self.streams.values_mut() {
            tap.splitter.shrink();
        }
        sys::trim_memory();
    }

    fn obey(&mut self) {
        for (ticket, command) in self.shared.take_commands() {
            let answer = match command {
                Command::Open { log, path, max_line, written } => {
                    LogFile::open(path, written).map(|file| {
                        self.logs
                            .insert(log, Log { file, max_line, open_streams: 0, draining: None });
                    })
                }
                Command::Attach { log, stream, fd } => self.attach(log, stream, fd),
                Command::View { log, stream, pipe, ended } => self.view(log, stream, pipe, ended),
                Command::Reopen { log } => match self.logs.get_mut(&log) {
                    Some(log) => log.file.reopen(),
                    None => Err(io::ErrorKind::NotFound.into()),
                },
                Command::Drain { log } => match self.logs.get_mut(&log) {
                    Some(log) if log.open_streams > 0 => {
                        log.draining = Some(ticket);
                        continue;
                    }
                    _ => Ok(()),
                },
                Command::Close { log } => {
                    self.close(log);
                    Ok(())
                }
            };
            self.shared.answer(ticket, answer);
        }
    }

    fn attach(&mut self, log: u64, stream: Stream, fd: OwnedFd) -> Answer {
        let Some(entry) = self.logs.get_mut(&log) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let key = self.next_stream;
        self.next_stream += 1;
        epoll::add(&self.epoll, &fd, EventData::new_u64(key), EventFlags::IN)?;
        entry.open_streams += 1;
        let splitter = Splitter::new(entry.max_line);
        self.streams.insert(key, Tap { log, fd, stream, splitter });
        Ok(())
    }

    fn view(&mut self, log: u64, stream: Stream, pipe: OwnedFd, ended: u64) -> Answer {
        if !self.logs.contains_key(&log) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let key = self.next_stream;
        self.next_stream += 1;
        // Nothing is asked for: that the reader has gone is always told.
        epoll::add(&self.epoll, &pipe, EventData::new_u64(key), EventFlags::empty())?;
        self.viewers.insert(key, log, stream, pipe, ended);
        Ok(())
    }

    /// Whatever still holds the other end gets `EPIPE` from now on.
    fn close(&mut self, log: u64) {
        let left: Vec<u64> =
            self.streams.iter().filter(|(_, tap)| tap.log == log).map(|(key, _)| *key).collect();
        for key in left {
            self.pump(key);
            self.end(key);
        }
        self.viewers.end_all(log, &self.shared);
        self.logs.remove(&log);
    }

    /// Moves what there is to read, within this stream's turn; how much it was.
    fn pump(&mut self, key: u64) -> usize {
        if self.input.is_empty() {
            self.input.resize(FIRST_READ_SIZE, 0);
        }
        let mut moved = 0;
        for _ in 0..READS_PER_TURN {
            let Some(tap) = self.streams.get_mut(&key) else { break };
            let count = match rustix::io::read(&tap.fd, &mut self.input[..]) {
                Ok(count @ 1..) => count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                // The end; a terminal says EIO when its other side is gone.
                Ok(0) | Err(_) => {
                    self.end(key);
                    break;
                }
            };
            moved += count;
            let head = Head::new(&Stamp::now(), tap.stream);
            tap.splitter.feed(&self.input[..count], &head, &mut self.output);
            let (log, stream) = (tap.log, tap.stream);
            self.flush(key);
            self.viewers.show(log, stream, &self.input[..count], &self.shared);
            if count < self.input.len() {
                break;
            }
            self.input.resize(READ_SIZE.min(count * 4), 0);
        }
        moved
    }

    fn end(&mut self, key: u64) {
        let Some(tap) = self.streams.get_mut(&key) else { return };
        if tap.splitter.pending() {
            let head = Head::new(&Stamp::now(), tap.stream);
            tap.splitter.finish(&head, &mut self.output);
            self.flush(key);
        }
        let Some(tap) = self.streams.remove(&key) else { return };
        let _ = epoll::delete(&self.epoll, &tap.fd);
        if let Some(log) = self.logs.get_mut(&tap.log) {
            log.open_streams -= 1;
            if log.open_streams == 0
                && let Some(ticket) = log.draining.take()
            {
                self.shared.answer(ticket, Ok(()));
            }
        }
    }

    fn flush(&mut self, key: u64) {
        let Some(tap) = self.streams.get(&key) else { return };
        if self.output.lines > 0
            && let Some(log) = self.logs.get_mut(&tap.log)
        {
            log.file.append(&self.output, tap.stream);
        }
        self.output.bytes.clear();
        self.output.lines = 0;
    }
}
