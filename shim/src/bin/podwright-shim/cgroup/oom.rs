//! Whether a container ended because it ran out of memory.
//!
//! The kernel counts its OOM kills per cgroup. The counter's file is opened when the container
//! is created, so it can still be read while the cgroup is being torn down, and is compared with
//! what it said then. On v2 a change of `memory.events` is noticed by polling, on v1 by an
//! eventfd; what counts is the counter either way.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::Cgroup;
use crate::reactor::{Exit, Source};

/// How long before the exit a kill of another process of the container still explains it.
const RECENT: Duration = Duration::from_secs(2);

/// The OOM kills of one container.
pub(crate) struct OomWatch {
    counter: File,
    notice: Notice,
    first: u64,
    last: Cell<u64>,
    grew: Cell<Option<Instant>>,
}

enum Notice {
    /// v2: the counter's own file wakes us.
    File(Source),
    /// v1: an eventfd does.
    Event(Source),
}

impl OomWatch {
    pub(crate) fn new(cgroup: &Cgroup) -> io::Result<Self> {
        let dir = cgroup.memory.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let name = if cgroup.unified { "memory.events" } else { "memory.oom_control" };
        let counter = File::open(dir.join(name))?;
        let notice = if cgroup.unified {
            Notice::File(Source::new(OwnedFd::from(counter.try_clone()?))?)
        } else {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let order = format!("{} {}", event.as_raw_fd(), counter.as_raw_fd());
            fs::write(dir.join("cgroup.event_control"), order)?;
            Notice::Event(Source::new(event)?)
        };
        let first = count(&counter).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { counter, notice, first, last: Cell::new(first), grew: Cell::new(None) })
    }

    /// Waits for the next kill.
    pub(crate) async fn next_kill(&self) {
        loop {
            match &self.notice {
                Notice::File(source) => source.changed().await,
                Notice::Event(source) => {
                    let read = source.read_with(|fd| rustix::io::read(fd, &mut [0; 8])).await;
                    if read.is_err() {
                        return std::future::pending().await;
                    }
                }
            }
            if self.refresh() {
                return;
            }
        }
    }

    /// Reads the counter again; whether it grew since the last time.
    fn refresh(&self) -> bool {
        let grew = count(&self.counter).is_some_and(|now| self.last.replace(now) < now);
        if grew {
            self.grew.set(Some(Instant::now()));
        }
        grew
    }

    /// Whether this exit is the OOM killer's work. A kill of a child long survived is not, nor
    /// is a success, nor a kill that we were asked for.
    pub(crate) fn explains(&self, exit: &Exit, killed_by_us: bool) -> bool {
        self.refresh();
        if self.last.get() == self.first || exit.ok() || killed_by_us {
            return false;
        }
        let recent = self.grew.get().is_some_and(|grew| grew.elapsed() < RECENT);
        recent || exit.signal == Some(libc::SIGKILL as u32)
    }
}

fn count(file: &File) -> Option<u64> {
    let mut bytes = [0; 1024];
    let length = file.read_at(&mut bytes, 0).ok()?;
    parse(std::str::from_utf8(&bytes[..length]).ok()?)
}

/// The line `oom_kill <n>`, which both versions have.
fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        assert_eq!(parse("low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 1\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\n"), None);
    }
}
