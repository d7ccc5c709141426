//! The states of a container, and the one function that moves it.
//!
//! ```text
//!            Started            Exited
//!  Created ───────────▶ Running ───────▶ Exited
//!     │                                    ▲
//!     └──────────── StartFailed ───────────┘
//!     └───────────────  Exited  ───────────┘   (lost with its shim, or with the boot)
//! ```
//!
//! Each state holds exactly what is true in it; nothing else says what a container is.

use serde::{Deserialize, Serialize};

/// Nanoseconds since the epoch, as CRI counts.
pub(crate) type Timestamp = i64;

/// What a container is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Prepared; the OCI runtime has not been called.
    Created,
    /// Its process runs, or ran until a moment ago.
    Running(Running),
    /// Its process is gone for good.
    Exited(Exited),
}

/// A container whose process was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub pid: u32,
    pub started_at: Timestamp,
}

/// A container that has ended, or could not begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exited {
    /// What its first process was called; 0 if it never ran.
    #[serde(default)]
    pub pid: u32,
    /// 0 if it never ran.
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub exit_code: i32,
    pub reason: Reason,
    /// Why it could not start; else empty.
    pub message: String,
}

/// Why a container is not running any more, in the words that users grep for (cri.md 1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reason {
    Completed,
    Error,
    #[serde(rename = "OOMKilled")]
    OomKilled,
    StartError,
    /// Its state was lost: shim gone, or another boot.
    Unknown,
}

impl Reason {
    /// As ContainerStatus.reason has it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "Completed",
            Self::Error => "Error",
            Self::OomKilled => "OOMKilled",
            Self::StartError => "StartError",
            Self::Unknown => "Unknown",
        }
    }
}

/// Exit code of a container that could not be started.
pub(crate) const START_ERROR_CODE: i32 = 128;
/// Exit code of a container whose real one nobody knows.
pub(crate) const UNKNOWN_CODE: i32 = 255;

/// What can happen to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Started(Running),
    StartFailed {
        at: Timestamp,
        message: String,
    },
    /// Its process ended; `code` as a shell counts (128 + signal).
    Ended {
        at: Timestamp,
        code: i32,
        oom_killed: bool,
    },
    /// Its process is gone and nobody knows how.
    Lost {
        at: Timestamp,
    },
}

/// The event does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    /// `Refused` where the event cannot happen, or has happened already: an exit is taken once.
    pub(crate) fn next(&self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Created, Event::Started(running)) => Ok(Self::Running(running)),
            (Self::Created, Event::StartFailed { at, message }) => Ok(Self::Exited(Exited {
                pid: 0,
                started_at: 0,
                finished_at: at,
                exit_code: START_ERROR_CODE,
                reason: Reason::StartError,
                message,
            })),
            (Self::Created, Event::Ended { at, code, oom_killed }) => {
                Ok(Self::Exited(ended(NEVER, at, code, oom_killed)))
            }
            (Self::Running(running), Event::Ended { at, code, oom_killed }) => {
                Ok(Self::Exited(ended(*running, at, code, oom_killed)))
            }
            (Self::Created, Event::Lost { at }) => Ok(Self::Exited(lost(NEVER, at))),
            (Self::Running(running), Event::Lost { at }) => Ok(Self::Exited(lost(*running, at))),
            (Self::Running(_), Event::Started(_) | Event::StartFailed { .. })
            | (
                Self::Exited(_),
                Event::Started(_)
                | Event::StartFailed { .. }
                | Event::Ended { .. }
                | Event::Lost { .. },
            ) => Err(Refused),
        }
    }

    /// In one word, for texts.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running(_) => "running",
            Self::Exited(_) => "exited",
        }
    }
}

/// What ran of a container that never did.
const NEVER: Running = Running { pid: 0, started_at: 0 };

/// OOMKilled needs both: the kernel killed in this cgroup, and the container did not end well by itself.
fn ended(ran: Running, at: Timestamp, code: i32, oom_killed: bool) -> Exited {
    let reason = match code {
        0 => Reason::Completed,
        _ if oom_killed => Reason::OomKilled,
        _ => Reason::Error,
    };
    let Running { pid, started_at } = ran;
    let message = String::new();
    Exited { pid, started_at, finished_at: at.max(1), exit_code: code, reason, message }
}

fn lost(ran: Running, at: Timestamp) -> Exited {
    Exited {
        pid: ran.pid,
        started_at: ran.started_at,
        finished_at: at,
        exit_code: UNKNOWN_CODE,
        reason: Reason::Unknown,
        message: "the container's process is gone and its exit was not recorded".into(),
    }
}

/// Now, in CRI's unit.
pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .ok()
        .and_then(|since| Timestamp::try_from(since.as_nanos()).ok())
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> Vec<State> {
        let exited = ended(Running { pid: 7, started_at: 5 }, 9, 0, false);
        vec![
            State::Created,
            State::Running(Running { pid: 7, started_at: 5 }),
            State::Exited(exited),
        ]
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Started(Running { pid: 7, started_at: 5 }),
            Event::StartFailed { at: 6, message: "no such file".into() },
            Event::Ended { at: 8, code: 3, oom_killed: false },
            Event::Lost { at: 8 },
        ]
    }

    #[test]
    fn every_pair_of_state_and_event() {
        let expected = [
            ["running", "exited", "exited", "exited"],
            ["refused", "refused", "exited", "exited"],
            ["refused", "refused", "refused", "refused"],
        ];
        for (state, row) in states().iter().zip(expected) {
            for (event, name) in events().into_iter().zip(row) {
                let next = state.next(event.clone());
                assert_eq!(
                    next.as_ref().map_or("refused", State::name),
                    name,
                    "{state:?} {event:?}"
                );
            }
        }
    }

    #[test]
    fn reasons_follow_the_code_and_the_kernel() {
        for (code, oom, reason) in [
            (0, false, Reason::Completed),
            (0, true, Reason::Completed),
            (137, true, Reason::OomKilled),
            (137, false, Reason::Error),
            (1, false, Reason::Error),
        ] {
            assert_eq!(ended(NEVER, 2, code, oom).reason, reason, "{code} {oom}");
        }
    }

    #[test]
    fn a_failed_start_is_exit_128_and_never_started() {
        let State::Exited(exited) =
            State::Created.next(Event::StartFailed { at: 6, message: "x".into() }).unwrap()
        else {
            panic!("not exited");
        };
        assert_eq!((exited.exit_code, exited.started_at, exited.finished_at), (128, 0, 6));
    }
}
