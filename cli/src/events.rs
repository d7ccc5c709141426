//! `podwright events`: what happens to pods and containers, as it happens.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;

use api::cri::v1::{ContainerEventResponse, ContainerEventType, ContainerStatus, GetEventsRequest};

use crate::daemon::Daemon;
use crate::human;
use crate::json;

/// Show what happens to pods and containers, from now until Ctrl-C
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print a JSON object a line, with the whole status of the pod
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, daemon: &mut Daemon) -> anyhow::Result<ExitCode> {
    let mut events = daemon.runtime.get_container_events(GetEventsRequest {}).await?.into_inner();
    let mut names = Names::default();
    if !args.json {
        for one in daemon.containers().await? {
            names.insert(one.id, one.metadata.map(|metadata| metadata.name).unwrap_or_default());
        }
    }
    while let Some(event) = events.message().await? {
        let line = match args.json {
            true => json::message(&event)?.to_string(),
            false => line(&event, &mut names),
        };
        std::io::stdout().write_all(format!("{line}\n").as_bytes())?;
        std::io::stdout().flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The containers by their ids: the event of a deletion does not tell the name any more.
type Names = HashMap<String, String>;

fn line(event: &ContainerEventResponse, names: &mut Names) -> String {
    let pod = event.pod_sandbox_status.clone().unwrap_or_default();
    let metadata = pod.metadata.unwrap_or_default();
    let became = match event.container_event_type() {
        ContainerEventType::ContainerCreatedEvent => "created",
        ContainerEventType::ContainerStartedEvent => "started",
        ContainerEventType::ContainerStoppedEvent => "stopped",
        ContainerEventType::ContainerDeletedEvent => "deleted",
    };
    for one in &event.containers_statuses {
        names.insert(one.id.clone(), name(one).to_owned());
    }
    let of = event.containers_statuses.iter().find(|one| one.id == event.container_id);
    let (kind, name) = if event.container_id == pod.id {
        ("pod", metadata.name)
    } else {
        let known = names.get(&event.container_id).map_or("?", String::as_str);
        ("container", format!("{}/{known}", metadata.name))
    };
    if event.container_event_type() == ContainerEventType::ContainerDeletedEvent {
        names.remove(&event.container_id);
    }
    let ending = match of {
        Some(of) if event.container_event_type() == ContainerEventType::ContainerStoppedEvent => {
            format!(" ({})", human::ending(of))
        }
        _ => String::new(),
    };
    let at = human::rfc3339(event.created_at);
    format!("{at} {kind} {} {name} {became}{ending}", human::short(&event.container_id))
}

fn name(of: &ContainerStatus) -> &str {
    of.metadata.as_ref().map_or("?", |metadata| metadata.name.as_str())
}

#[cfg(test)]
mod tests {
    use api::cri::v1::{ContainerMetadata, ContainerState, PodSandboxMetadata, PodSandboxStatus};

    use super::*;

    #[test]
    fn a_line_says_who_became_what_and_how_it_ended() {
        let status = ContainerStatus {
            id: "c".into(),
            metadata: Some(ContainerMetadata { name: "web".into(), attempt: 0 }),
            state: ContainerState::ContainerExited.into(),
            exit_code: 3,
            reason: "Error".into(),
            ..Default::default()
        };
        let mut event = ContainerEventResponse {
            container_id: "c".into(),
            container_event_type: ContainerEventType::ContainerStoppedEvent.into(),
            created_at: 1_000_000_000,
            pod_sandbox_status: Some(PodSandboxStatus {
                id: "p".into(),
                metadata: Some(PodSandboxMetadata { name: "demo".into(), ..Default::default() }),
                ..Default::default()
            }),
            containers_statuses: vec![status],
        };
        let names = &mut Names::default();
        let told = line(&event, names);
        assert!(told.contains(" container c demo/web stopped (exited 3"), "{told}");
        event.containers_statuses.clear();
        event.container_event_type = ContainerEventType::ContainerDeletedEvent.into();
        assert!(line(&event, names).ends_with(" container c demo/web deleted"));
        assert!(line(&event, names).ends_with(" container c demo/? deleted"), "nobody knows");
        event.container_id = "p".into();
        assert!(line(&event, names).ends_with(" pod p demo deleted"));
    }
}
