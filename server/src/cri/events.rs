//! What happens to pods and containers, to any number of clients: GetContainerEvents, with the whole status of the pod,
//! and the events of containerd.
//!
//! One task reads the facts in their order, makes each into its messages, and hands them to all. A client that does not
//! keep up is told so and cut off, since what it misses it would never know of; it lists anew and comes back. Nobody
//! waits for it: neither what happens nor another client.

use std::sync::Arc;

use api::cri::v1::{self as cri, ContainerEventType};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::containerd::events::{Told, told};
use super::to_proto;
use crate::container::fact::{Became, Fact};
use crate::sandbox::{Pods, Sandbox};

/// Messages that a client may be behind. A pod of five containers makes a dozen in its life.
const BEHIND: usize = 4096;

/// Where clients subscribe.
#[derive(Debug, Clone)]
pub(super) struct Events {
    cri: broadcast::Sender<Arc<cri::ContainerEventResponse>>,
    containerd: broadcast::Sender<Arc<Told>>,
    stop: CancellationToken,
}

impl Events {
    /// Reads the facts from now until `stop`.
    pub(super) fn start(pods: Arc<Pods>, stop: CancellationToken) -> Self {
        let (cri, containerd) = (broadcast::channel(BEHIND).0, broadcast::channel(BEHIND).0);
        let events = Self { cri, containerd, stop };
        let told = events.clone();
        // Not among the operations, which are waited for before the stop.
        let tasks = pods.node.tasks.clone();
        tasks.spawn(tracing::info_span!("events"), async move {
            tokio::select! {
                () = told.pump(&pods) => {}
                () = told.ending() => {}
            }
        });
        events
    }

    /// Returns once the daemon ends.
    pub(super) async fn ending(&self) {
        self.stop.cancelled().await;
    }

    /// What happens from now on.
    pub(super) fn subscribe(&self) -> BoxStream<cri::ContainerEventResponse> {
        self.follow(&self.cri, |event| Some(event.clone()))
    }

    /// The same in containerd's words, of what becomes a message.
    pub(super) fn told<M: Send + 'static>(
        &self,
        message: impl Fn(&Told) -> Option<M> + Send + 'static,
    ) -> BoxStream<M> {
        self.follow(&self.containerd, message)
    }

    fn follow<T: Send + Sync + 'static, M: Send + 'static>(
        &self,
        sender: &broadcast::Sender<Arc<T>>,
        message: impl Fn(&T) -> Option<M> + Send + 'static,
    ) -> BoxStream<M> {
        let state = (Some(sender.subscribe()), self.stop.clone(), message);
        Box::pin(futures_util::stream::unfold(state, |(receiver, stop, message)| async move {
            let mut receiver = receiver?;
            loop {
                let received = tokio::select! {
                    received = receiver.recv() => received,
                    () = stop.cancelled() => return None,
                };
                match received.map(|event| message(&event)) {
                    Ok(Some(event)) => return Some((Ok(event), (Some(receiver), stop, message))),
                    Ok(None) => {}
                    Err(RecvError::Lagged(missed)) => {
                        let text = format!("{missed} events were not read in time: list again");
                        return Some((Err(Status::data_loss(text)), (None, stop, message)));
                    }
                    Err(RecvError::Closed) => return None,
                }
            }
        }))
    }

    async fn pump(&self, pods: &Pods) {
        let Some(mut facts) = pods.node.happened.read() else { return };
        while let Some(fact) = facts.recv().await {
            // Looked up even if nobody listens: what is gone is kept until its last fact was read.
            let (sandbox, container) = (pods.sandbox_of_fact(&fact), pods.container_of_fact(&fact));
            let at = pods.node.happened.stamp();
            let Some(sandbox) = sandbox else { continue };
            if self.cri.receiver_count() != 0 {
                self.cri.send(Arc::new(message(pods, &fact, &sandbox, at))).ok();
            }
            if self.containerd.receiver_count() != 0 {
                let events = told(pods, &fact, &sandbox, container.as_deref(), at);
                events.into_iter().for_each(|one| drop(self.containerd.send(Arc::new(one))));
            }
        }
    }
}

fn message(pods: &Pods, fact: &Fact, sandbox: &Sandbox, at: i64) -> cri::ContainerEventResponse {
    let kind = match fact.became {
        Became::Created => ContainerEventType::ContainerCreatedEvent,
        Became::Started => ContainerEventType::ContainerStartedEvent,
        Became::Stopped => ContainerEventType::ContainerStoppedEvent,
        Became::Deleted => ContainerEventType::ContainerDeletedEvent,
    };
    let containers = pods.containers_of(&fact.sandbox_id);
    cri::ContainerEventResponse {
        container_id: match &fact.container_id {
            Some(container) => container.to_string(),
            None => fact.sandbox_id.to_string(),
        },
        container_event_type: kind.into(),
        created_at: at,
        pod_sandbox_status: Some(to_proto::sandbox_status(sandbox)),
        containers_statuses: containers.iter().map(|one| to_proto::container_status(one)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    fn event(number: usize) -> Arc<cri::ContainerEventResponse> {
        let container_id = number.to_string();
        Arc::new(cri::ContainerEventResponse { container_id, ..Default::default() })
    }

    #[tokio::test]
    async fn who_does_not_keep_up_is_told_and_cut_off_and_nobody_else_notices() {
        let (cri, containerd) = (broadcast::channel(BEHIND).0, broadcast::channel(1).0);
        let events = Events { cri, containerd, stop: CancellationToken::new() };
        let (mut keeps_up, mut almost, mut silent) =
            (events.subscribe(), events.subscribe(), events.subscribe());
        for number in 0..=BEHIND {
            events.cri.send(event(number)).unwrap();
            assert_eq!(keeps_up.next().await.unwrap().unwrap(), *event(number));
            if number == 0 {
                assert_eq!(almost.next().await.unwrap().unwrap(), *event(0));
            }
        }
        assert_eq!(silent.next().await.unwrap().unwrap_err().code(), tonic::Code::DataLoss);
        assert!(silent.next().await.is_none(), "what comes later would hide the gap");
        for number in 1..=BEHIND {
            assert_eq!(almost.next().await.unwrap().unwrap(), *event(number));
        }
        events.stop.cancel();
        assert!(keeps_up.next().await.is_none());
    }
}
