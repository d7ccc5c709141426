//! Whether a shim that lives also answers.
//!
//! A shim that has nothing to do sleeps at one place in the kernel, so a glance at that place is all that an idle
//! pod costs. A shim that is elsewhere, that kept a call waiting, or that closed its connection is asked. One that
//! could answer and does not is dead to us: whoever asked kills it, and the rest follows as from any other death.
//!
//! A shim is never blamed for what the node does to it. It has not answered only while its threads sleep or are
//! stopped, or while it burns time; one that waits for a processor or for the disk is waited for.

use std::io::Read;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::{Shim, client, connect};
use crate::host::process::{self, Activity};

/// How often a shim that was asked is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long it may sleep over a question. Whoever has something to do does not sleep, on however busy a node.
const ASLEEP: Duration = Duration::from_secs(3);
/// How long it may work instead of answering.
const BUSY: Duration = Duration::from_secs(10);
/// The question itself waits for as long as nothing speaks against the shim.
const QUESTION: Duration = Duration::from_secs(600);

impl Shim {
    /// Somebody has reason to ask whether it still answers.
    pub(crate) fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Resolves when somebody has, or when the connection is lost.
    pub(crate) async fn doubted(&self) {
        let client = self.client();
        tokio::select! {
            () = self.doubts.notified() => {}
            () = client.lost() => {}
        }
    }

    /// Looks where it sleeps; anything but what its last answer explains is a reason to ask it. Costs microseconds.
    pub(crate) fn glance(&self) {
        let place = place(self.pid);
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.last = place;
        if seen.last != seen.answered {
            self.doubt();
        }
    }

    /// Asks it. The reason why it is taken for dead, or `None` once it answers or has ended.
    pub(crate) async fn hangs(&self) -> Option<String> {
        let mut answered = pin!(self.answers());
        let mut trial = Trial::begin(self.pid);
        loop {
            tokio::select! {
                () = &mut answered => {
                    let mut seen =
                        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    // Asleep there it answers. That it runs explains nothing: it may never stop.
                    seen.answered = seen.last.take().filter(|place| !place.starts_with('R'));
                    return None;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            if !self.is_alive() {
                return None;
            }
            if let Some(verdict) = trial.look(process::activity(self.pid)) {
                return Some(verdict);
            }
        }
    }

    /// Returns once it has answered anything at all, over a new connection if the old one is lost.
    async fn answers(&self) {
        loop {
            match self.client().identify(self.id.as_str(), QUESTION).await {
                Err(err) if err.is_lost() => {}
                Err(client::Error::Deadline { .. }) => continue,
                Ok(_) | Err(_) => return,
            }
            if connect(&self.address).await.map(|fresh| self.replace(fresh)).is_err() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// What was seen of a shim that answered, and what was seen of it since.
#[derive(Debug, Default)]
pub(super) struct Seen {
    answered: Option<String>,
    last: Option<String>,
}

/// The function of the kernel in which its main thread sleeps (`ep_poll`, `do_signal_stop`); where the kernel does
/// not tell, the letter of its state.
fn place(pid: u32) -> Option<String> {
    let mut name = [0; 64];
    let mut file = std::fs::File::open(format!("/proc/{pid}/wchan")).ok()?;
    let read = file.read(&mut name).ok()?;
    match std::str::from_utf8(&name[..read]).ok()?.trim() {
        "" | "0" => process::activity(pid).map(|activity| activity.main.to_string()),
        place => Some(place.to_owned()),
    }
}

/// A shim that has not even taken our connection, for whoever tries again and again.
#[derive(Debug)]
pub(crate) struct Suspect {
    pid: u32,
    trial: Trial,
}

impl Suspect {
    pub(crate) fn begin(pid: u32) -> Self {
        Self { pid, trial: Trial::begin(pid) }
    }

    /// Looks at it once more. The reason why it is taken for dead, if there is enough against it by now.
    pub(crate) fn look(&mut self) -> Option<String> {
        self.trial.look(process::activity(self.pid))
    }
}

/// The evidence against a shim that has not answered yet.
#[derive(Debug)]
struct Trial {
    asked: Instant,
    ticks: u64,
    asleep_since: Option<Instant>,
}

impl Trial {
    fn begin(pid: u32) -> Self {
        let ticks = process::activity(pid).map_or(0, |activity| activity.ticks);
        Self { asked: Instant::now(), ticks, asleep_since: None }
    }

    fn look(&mut self, activity: Option<Activity>) -> Option<String> {
        let Activity { main, running, ticks } = activity?;
        let asleep = !running && matches!(main, 'S' | 'I' | 'T' | 't');
        if !asleep {
            self.asleep_since = None;
        } else {
            let slept = self.asleep_since.get_or_insert_with(Instant::now).elapsed();
            let what = if matches!(main, 'T' | 't') { "is stopped" } else { "sleeps" };
            return (slept >= ASLEEP)
                .then(|| format!("{what} and has not answered for {} s", slept.as_secs()));
        }
        let age = self.asked.elapsed();
        let worked = Duration::from_secs(ticks.saturating_sub(self.ticks)) / process::TICKS;
        (age >= BUSY && worked >= age / 2)
            .then(|| format!("works and has not answered for {} s", age.as_secs()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(asked: Duration, asleep: Option<Duration>) -> Trial {
        let ago = |age| Instant::now().checked_sub(age).unwrap();
        Trial { asked: ago(asked), ticks: 0, asleep_since: asleep.map(ago) }
    }

    #[test]
    fn only_one_that_could_answer_is_blamed() {
        let seconds = Duration::from_secs;
        let look = |main, running, ticks, asked, asleep: Option<u64>| {
            let activity = Activity { main, running, ticks };
            trial(seconds(asked), asleep.map(seconds)).look(Some(activity))
        };
        assert!(look('S', false, 0, 4, Some(4)).unwrap().contains("sleeps"));
        assert!(look('T', false, 0, 4, Some(4)).unwrap().contains("stopped"));
        assert_eq!(look('S', false, 0, 4, Some(1)), None, "not for long");
        assert_eq!(look('D', false, 0, 300, Some(300)), None, "the disk is waited for");
        assert_eq!(look('R', true, 1, 300, Some(4)), None, "it gets no processor");
        assert!(look('R', true, 1100, 12, None).unwrap().contains("works"));
        assert_eq!(look('R', true, 500, 5, None), None, "not for long");
        assert_eq!(trial(seconds(60), Some(seconds(60))).look(None), None, "gone");
    }

    #[test]
    fn where_a_process_sleeps_tells_whether_it_was_stopped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let seen = |differs_from: &Option<String>| {
            let start = Instant::now();
            loop {
                let now = place(child.id());
                if now != *differs_from && now.as_deref().is_some_and(|place| place != "R") {
                    return now;
                }
                assert!(start.elapsed() < Duration::from_secs(20), "{now:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let asleep = seen(&None);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let stopped = seen(&asleep);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(asleep, stopped);
    }
}
