//! Whether a container ended because it ran out of memory.
//!
//! The kernel counts its OOM kills per cgroup. The counter's file is opened when the container
//! is created, so it can still be read while the cgroup is being torn down, and is compared with
//! what it said then. On v2 a change of `memory.events` is noticed by polling, on v1 by an
//! eventfd; what counts is the counter either way.
//!
//! systemd removes a scope as soon as nobody is in it, maybe before we are told of the exit, and the counter of a
//! cgroup that is gone cannot be read. That of its parent counts its kills, too, and stays: what it has more than all
//! containers of ours that could be read is the kill of one that could not.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use super::Cgroup;
use crate::reactor::{Exit, Source};

/// How long before the exit a kill of another process of the container still explains it.
const RECENT: Duration = Duration::from_secs(2);
/// The exit code of who was killed, and of a shell whose command was.
const KILLED: u32 = 128 + libc::SIGKILL as u32;
/// v2's counters.
const EVENTS: &str = "memory.events";

/// The OOM kills of one container.
pub(crate) struct OomWatch {
    counter: File,
    notice: Notice,
    first: u64,
    last: Cell<u64>,
    grew: Cell<Option<Instant>>,
    /// v2 only.
    parent: Option<Parent>,
}

/// The pod's own cgroup, when the container was made.
struct Parent {
    events: PathBuf,
    first: u64,
    told: u64,
}

thread_local! {
    /// Kills of all containers of this shim.
    static TOLD: Cell<u64> = const { Cell::new(0) };
}

fn tell(kills: u64) {
    TOLD.set(TOLD.get() + kills);
}

impl Parent {
    fn of(cgroup: &Path) -> Option<Self> {
        let events = cgroup.parent()?.join(EVENTS);
        Some(Self { first: parse(&fs::read_to_string(&events).ok()?)?, told: TOLD.get(), events })
    }

    /// Whether there was a kill that no container has told of.
    fn has_another(&self) -> bool {
        let now = fs::read_to_string(&self.events).ok().as_deref().and_then(parse);
        now.is_some_and(|now| now.saturating_sub(self.first) > TOLD.get() - self.told)
    }
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
        let name = if cgroup.unified { EVENTS } else { "memory.oom_control" };
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
        let parent = cgroup.unified.then(|| Parent::of(dir)).flatten();
        let (last, grew) = (Cell::new(first), Cell::new(None));
        Ok(Self { counter, notice, first, last, grew, parent })
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
        let before = self.last.get();
        let Some(now) = count(&self.counter).filter(|now| *now > before) else { return false };
        self.saw(now);
        true
    }

    fn saw(&self, now: u64) {
        tell(now - self.last.replace(now));
        self.grew.set(Some(Instant::now()));
    }

    /// Whether this exit is the OOM killer's work. A kill of a child long survived is not, nor
    /// is a success, nor a kill that we were asked for.
    pub(crate) fn explains(&self, exit: &Exit, killed_by_us: bool) -> bool {
        self.refresh();
        if exit.ok() || killed_by_us {
            return false;
        }
        let unknown = self.last.get() == self.first && count(&self.counter).is_none();
        // A group counts as many kills as it has processes: who did not end so is not one of them.
        if unknown && exit.status == KILLED && self.parent.as_ref().is_some_and(Parent::has_another)
        {
            self.saw(self.first + 1);
        }
        if self.last.get() == self.first {
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
    fn a_kill_that_nobody_told_of_is_another_s() {
        let dir = tempfile::tempdir().expect("a directory");
        let events = dir.path().join(EVENTS);
        let kills =
            |kills: u64| fs::write(&events, format!("oom_kill {kills}\n")).expect("written");
        kills(3);
        let parent = Parent::of(&dir.path().join("scope")).expect("counters");
        assert!(!parent.has_another());
        kills(4);
        assert!(parent.has_another());
        tell(1);
        assert!(!parent.has_another());
        fs::remove_file(&events).expect("removed");
        assert!(!parent.has_another());
    }

    #[test]
    fn both_versions_are_read() {
        assert_eq!(parse("low 0\nhigh 0\nmax 3\noom 2\noom_kill 7\noom_group_kill 1\n"), Some(7));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\n"), None);
    }
}
