//! What the kubelet was told of containers that ended: once and for all.

use std::collections::BTreeMap;

use anyhow::ensure;
use e2e::cri::{ContainerState, ContainerStatus};

#[derive(Debug, Default)]
pub(crate) struct Exits {
    seen: BTreeMap<String, (i32, String, i64)>,
}

impl Exits {
    /// Takes note of a container that has ended. What was said of it before has to be said again.
    pub(crate) fn see(&mut self, status: &ContainerStatus) -> anyhow::Result<()> {
        if status.state() != ContainerState::ContainerExited {
            ensure!(!self.seen.contains_key(&status.id), "lost exit: {} lives again", status.id);
            return Ok(());
        }
        ensure!(
            status.reason != "Unknown" && status.finished_at > 0,
            "lost exit: {} {}",
            status.exit_code,
            status.reason
        );
        let now = (status.exit_code, status.reason.clone(), status.finished_at);
        let first = self.seen.entry(status.id.clone()).or_insert_with(|| now.clone());
        ensure!(*first == now, "lost exit: {first:?} is {now:?} by now");
        Ok(())
    }
}
