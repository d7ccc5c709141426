//! What happens to sandboxes and containers, in the order in which it happened, as a stream for whoever stands above.
//!
//! A fact says what became of whom, and not in which state everything is by now: that is in memory. Telling one never
//! waits and cannot fail. There is one reader, which must not wait for anybody either, so that what is queued stays
//! little; facts that nobody reads are not kept.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::state::{State, Timestamp, now};
use crate::id::{ContainerId, SandboxId};

/// What became of a sandbox or container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fact {
    pub sandbox_id: SandboxId,
    /// `None`: the sandbox itself.
    pub container_id: Option<ContainerId>,
    pub became: Became,
}

/// As CRI's ContainerEventType has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Became {
    Created,
    Started,
    Stopped,
    Deleted,
}

impl Became {
    /// What a container became whose state is new.
    pub(super) fn of(state: &State) -> Self {
        match state {
            State::Created => Self::Created,
            State::Running(_) => Self::Started,
            State::Exited(_) => Self::Stopped,
        }
    }
}

/// The stream's beginning, and until somebody reads it, its end.
#[derive(Debug)]
pub(crate) struct Facts {
    sender: mpsc::UnboundedSender<Fact>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Fact>>>,
    /// The last stamp.
    last: AtomicI64,
}

impl Default for Facts {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Mutex::new(Some(receiver)), last: AtomicI64::new(0) }
    }
}

impl Facts {
    /// Appends a fact about a container.
    pub(crate) fn of_container(
        &self,
        sandbox: &SandboxId,
        container: &ContainerId,
        became: Became,
    ) {
        self.tell(Fact {
            sandbox_id: sandbox.clone(),
            container_id: Some(container.clone()),
            became,
        });
    }

    /// Appends a fact about a sandbox.
    pub(crate) fn of_sandbox(&self, sandbox: &SandboxId, became: Became) {
        self.tell(Fact { sandbox_id: sandbox.clone(), container_id: None, became });
    }

    fn tell(&self, fact: Fact) {
        // Fails once the reader has gone, which it does when the daemon ends.
        self.sender.send(fact).ok();
    }

    /// The time by which clients order what they are told, in nanoseconds since 1970: each is later than the one before,
    /// also where the node's clock is set back. Taken before what it is for is looked at, so that what is told with a
    /// later one is never older.
    pub(crate) fn stamp(&self) -> Timestamp {
        let now = now();
        let later = |last: i64| now.max(last + 1);
        let before =
            self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        later(before.unwrap_or_else(|last| last))
    }

    /// The end of the stream, with all that was told so far; `None` if somebody has it already.
    pub(crate) fn read(&self) -> Option<mpsc::UnboundedReceiver<Fact>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_in_order_whatever_the_clock_does() {
        let facts = Facts::default();
        let first = facts.stamp();
        assert!(first >= now() - 60_000_000_000);
        assert!(facts.stamp() > first);
        let ahead = i64::MAX / 2;
        facts.last.store(ahead, Ordering::Relaxed);
        assert_eq!((facts.stamp(), facts.stamp()), (ahead + 1, ahead + 2));
    }

    #[tokio::test]
    async fn facts_come_in_order_and_to_one_reader() {
        let facts = Facts::default();
        let (sandbox, container) = (SandboxId::random(), ContainerId::random());
        facts.of_sandbox(&sandbox, Became::Started);
        facts.of_container(&sandbox, &container, Became::Created);
        let mut reader = facts.read().unwrap();
        assert!(facts.read().is_none());
        facts.of_sandbox(&sandbox, Became::Deleted);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(reader.recv().await.unwrap());
        }
        assert_eq!(
            seen[0],
            Fact { sandbox_id: sandbox, container_id: None, became: Became::Started }
        );
        assert_eq!(seen[1].container_id, Some(container));
        assert_eq!(seen[2].became, Became::Deleted);
        drop(reader);
        facts.of_container(&SandboxId::random(), &ContainerId::random(), Became::Stopped);
    }
}
