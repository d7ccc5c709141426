//! GetContainerEvents: what happens to pods and containers, with the whole status of the pod, to any number of clients.
//!
//! One task reads the facts in their order, makes each into one message, and hands it to all. A client that does not
//! keep up is told so and cut off, since what it misses it would never know of; it lists anew and comes back. Nobody
//! waits for it: neither what happens nor another client.

use std::sync::Arc;

use api::cri::v1::{self as cri, ContainerEventType};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::to_proto;
use crate::container::fact::{Became, Fact};
use crate::container::state::now;
use crate::sandbox::{Pods, Sandbox};

/// Messages that a client may be behind. A pod of five containers makes a dozen in its life.
const BEHIND: usize = 4096;

/// Where clients subscribe.
#[derive(Debug, Clone)]
pub(super) struct Events {
    sender: broadcast::Sender<Arc<cri::ContainerEventResponse>>,
    stop: CancellationToken,
}

impl Events {
    /// Reads the facts from now until `stop`.
    pub(super) fn start(pods: Arc<Pods>, stop: CancellationToken) -> Self {
        let (sender, _) = broadcast::channel(BEHIND);
        let events = Self { sender: sender.clone(), stop: stop.clone() };
        // Not among the operations, which are waited for before the stop.
        let tasks = pods.node.tasks.clone();
        tasks.spawn(tracing::info_span!("events"), async move {
            tokio::select! {
                () = pump(&pods, &sender) => {}
                () = stop.cancelled() => {}
            }
        });
        events
    }

    /// What happens from now on.
    pub(super) fn subscribe(&self) -> BoxStream<cri::ContainerEventResponse> {
        let receiver = Some(self.sender.subscribe());
        let stop = self.stop.clone();
        Box::pin(futures_util::stream::unfold((receiver, stop), |(receiver, stop)| async move {
            let mut receiver = receiver?;
            let received = tokio::select! {
                received = receiver.recv() => received,
                () = stop.cancelled() => return None,
            };
            match received {
                Ok(event) => Some((Ok(event.as_ref().clone()), (Some(receiver), stop))),
                Err(RecvError::Lagged(missed)) => {
                    let text = format!("{missed} events were not read in time: list again");
                    Some((Err(Status::data_loss(text)), (None, stop)))
                }
                Err(RecvError::Closed) => None,
            }
        }))
    }
}

async fn pump(pods: &Pods, sender: &broadcast::Sender<Arc<cri::ContainerEventResponse>>) {
    let Some(mut facts) = pods.node.happened.read() else { return };
    let mut last = 0;
    while let Some(fact) = facts.recv().await {
        // Looked up even if nobody listens: a sandbox that is gone is kept until its last fact was read.
        let sandbox = pods.sandbox_of_fact(&fact);
        if sender.receiver_count() == 0 {
            continue;
        }
        // Strictly later than the one before: clients order by it.
        last = now().max(last + 1);
        if let Some(sandbox) = sandbox {
            sender.send(Arc::new(message(pods, &fact, &sandbox, last))).ok();
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
