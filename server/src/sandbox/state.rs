//! The states of a sandbox, and the one function that moves it.
//!
//! ```text
//!             Up              Down
//!  Starting ──────▶ Ready ──────────▶ NotReady
//!      │                                 ▲
//!      └────────── Down ─────────────────┘   (release after a failed start was not whole)
//! ```
//!
//! A sandbox that is starting is not shown to clients: nothing may be created in it. One that is not ready
//! stays until RemovePodSandbox, since what it may still hold must stay visible.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a sandbox is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Starting,
    Ready(Ready),
    NotReady,
}

/// What holds while the pod is up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The shim, and when it was started in the kernel's clock ticks: a pid alone may be another's by now.
    pub shim_pid: u32,
    pub shim_start_time: u64,
    /// Empty for a pod in the host's network.
    pub ips: Vec<IpAddr>,
    /// The CNI result as the plugins gave it.
    pub network_result: serde_json::Value,
    /// Where the pod's namespaces can be joined; `None`: the host's.
    pub netns: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    /// The pod's own users.
    #[serde(default)]
    pub user: Option<PathBuf>,
    pub pid: Option<PathBuf>,
    /// The init of a shared pid namespace; 0: there is none.
    pub init_pid: u32,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Up(Ready),
    /// Stopped, failed to start, or its shim is lost.
    Down,
}

/// The event does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

impl State {
    /// The state after `event`.
    ///
    /// # Errors
    /// `Refused`: a sandbox comes up once.
    pub(crate) fn next(&self, event: Event) -> Result<Self, Refused> {
        match (self, event) {
            (Self::Starting, Event::Up(ready)) => Ok(Self::Ready(ready)),
            (Self::Starting | Self::Ready(_) | Self::NotReady, Event::Down) => Ok(Self::NotReady),
            (Self::Ready(_) | Self::NotReady, Event::Up(_)) => Err(Refused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            shim_pid: 1,
            shim_start_time: 1,
            ips: vec![],
            network_result: serde_json::Value::Null,
            netns: None,
            ipc: None,
            uts: None,
            user: None,
            pid: None,
            init_pid: 0,
        }
    }

    #[test]
    fn every_pair_of_state_and_event() {
        for (state, up, down) in [
            (State::Starting, Ok(State::Ready(ready())), Ok(State::NotReady)),
            (State::Ready(ready()), Err(Refused), Ok(State::NotReady)),
            (State::NotReady, Err(Refused), Ok(State::NotReady)),
        ] {
            assert_eq!(state.next(Event::Up(ready())), up, "{state:?}");
            assert_eq!(state.next(Event::Down), down, "{state:?}");
        }
    }
}
