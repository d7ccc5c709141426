//! Whether pods can be attached to the network now: what Status reports as NetworkReady.
//!
//! Three things can be wrong: no configuration, a plugin that is not there, and a plugin that says itself that it
//! is not ready (STATUS, CNI 1.1). The first two cost a few look-ups; STATUS runs plugins, so it is asked in the
//! background, only while somebody asks us, and its last answer is what counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Pods;
use crate::telemetry::apart;

/// How long an answer of the plugins holds: a network that is up is believed longer than one that is not.
const READY_HOLDS: Duration = Duration::from_secs(60);
const TROUBLE_HOLDS: Duration = Duration::from_secs(4);

/// The last answer of the plugins.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    asked: Option<Instant>,
    asking: bool,
    trouble: Option<String>,
}

impl Readiness {
    /// True if the plugins should be asked anew; the caller does so, and says `answered`.
    fn is_due(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = if state.trouble.is_some() { TROUBLE_HOLDS } else { READY_HOLDS };
        let due = !state.asking && state.asked.is_none_or(|asked| asked.elapsed() >= holds);
        state.asking |= due;
        due
    }

    fn answered(&self, trouble: Option<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = State { asked: Some(Instant::now()), asking: false, trouble };
    }

    fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trouble.clone()
    }

    /// The configuration changed: what the plugins said of the old one counts no more.
    pub(super) fn forget(&self) {
        self.answered(None);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked = None;
    }
}

/// Why pods cannot be attached now; `None`: they can.
pub(crate) fn trouble(pods: &Arc<Pods>) -> Option<String> {
    let cni = &pods.node.hands.cni;
    let current = pods.networks.current();
    let Some(network) = current.network() else { return Some(current.summary()) };
    let missing = cni.missing(network);
    if !missing.is_empty() {
        let dirs: Vec<_> = cni.bin_dirs.iter().map(|dir| dir.display().to_string()).collect();
        let missing = missing.join(", ");
        return Some(format!(
            "network {}: no plugin {missing} in {}",
            network.name(),
            dirs.join(", ")
        ));
    }
    let readiness = &pods.networks.readiness;
    if readiness.is_due() {
        let (pods, network) = (pods.clone(), network.clone());
        let tasks = pods.node.tasks.clone();
        tasks.spawn(tracing::info_span!("network status"), async move {
            let cni = pods.node.hands.cni.clone();
            let ask = move || Ok(cni.status(&network, &cni.deadline()).err());
            let trouble = apart(ask).await.ok().flatten().map(|err| err.to_string());
            pods.networks.readiness.answered(trouble);
        });
    }
    readiness.trouble()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_asked_once_at_a_time_and_again_after_a_change() {
        let readiness = Readiness::default();
        assert!(readiness.is_due());
        assert!(!readiness.is_due(), "asked already");
        readiness.answered(Some("no address left".into()));
        assert_eq!(readiness.trouble().as_deref(), Some("no address left"));
        assert!(!readiness.is_due(), "the answer holds for a while");
        readiness.forget();
        assert_eq!(readiness.trouble(), None);
        assert!(readiness.is_due());
    }
}
